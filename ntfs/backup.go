package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
)

// StreamID says what a stream of a backup stream holds (WIN32_STREAM_ID's
// dwStreamId).
type StreamID uint32

// The streams that BackupRead and BackupWrite know.
const (
	StreamData        StreamID = 1  // the file's content
	StreamEA          StreamID = 2  // extended attributes: ParseEA
	StreamSecurity    StreamID = 3  // a self-relative security descriptor
	StreamAlternate   StreamID = 4  // an alternate data stream's content; the header has its name
	StreamLink        StreamID = 5  // a hard link
	StreamProperty    StreamID = 6  // property data
	StreamObjectID    StreamID = 7  // 64 bytes: object, birth volume, birth object and domain ID
	StreamReparse     StreamID = 8  // a reparse buffer
	StreamSparseBlock StreamID = 9  // a run of the sparse stream before it
	StreamTransaction StreamID = 10 // transactional NTFS data
)

var streamNames = [...]string{
	"", "data", "extended attributes", "security", "alternate data", "link", "property data", "object ID", "reparse data",
	"sparse block", "transaction data",
}

// String returns what the stream holds.
func (id StreamID) String() string {
	if id > 0 && int(id) < len(streamNames) {
		return streamNames[id]
	}
	return fmt.Sprintf("stream %d", uint32(id))
}

// StreamAttributes are a stream's dwStreamAttributes.
type StreamAttributes uint32

// The attributes of streams.
const (
	StreamModifiedWhenRead   StreamAttributes = 1
	StreamContainsSecurity   StreamAttributes = 2
	StreamContainsProperties StreamAttributes = 4
	StreamSparse             StreamAttributes = 8 // StreamSparseBlock streams follow
)

// BackupHeader starts a stream of a backup stream.
type BackupHeader struct {
	ID         StreamID
	Attributes StreamAttributes

	// Size is the length of the content that follows, without the 8 bytes
	// of a sparse block's offset.
	Size int64

	// Name is the stream's name as it was found; StreamName takes it apart.
	Name string

	// Offset is where a sparse block's content lies in its stream. A block
	// without content ends the stream: Offset is the stream's size.
	Offset int64
}

const (
	backupHeaderSize = 20
	maxBackupName    = 0xFFFE // bytes; Windows' own paths are no longer
	sparseOffset     = 8
)

// BackupReader reads a Win32 backup stream: a row of streams, each a header
// and content. It reads no further than asked, so other data may follow the
// content that is read last, and in small pieces: give it a buffered reader.
type BackupReader struct {
	r      io.Reader
	seeker io.Seeker // nil if r cannot skip
	header BackupHeader
	at     int64 // offset of the next byte of r
	left   int64 // of the current stream's content
	peeked bool  // header is read, but Next has not returned it yet
	err    error
	buf    [backupHeaderSize]byte
}

// NewBackupReader returns a reader of the backup stream that r holds from
// here to its end. If r is an io.Seeker that can seek, content that is not
// read is skipped by seeking.
func NewBackupReader(r io.Reader) *BackupReader {
	b := &BackupReader{r: r}
	if s, ok := r.(io.Seeker); ok {
		if _, err := s.Seek(0, io.SeekCurrent); err == nil {
			b.seeker = s
		}
	}
	return b
}

// Next skips what is left of the current stream and returns the header of the
// next, which is valid until the call after it; io.EOF after the last. Errors
// name the stream and the offset, and stay.
func (r *BackupReader) Next() (*BackupHeader, error) {
	if r.err == nil && !r.peeked {
		r.err = r.advance()
	}
	r.peeked = false
	if r.err != nil {
		return nil, r.err
	}
	return &r.header, nil
}

// Streams returns all headers that are left, as Next does.
func (r *BackupReader) Streams() iter.Seq2[*BackupHeader, error] {
	return func(yield func(*BackupHeader, error) bool) {
		for {
			h, err := r.Next()
			if err == io.EOF || !yield(h, err) || err != nil {
				return
			}
		}
	}
}

// Read reads the current stream's content; io.EOF at its end.
func (r *BackupReader) Read(p []byte) (int, error) {
	if r.err != nil && r.err != io.EOF {
		return 0, r.err
	}
	if r.left == 0 || r.peeked {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.at += int64(n)
	r.left -= int64(n)
	if err == io.EOF && r.left == 0 {
		err = nil
	}
	if err != nil {
		r.err = r.fail(err)
		return n, r.err
	}
	return n, nil
}

// Offset returns how many bytes of the backup stream were used up.
func (r *BackupReader) Offset() int64 { return r.at }

func (r *BackupReader) fail(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w with %d bytes left of it", ErrFormat, io.ErrUnexpectedEOF, r.left)
	}
	return fmt.Errorf("read backup stream: %s at offset %d: %w", r.header.describe(), r.at, err)
}

func (h *BackupHeader) describe() string {
	if h.Name == "" {
		return h.ID.String()
	}
	return fmt.Sprintf("%s %q", h.ID, h.Name)
}

// advance skips to the next header and reads it.
func (r *BackupReader) advance() error {
	if err := r.skip(); err != nil {
		return r.fail(err)
	}
	last := r.header
	n, err := io.ReadFull(r.r, r.buf[:])
	start := r.at
	r.at += int64(n)
	if err == io.EOF {
		return io.EOF
	}
	if err == nil {
		err = r.parse()
	}
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w in a header", ErrFormat, io.ErrUnexpectedEOF)
	}
	if err != nil && last.ID != 0 {
		return fmt.Errorf("read backup stream: header at offset %d, after %s: %w", start, last.describe(), err)
	}
	if err != nil {
		return fmt.Errorf("read backup stream: header at offset %d: %w", start, err)
	}
	return nil
}

func (r *BackupReader) skip() error {
	if r.left > 1 && r.seeker != nil {
		// The last byte is read, because seeking past the end is no error.
		if _, err := r.seeker.Seek(r.left-1, io.SeekCurrent); err != nil {
			return err
		}
		r.at += r.left - 1
		r.left = 1
	}
	n, err := io.CopyN(io.Discard, r.r, r.left)
	r.at += n
	r.left -= n
	return err
}

// parse makes a header of buf, and reads its name and offset.
func (r *BackupReader) parse() error {
	b := r.buf[:]
	h := BackupHeader{
		ID:         StreamID(binary.LittleEndian.Uint32(b)),
		Attributes: StreamAttributes(binary.LittleEndian.Uint32(b[4:])),
	}
	size, nameSize := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])
	switch {
	case size > math.MaxInt64-maxBackupName:
		return fmt.Errorf("%w: a size of %d bytes", ErrFormat, size)
	case nameSize > maxBackupName || nameSize%2 != 0:
		return fmt.Errorf("%w: a name of %d bytes", ErrFormat, nameSize)
	}
	h.Size = int64(size)
	if nameSize > 0 {
		name := make([]byte, nameSize)
		n, err := io.ReadFull(r.r, name)
		r.at += int64(n)
		if err != nil {
			return err
		}
		h.Name = DecodeUTF16(name)
	}
	if h.ID == StreamSparseBlock {
		if err := r.parseOffset(&h); err != nil {
			return err
		}
	}
	r.header, r.left = h, h.Size
	return nil
}

func (r *BackupReader) parseOffset(h *BackupHeader) error {
	if h.Size < sparseOffset {
		return fmt.Errorf("%w: a sparse block of %d bytes has no offset", ErrFormat, h.Size)
	}
	n, err := io.ReadFull(r.r, r.buf[:sparseOffset])
	r.at += int64(n)
	if err != nil {
		return err
	}
	offset := binary.LittleEndian.Uint64(r.buf[:])
	h.Size -= sparseOffset
	if offset > uint64(math.MaxInt64-h.Size) {
		return fmt.Errorf("%w: a sparse block at %d", ErrFormat, offset)
	}
	h.Offset = int64(offset)
	return nil
}

// peek reads the header that the next call of Next returns.
func (r *BackupReader) peek() (*BackupHeader, error) {
	h, err := r.Next()
	r.peeked = err == nil
	return h, err
}
