package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"

	"github.com/hostcompute/hcs/layer"
)

const (
	copyChunk = 1 * mib
	// Zeros are looked for in units of this size. It is also what holes in files are good for.
	holeUnit = 64 * kib
)

// Copy writes the first size bytes of src to dst, which is zero there: zeros are not written, so that holes stay holes and
// blocks without data are not allocated. Use io.NewOffsetWriter and io.NewSectionReader for parts of a disk.
func Copy(ctx context.Context, dst io.WriterAt, src io.ReaderAt, size int64) error {
	c := copier{ctx: ctx, dst: dst, src: src, buf: make([]byte, copyChunk)}
	for x, err := range dataOf(src, size) {
		if err == nil {
			err = c.extent(x.Offset, min(x.Offset+x.Length, size))
		}
		if err != nil {
			return fmt.Errorf("copy disk: %w", err)
		}
		if x.Offset+x.Length >= size {
			break
		}
	}
	return nil
}

type copier struct {
	ctx context.Context //nolint:containedctx // lives for one call of Copy
	dst io.WriterAt
	src io.ReaderAt
	buf []byte
}

// extent copies what is from start up to end, in chunks that end at their own multiples.
func (c *copier) extent(start, end int64) error {
	for start < end {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		n := min(end-start, copyChunk-start%copyChunk)
		p := c.buf[:n]
		if m, err := c.src.ReadAt(p, start); int64(m) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read at offset %d: %w", start+int64(m), err)
		}
		if err := c.put(p, start); err != nil {
			return err
		}
		start += n
	}
	return nil
}

// put writes p without its zeros.
func (c *copier) put(p []byte, off int64) error {
	for len(p) > 0 {
		skip := runOf(p, off, true)
		p, off = p[skip:], off+int64(skip)
		n := runOf(p, off, false)
		if n > 0 {
			if _, err := c.dst.WriteAt(p[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// runOf returns how much of p, up to units' borders, is zero, or is not.
func runOf(p []byte, off int64, zero bool) int {
	n := 0
	for n < len(p) {
		unit := min(len(p)-n, holeUnit-int((off+int64(n))%holeUnit))
		if isZero(p[n:n+unit]) != zero {
			break
		}
		n += unit
	}
	return n
}

// dataOf yields the runs of src that may have other bytes than zero.
func dataOf(src io.ReaderAt, size int64) iter.Seq2[layer.Extent, error] {
	if d, ok := src.(*Disk); ok {
		return d.Extents()
	}
	return func(yield func(layer.Extent, error) bool) {
		for off := int64(0); off < size; {
			start, n, err := nextData(src, off, size)
			if n == 0 && err == nil || !yield(layer.Extent{Offset: start, Length: n}, err) || err != nil {
				return
			}
			off = start + n
		}
	}
}

// Of lseek(2) on Linux; elsewhere other numbers or nothing mean this.
const (
	seekData = 3
	seekHole = 4
)

// nextData returns the first run of r from off up to end that is no hole, as far as the system tells.
func nextData(r io.ReaderAt, off, end int64) (start, n int64, err error) {
	f, ok := r.(*os.File)
	if !ok || runtime.GOOS != "linux" {
		return off, max(end-off, 0), nil
	}
	start, err = f.Seek(off, seekData)
	if err != nil {
		return nextWithoutData(f, off, end)
	}
	hole, err := f.Seek(start, seekHole)
	if err != nil {
		hole = end
	}
	return start, max(min(hole, end)-start, 0), nil
}

// nextWithoutData tells a file that ends in a hole, where seeking data fails with ENXIO, from what has no holes, such as
// some devices.
func nextWithoutData(f *os.File, off, end int64) (start, n int64, err error) {
	if _, err := f.Seek(off, seekHole); err == nil {
		return off, 0, nil
	}
	return off, max(end-off, 0), nil
}
