package layer

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Writer writes entries as a tar stream: ustar headers, with PAX records where
// these do not suffice. The same entries give the same bytes. An entry that
// was read from a tar stream and not changed is written as it was there.
// A Writer is for one goroutine.
type Writer struct {
	w      *bufio.Writer
	pad    int64 // padding that the last entry lacks
	err    error
	closed bool
	buf    []byte // for headers
	again  Reader // of headers that were read before

	whole [1]Extent

	owner     string // NT: whose streams come next
	ownerMode uint32
	head      header
	texts     map[string]string // of descriptors
}

// NewWriter returns a Writer to w. What is written may stay in a buffer until
// Close, which does not close w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, chunkSize)}
}

// anything lifts all limits, for what was judged before.
var anything = Limits{
	Bytes: -1, EntryBytes: -1, Entries: -1, HeaderBytes: -1,
	Depth: -1, NameBytes: -1, Xattrs: -1, XattrBytes: -1,
}.effective()

// Write writes an entry and, if it is a file, its content: e.Size bytes of
// content, which may be nil if there are none. Content of a sparse file is
// read with its holes, unless it is an [io.ReaderAt] (which is then read from
// offset 0) or the [Reader] that e comes from: then holes are not read. Bytes
// of content in what e.Data calls a hole are lost. An error is an
// [*EntryError]; if anything of the entry was written by then, it stays.
func (w *Writer) Write(e *Entry, content io.Reader) error {
	return w.entry(e, func(data []Extent) error { return w.content(e, data, content) })
}

// WriteHeader writes an entry, which is no alternate stream, without its
// content. The result is for [ReadOptions].Hollow, if all files are written so.
func (w *Writer) WriteHeader(e *Entry) error {
	if e.Kind == Stream {
		return &EntryError{"write", e.Name, invalid("alternate stream %q without content", e.Stream)}
	}
	return w.entry(e, func([]Extent) error { return nil })
}

// entry writes an entry, and has its content written.
func (w *Writer) entry(e *Entry, content func(data []Extent) error) error {
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return &EntryError{"write", e.Name, fmt.Errorf("layer is closed: %w", errdefs.ErrFailedPrecondition)}
	}
	same := e.unchanged()
	if same && e.Implied {
		return nil // its stream did not have it
	}
	if !same {
		if err := checkWritable(e); err != nil {
			return &EntryError{"write", e.Name, err}
		}
	}
	head, data, err := w.header(e)
	if err != nil {
		return &EntryError{"write", e.Name, err}
	}
	if err := w.write(e, head, data, content); err != nil {
		w.err = &EntryError{"write", e.Name, err}
	}
	return w.err
}

// write writes a checked entry.
func (w *Writer) write(e *Entry, head []byte, data []Extent, content func(data []Extent) error) error {
	var pad []byte
	if e.source != nil {
		pad = e.source.pad
	}
	if err := w.writePadding(pad); err != nil {
		return err
	}
	if _, err := w.w.Write(head); err != nil {
		return err
	}
	if e.NT != nil && e.Kind != Stream {
		w.owner, w.ownerMode = e.Name, w.ntMode(e)&^0o7777
	}
	if !e.hasContent() {
		w.pad = padding(int64(len(head))) // a header may come with content that nobody wants
		return nil
	}
	w.pad = padding(sum(data))
	return content(data)
}

// checkWritable finds what would make an entry break [Entry]'s invariant, and
// what a tar stream cannot tell of it.
func checkWritable(e *Entry) error {
	if err := check(e); err != nil || e.NT == nil {
		return err
	}
	return checkMeta(e)
}

// check finds what would make an entry break [Entry]'s invariant.
func check(e *Entry) error {
	name, err := anything.cleanName(e.Name)
	if err != nil {
		return err
	}
	what, _, err := judge(name)
	if err == nil && what != ordinary {
		err = invalid("name is a whiteout's")
	}
	switch {
	case err != nil:
		return err
	case name != e.Name:
		return invalid("name is not clean: it should be %q", name)
	case e.Kind > Stream || e.Kind == Stream && e.NT == nil:
		return invalid("unknown kind of entry")
	case e.Stream != "" && e.Kind != Stream:
		return invalid("%s with the name of a stream", e.Kind)
	case name == "." && e.Kind != Dir && e.Kind != Opaque:
		return invalid("the layer's root is a %s", e.Kind)
	case e.UID == ^uint32(0) || e.GID == ^uint32(0):
		return invalid("owner %d:%d is out of range", e.UID, e.GID)
	case e.Size < 0, e.Size != 0 && !e.hasContent():
		return invalid("%s with a size of %d", e.Kind, e.Size)
	case e.Data != nil && !e.hasContent():
		return invalid("%s with a sparse map", e.Kind)
	}
	if err := checkLink(e); err != nil {
		return err
	}
	if e.NT != nil {
		if err := checkNT(e); err != nil {
			return err
		}
	}
	if err := checkExtents(e); err != nil {
		return err
	}
	return checkRecords(e)
}

func checkLink(e *Entry) error {
	if e.Kind != Symlink && e.Kind != Hardlink || e.Kind == Symlink && e.NT != nil {
		return nil
	}
	judged := Entry{Name: e.Name, Kind: e.Kind}
	if err := anything.link(&judged, e.Link); err != nil {
		return err
	}
	if judged.Link != e.Link {
		return invalid("link target is not clean: it should be %q", judged.Link)
	}
	return nil
}

func checkExtents(e *Entry) error {
	var end int64
	for _, x := range e.Data {
		if x.Offset < end || x.Length <= 0 || x.Length > e.Size-x.Offset {
			return invalid("sparse map is out of order at offset %d", x.Offset)
		}
		end = x.Offset + x.Length
	}
	return nil
}

func checkRecords(e *Entry) error {
	for name := range e.Xattrs {
		if name == "" || strings.IndexByte(name, 0) >= 0 {
			return invalid("extended attribute has no proper name: %q", name)
		}
	}
	for key, v := range e.Records {
		switch {
		case key == "" || strings.ContainsAny(key, "=\x00"):
			return invalid("PAX record has no proper key: %q", key)
		case ownRecord(key), e.NT != nil && ownNTRecord(key):
			return invalid("PAX record %q stands for a field of the entry", key)
		case (key == "uname" || key == "gname") && strings.IndexByte(v, 0) >= 0:
			return invalid("PAX record %q contains a NUL byte", key)
		}
	}
	return nil
}

// header returns an entry's header, and the parts of its content to store.
func (w *Writer) header(e *Entry) (head []byte, data []Extent, err error) {
	data = e.Data
	if data == nil && e.Size > 0 {
		data = w.all(e)
	}
	if w.holds(e, sum(data)) {
		return e.source.raw, data, nil
	}
	if e.NT != nil {
		if e.Size > 0 {
			data = w.all(e) // the encoding has no holes
		}
		err = w.ntHeader(e)
		return w.buf, data, err
	}
	if e.Data != nil {
		data = blockExtents(e.Data, e.Size)
	}
	if w.buf, err = appendHeader(w.buf[:0], e, data); err != nil {
		return nil, nil, err
	}
	return w.buf, data, nil
}

// all returns the one extent of a file without holes, until the next call.
func (w *Writer) all(e *Entry) []Extent {
	w.whole[0] = Extent{0, e.Size}
	return w.whole[:]
}

// holds says whether an entry's source still says what the entry says. It is
// read again for that: nothing else sees a change deep in a map.
func (w *Writer) holds(e *Entry, stored int64) bool {
	s := e.source
	if s == nil || s.raw == nil || s.stored != stored {
		return false
	}
	if s.was != nil {
		return e.unchanged()
	}
	// What is read here is forgotten at once, so that one slab does for all.
	feed := sliceFeed(s.raw)
	w.again = Reader{limits: anything, tape: tape{feed: &feed, most: anything.HeaderBytes, slab: w.again.tape.slab[:0]}}
	w.again.tar = tar.NewReader(&w.again.tape)
	got, err := w.again.Next()
	return err == nil && len(got.source.raw) == len(s.raw) && got.equal(e)
}

// unchanged says whether an entry of the NT encoding is what it was when it
// was read.
func (e *Entry) unchanged() bool {
	s := e.source
	return s != nil && s.was != nil && e.equal(s.was)
}

// equal compares everything but the source.
func (e *Entry) equal(o *Entry) bool {
	return e.Name == o.Name && e.Kind == o.Kind && e.Size == o.Size && e.Mode == o.Mode &&
		e.UID == o.UID && e.GID == o.GID &&
		e.ModTime.Equal(o.ModTime) && e.AccessTime.Equal(o.AccessTime) && e.ChangeTime.Equal(o.ChangeTime) &&
		e.Link == o.Link && e.Stream == o.Stream && e.Implied == o.Implied && equalNT(e.NT, o.NT) && e.Major == o.Major && e.Minor == o.Minor &&
		maps.Equal(e.Xattrs, o.Xattrs) && maps.Equal(e.Records, o.Records) &&
		(e.Data == nil) == (o.Data == nil) && slices.Equal(e.Data, o.Data)
}

func sum(data []Extent) (n int64) {
	for _, x := range data {
		n += x.Length
	}
	return n
}

// writePadding pads the last entry, with pad if it fits.
func (w *Writer) writePadding(pad []byte) error {
	n := w.pad
	w.pad = 0
	if int64(len(pad)) != n {
		pad = zeros[:n]
	}
	_, err := w.w.Write(pad)
	return err
}

// content copies the parts of an entry's content that are stored.
func (w *Writer) content(e *Entry, data []Extent, content io.Reader) error {
	if len(data) == 0 {
		return nil
	}
	if content == nil {
		return invalid("file of %d bytes has no content", e.Size)
	}
	if at, ok := content.(io.ReaderAt); ok && e.Data != nil && sum(data) == e.Size {
		content = io.NewSectionReader(at, 0, e.Size)
	}
	if e.Data == nil || sum(data) == e.Size {
		return w.copy(content, e.Size)
	}
	if l, ok := content.(interface{ layerReader() *Reader }); ok {
		if r := l.layerReader(); r.sparse && r.pos == 0 && slices.Equal(r.data, data) {
			return w.stored(r)
		}
	}
	if at, ok := content.(io.ReaderAt); ok {
		for _, x := range data {
			if err := w.copy(io.NewSectionReader(at, x.Offset, x.Length), x.Length); err != nil {
				return err
			}
		}
		return nil
	}
	var pos int64
	for _, x := range data {
		if _, err := io.CopyN(io.Discard, content, x.Offset-pos); err != nil {
			return short(err)
		}
		if err := w.copy(content, x.Length); err != nil {
			return err
		}
		pos = x.Offset + x.Length
	}
	return nil
}

func (w *Writer) copy(content io.Reader, n int64) error {
	_, err := io.CopyN(w.w, content, n)
	return short(err)
}

// short says that content ended before its size.
func short(err error) error {
	if err == io.EOF {
		return fmt.Errorf("content is shorter than the entry's size: %w: %w", io.ErrUnexpectedEOF, errdefs.ErrDataLoss)
	}
	return err
}

func (r *Reader) layerReader() *Reader { return r }

// stored copies the data of r's current entry, which is sparse.
func (w *Writer) stored(r *Reader) error {
	_, err := r.copyRuns(
		func(b []byte, _ int64) (int, error) { return w.w.Write(b) },
		func(int64) error { return nil },
	)
	return err
}

// Close ends the stream with two blocks of zeros. It does nothing if the
// Writer is closed.
func (w *Writer) Close() error { return w.CloseWith(Trailer{}) }

// CloseWith is Close with another end, that of the stream which was read.
func (w *Writer) CloseWith(t Trailer) error {
	if w.closed || w.err != nil {
		return w.err
	}
	w.closed = true
	if t.Zeros == 0 && !t.bare {
		t.Zeros = 2 * blockSize
	}
	err := errors.Join(
		w.writePadding(t.head[:t.pad]),
		w.writeAll(t.head[t.pad:]),
		writeZeros(w.w, t.Zeros),
		w.writeAll(t.Rest),
		w.w.Flush(),
	)
	if err != nil {
		w.err = fmt.Errorf("write layer trailer: %w", err)
	}
	return w.err
}

func (w *Writer) writeAll(b []byte) error {
	_, err := w.w.Write(b)
	return err
}
