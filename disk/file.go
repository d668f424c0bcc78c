package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// File is what an image is kept in: an *os.File, or memory.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

var zeros [64 * kib]byte

// corrupt makes the error for a structure that the format does not allow.
func corrupt(structure string, offset int64, format string, args ...any) error {
	return fmt.Errorf("%s at offset %d: %w: %w", structure, offset, fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

// unsupported makes the error for what the format allows and this package does not do.
func unsupported(structure string, offset int64, format string, args ...any) error {
	return fmt.Errorf("%s at offset %d: %w: %w", structure, offset, fmt.Errorf(format, args...), errdefs.ErrNotImplemented)
}

// invalid makes the error for an argument.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

// readStructure reads n bytes of an image that must have them.
func readStructure(r io.ReaderAt, structure string, offset int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if m, err := r.ReadAt(b, offset); m < n {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, corrupt(structure, offset, "cut off after %d of %d bytes", m, n)
		}
		return nil, fmt.Errorf("read %s at offset %d: %w", structure, offset, err)
	}
	return b, nil
}

// readZeroed fills p; what is beyond the end of the file is zero. Images keep blocks there that were never written.
func readZeroed(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n < len(p) && err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[n:])
	return nil
}

// isZero reports whether all of p is zero.
func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// writeZeros writes n zeros.
func writeZeros(w io.WriterAt, offset, n int64) error {
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if _, err := w.WriteAt(zeros[:part], offset); err != nil {
			return err
		}
		offset, n = offset+part, n-part
	}
	return nil
}

// roundUp rounds v up to a multiple of unit.
func roundUp(v, unit int64) int64 { return (v + unit - 1) / unit * unit }
