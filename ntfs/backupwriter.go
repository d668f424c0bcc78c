package ntfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// BackupWriter writes a Win32 backup stream in small pieces: give it a
// buffered writer. Close says whether the last stream is whole.
type BackupWriter struct {
	w      io.Writer
	header BackupHeader
	at     int64 // bytes written
	left   int64 // of the current stream's content
	err    error
	buf    []byte
}

// NewBackupWriter returns a writer of a backup stream to w.
func NewBackupWriter(w io.Writer) *BackupWriter { return &BackupWriter{w: w} }

// WriteHeader starts a stream, whose h.Size bytes of content Write takes. The
// stream before it must be whole.
func (w *BackupWriter) WriteHeader(h *BackupHeader) error {
	if err := w.Close(); err != nil {
		return err
	}
	w.header = *h
	name := AppendUTF16(nil, h.Name)
	switch {
	case h.Size < 0 || h.Size > math.MaxInt64-maxBackupName || h.Offset < 0 || h.Offset > math.MaxInt64-h.Size:
		return w.fail(fmt.Errorf("%w: size %d at offset %d", ErrRange, h.Size, h.Offset))
	case len(name) > maxBackupName:
		return w.fail(fmt.Errorf("%w: a name of %d bytes", ErrRange, len(name)))
	case h.ID != StreamSparseBlock && h.Offset != 0:
		return w.fail(fmt.Errorf("%w: only sparse blocks have an offset", ErrRange))
	}
	size := h.Size
	if h.ID == StreamSparseBlock {
		size += sparseOffset
	}
	b := binary.LittleEndian.AppendUint32(w.buf[:0], uint32(h.ID))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Attributes))
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	if h.ID == StreamSparseBlock {
		b = binary.LittleEndian.AppendUint64(b, uint64(h.Offset))
	}
	w.buf = b
	if err := w.write(b); err != nil {
		return err
	}
	w.left = h.Size
	return nil
}

// Write writes content of the current stream; more than its header says is an
// error.
func (w *BackupWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.left {
		return 0, w.fail(fmt.Errorf("%w: %d bytes where %d are left", ErrRange, len(p), w.left))
	}
	before := w.at
	err := w.write(p)
	w.left -= w.at - before
	return int(w.at - before), err
}

// Close says whether all content was written, and what the first error was.
// It neither closes nor flushes what is written to.
func (w *BackupWriter) Close() error {
	if w.err == nil && w.left > 0 {
		return w.fail(fmt.Errorf("%w: %d bytes were not written", io.ErrUnexpectedEOF, w.left))
	}
	return w.err
}

// WriteStream writes a stream of the content that is given.
func (w *BackupWriter) WriteStream(id StreamID, content []byte) error {
	if err := w.WriteHeader(&BackupHeader{ID: id, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// WriteSparse writes a stream of the given size as sparse blocks, the block
// that ends it included. The runs of data, ascending and apart, are read from
// content at their offsets. The header's ID (StreamData or StreamAlternate)
// and Name are used.
func (w *BackupWriter) WriteSparse(h *BackupHeader, size int64, data []Extent, content io.ReaderAt) error {
	if err := w.WriteHeader(&BackupHeader{ID: h.ID, Attributes: h.Attributes | StreamSparse, Name: h.Name}); err != nil {
		return err
	}
	at := int64(0)
	for _, x := range data {
		if x.Offset < at || x.Length <= 0 || x.Length > size-x.Offset {
			return w.fail(fmt.Errorf("%w: data of %d bytes at %d in a stream of %d", ErrRange, x.Length, x.Offset, size))
		}
		at = x.Offset + x.Length
		if err := w.WriteHeader(&BackupHeader{ID: StreamSparseBlock, Attributes: StreamSparse, Size: x.Length, Offset: x.Offset}); err != nil {
			return err
		}
		if n, err := io.Copy(w, io.NewSectionReader(content, x.Offset, x.Length)); err != nil {
			return w.fail(fmt.Errorf("copy content at %d: %w", x.Offset+n, err))
		}
	}
	return w.WriteHeader(&BackupHeader{ID: StreamSparseBlock, Attributes: StreamSparse, Offset: size})
}

func (w *BackupWriter) write(b []byte) error {
	n, err := w.w.Write(b)
	w.at += int64(n)
	if err != nil {
		return w.fail(err)
	}
	return nil
}

func (w *BackupWriter) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("write backup stream: %s at offset %d: %w", w.header.describe(), w.at, err)
	}
	return w.err
}
