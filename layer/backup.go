package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hostcompute/hcs/ntfs"
)

// What one backup stream may have beside content. NTFS has no file with as
// many streams, and none with as much metadata.
const (
	maxBackupMeta    = 16 << 20
	maxBackupStreams = 1 << 14
)

// BackupStream returns a Windows layer's entry and its content as a Win32
// backup stream: the metadata and the data of a file, directory or link; of an
// entry of kind Stream that one alternate stream, which belongs behind its
// owner's. An empty file has no data stream, as on Windows. Of a sparse file
// the holes are left out; they are not read if content is an [io.ReaderAt]
// (which is then read from offset 0). Content that is shorter than e.Size is
// an error of class [errdefs.ErrDataLoss].
//
// docs/formats/backup-stream.md has the layout. Times and attributes are no
// part of it.
func BackupStream(e *Entry, content io.Reader) (io.Reader, error) {
	var head bytes.Buffer
	h := &ntfs.BackupHeader{ID: ntfs.StreamData, Size: e.Size}
	if e.Kind == Stream {
		h = ntfs.AlternateHeader(e.Stream, e.Size)
	} else if err := ntfs.NewBackupWriter(&head).WriteMeta(e.NT); err != nil {
		return nil, &EntryError{"write", e.Name, err}
	}
	switch {
	case e.Kind != Stream && (e.Kind != File || e.Size == 0):
		return &head, nil
	case content == nil && e.Size > 0:
		return nil, &EntryError{"write", e.Name, invalid("file of %d bytes has no content", e.Size)}
	}
	b := backupBuilder{pieces: []io.Reader{&head}, from: &forward{r: content}}
	if at, ok := content.(io.ReaderAt); ok && e.Data != nil {
		b.from = at
	}
	if err := b.stream(h, e); err != nil {
		return nil, &EntryError{"write", e.Name, err}
	}
	return io.MultiReader(b.pieces...), nil
}

// backupBuilder puts a backup stream together of headers and content.
type backupBuilder struct {
	pieces []io.Reader
	from   io.ReaderAt
}

func (b *backupBuilder) stream(h *ntfs.BackupHeader, e *Entry) error {
	if e.Data == nil {
		return b.add(h, e, Extent{0, e.Size})
	}
	if err := checkExtents(e); err != nil {
		return err
	}
	h.Size, h.Attributes = 0, ntfs.StreamSparse
	if err := b.add(h, e, Extent{}); err != nil {
		return err
	}
	for _, x := range e.Data {
		if err := b.add(sparseBlock(x), e, x); err != nil {
			return err
		}
	}
	return b.add(sparseBlock(Extent{Offset: e.Size}), e, Extent{})
}

func sparseBlock(x Extent) *ntfs.BackupHeader {
	return &ntfs.BackupHeader{ID: ntfs.StreamSparseBlock, Attributes: ntfs.StreamSparse, Size: x.Length, Offset: x.Offset}
}

// add adds a header and the content that it announces.
func (b *backupBuilder) add(h *ntfs.BackupHeader, e *Entry, x Extent) error {
	var head bytes.Buffer
	if err := ntfs.NewBackupWriter(&head).WriteHeader(h); err != nil {
		return err
	}
	b.pieces = append(b.pieces, &head)
	if x.Length > 0 {
		b.pieces = append(b.pieces, &whole{r: io.NewSectionReader(b.from, x.Offset, x.Length), left: x.Length, name: e.Name})
	}
	return nil
}

// forward lets a reader be read at growing offsets.
type forward struct {
	r  io.Reader
	at int64
}

// ReadAt is only for offsets at or after the end of what was read before.
func (f *forward) ReadAt(p []byte, offset int64) (int, error) {
	skipped, err := io.CopyN(io.Discard, f.r, offset-f.at)
	f.at += skipped
	if err != nil {
		return 0, err
	}
	n, err := f.r.Read(p)
	f.at += int64(n)
	return n, err
}

// whole reads content, of which a header has told the size before.
type whole struct {
	r    io.Reader
	left int64
	name string
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if errors.Is(err, io.EOF) && w.left > 0 {
		return n, &EntryError{"read", w.name, short(io.EOF)}
	}
	return n, err
}

// ReadBackup completes an entry of which all is known but what a Win32 backup
// stream holds, and gives it to emit with its content, and then an entry for
// each alternate stream. Kind is File or Dir; a link's reparse point makes it
// a Symlink. Content is valid during the call. A backup stream that is cut
// off, or has two of what a file has once, is an error of class
// [errdefs.ErrInvalidArgument].
func ReadBackup(e *Entry, stream *io.SectionReader, emit func(*Entry, io.Reader) error) error {
	s := backupScan{r: ntfs.NewBackupReader(stream), e: e, seen: make(map[string]bool)}
	if err := s.all(); err != nil {
		return &EntryError{"read", e.Name, invalid("%w", err)}
	}
	for _, found := range s.found {
		if err := found.emit(stream, emit); err != nil {
			return err
		}
	}
	return nil
}

// backupScan finds out what a backup stream holds, without reading content.
type backupScan struct {
	r     *ntfs.BackupReader
	e     *Entry
	meta  int64 // bytes of metadata
	seen  map[string]bool
	found []foundStream
}

// foundStream is an entry and where its content starts in the backup stream.
type foundStream struct {
	e  *Entry
	at int64 // of the header
}

func (s *backupScan) all() error {
	s.found = []foundStream{{e: s.e}}
	for h, err := range s.r.Streams() {
		if err == nil {
			err = s.header(h)
		}
		if err != nil {
			return err
		}
	}
	return s.e.settle()
}

func (s *backupScan) header(h *ntfs.BackupHeader) error {
	if err := s.once(h); err != nil {
		return err
	}
	start := s.r.Offset() - int64(len(ntfs.AppendUTF16(nil, h.Name))) - backupHeaderBytes
	switch h.ID {
	case ntfs.StreamData:
		s.found[0].at = start
		return s.measure(h, s.e)
	case ntfs.StreamAlternate:
		if len(s.found) > maxBackupStreams {
			return fmt.Errorf("more than %d alternate streams", maxBackupStreams)
		}
		e := &Entry{
			Kind: Stream, Name: s.e.Name, Stream: h.StreamName(), NT: new(ntfs.Meta),
			ModTime: s.e.ModTime, AccessTime: s.e.AccessTime, ChangeTime: s.e.ChangeTime,
		}
		s.found = append(s.found, foundStream{e, start})
		return s.measure(h, e)
	case ntfs.StreamSparseBlock:
		return errors.New("a sparse block belongs to no stream")
	}
	if s.meta += h.Size; s.meta > maxBackupMeta {
		return fmt.Errorf("more than %d bytes of metadata", maxBackupMeta)
	}
	_, err := s.e.NT.Take(s.r)
	return err
}

// backupHeaderBytes is the length of a stream's header without its name.
const backupHeaderBytes = 20

// once refuses a second stream of what a file has once.
func (s *backupScan) once(h *ntfs.BackupHeader) error {
	var key string
	switch h.ID {
	case ntfs.StreamAlternate:
		key = ntfs.Upcase(h.StreamName())
	case ntfs.StreamData, ntfs.StreamEA, ntfs.StreamSecurity, ntfs.StreamObjectID, ntfs.StreamReparse:
		key = fmt.Sprint(":", h.ID) // no alternate stream is called so
	default:
		return nil
	}
	if s.seen[key] {
		return fmt.Errorf("a second stream of %s at offset %d", strings.TrimSpace(h.ID.String()+" "+h.StreamName()), s.r.Offset())
	}
	s.seen[key] = true
	return nil
}

// measure finds out the size of the current stream and, if it is sparse, where
// it holds data.
func (s *backupScan) measure(h *ntfs.BackupHeader, e *Entry) error {
	sparse := h.Sparse()
	size, data, err := s.r.Map()
	e.Size = size
	if !sparse || err != nil {
		return err
	}
	e.Data = make([]Extent, 0, len(data))
	for _, x := range data {
		e.Data = append(e.Data, Extent(x))
	}
	return nil
}

// settle makes the kind fit the reparse point.
func (e *Entry) settle() error {
	if e.NT.Reparse != nil {
		link, err := ntfs.ParseLink(e.NT.Reparse)
		switch {
		case err == nil:
			e.Kind, e.Link = Symlink, link.Target()
		case !errors.Is(err, ntfs.ErrUnsupported):
			return err
		}
	}
	if e.Kind != File && e.Size > 0 {
		return fmt.Errorf("a directory or a link has %d bytes of content", e.Size)
	}
	if e.Kind != File {
		e.Data = nil
	}
	return nil
}

// emit gives an entry with its content, which is read from the header on.
func (f foundStream) emit(stream *io.SectionReader, emit func(*Entry, io.Reader) error) error {
	if f.e.Size == 0 {
		return emit(f.e, nil)
	}
	r := ntfs.NewBackupReader(io.NewSectionReader(stream, f.at, stream.Size()-f.at))
	if _, err := r.Next(); err != nil {
		return &EntryError{"read", f.e.Name, err}
	}
	return emit(f.e, r.Expand())
}
