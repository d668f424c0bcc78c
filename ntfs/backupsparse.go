package ntfs

import (
	"fmt"
	"io"
)

// Extent is a run of bytes of a sparse stream that holds data.
type Extent struct {
	Offset, Length int64
}

// Sparse reports whether sparse blocks follow the header's own content.
func (h *BackupHeader) Sparse() bool { return h.Attributes&StreamSparse != 0 }

// Expand returns the whole content of the current stream. If it is sparse,
// the content goes on in the blocks that follow, and holes read as zeros; at
// its end the next call of Next returns the stream after it.
func (r *BackupReader) Expand() io.Reader {
	return &expander{r: r, sparse: r.header.Sparse()}
}

// An expander reads a stream and its sparse blocks as one.
type expander struct {
	r      *BackupReader
	sparse bool  // further blocks may follow
	at     int64 // offset in the expanded stream
	hole   int64 // zeros before the current block
}

func (e *expander) Read(p []byte) (int, error) {
	for {
		if len(p) == 0 {
			return 0, nil
		}
		if e.hole > 0 {
			n := int(min(e.hole, int64(len(p))))
			clear(p[:n])
			e.hole -= int64(n)
			e.at += int64(n)
			return n, nil
		}
		n, err := e.r.Read(p)
		e.at += int64(n)
		if n > 0 || err != io.EOF {
			return n, err
		}
		if !e.sparse {
			return 0, io.EOF
		}
		hole, more, err := e.r.nextBlock(e.at)
		if err != nil {
			return 0, err
		}
		e.hole, e.sparse = hole, more
	}
}

// nextBlock moves on to the next block of a sparse stream that has been read
// up to offset at, and returns the length of the hole before it and whether
// further blocks may follow it.
func (r *BackupReader) nextBlock(at int64) (hole int64, more bool, err error) {
	h, err := r.peek()
	if err == io.EOF || err == nil && h.ID != StreamSparseBlock {
		return 0, false, nil // some writers leave the last block out where a stream ends with data
	}
	if err != nil {
		return 0, false, err
	}
	r.peeked = false
	if h.Offset < at {
		r.err = r.fail(fmt.Errorf("%w: a block for offset %d follows data up to %d", ErrFormat, h.Offset, at))
		return 0, false, r.err
	}
	return h.Offset - at, h.Size > 0, nil
}

// Map skips the current stream, its sparse blocks included, and returns its
// size and the runs that hold data, ascending and apart. Reading the content
// takes another pass.
func (r *BackupReader) Map() (size int64, data []Extent, err error) {
	more := r.header.Sparse()
	for {
		if r.left > 0 && !r.peeked { // else it is the next stream's
			data = appendExtent(data, Extent{size, r.left})
			size += r.left
			if err := r.skip(); err != nil {
				r.err = r.fail(err)
				return 0, nil, r.err
			}
		}
		if !more {
			return size, data, nil
		}
		hole, further, err := r.nextBlock(size)
		if err != nil {
			return 0, nil, err
		}
		size += hole
		more = further
	}
}

func appendExtent(data []Extent, x Extent) []Extent {
	if n := len(data); n > 0 && data[n-1].Offset+data[n-1].Length == x.Offset {
		data[n-1].Length += x.Length
		return data
	}
	return append(data, x)
}
