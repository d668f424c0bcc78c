package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/containerd/errdefs"
)

const blockSize = 512

// padding returns how many bytes lie between n and the end of its block.
func padding(n int64) int64 { return -n & (blockSize - 1) }

// source is an entry's header as it was read.
type source struct {
	raw    []byte // everything since the entry before and its padding, or nil
	pad    []byte // the padding of the entry before, nil when it is zeros
	stored int64  // bytes of content that follow raw
	was    *Entry // NT: what was made of raw
}

// slot lets an entry and its source be one allocation.
type slot struct {
	e Entry
	s source
}

// Reader reads the entries of a layer from a tar stream. It reads ahead of
// what it returns. A Reader is for one goroutine.
//
// What programs read differently, it reads as archive/tar does, and so as
// Docker and containerd do: links, directories and devices have no content
// whatever their size says; a PAX header's size concerns the entry alone, not
// the GNU long name beside it; global PAX headers change nothing; two blocks
// of zeros end the layer. See [Reader.Trailer] for what follows them.
type Reader struct {
	limits  Limits
	tape    tape
	tar     *tar.Reader
	err     error // what Next returns from now on
	entries int64
	bytes   int64
	name    string // of the current entry, for errors

	ghost   int64 // stored bytes of the current entry, in archive/tar's view
	left    int64 // stored bytes not yet taken
	size    int64 // bytes that Read gives
	pos     int64 // bytes that Read gave
	data    []Extent
	sparse  bool
	trailer Trailer

	lent *source // of the last entry, which goes with the next header if headers are lent

	hollow bool // files have no content in the stream
	absent bool // which is so for the current entry

	nt        *ntReader // of the NT encoding
	undecided *ntReader // becomes nt if the first entry says so
	plain     tar.Header
	records   []record // NT: PAX records of the current header, in order
	stale     bool     // archive/tar's reader did not see the last header
	ahead     *Entry   // what Detect has read and Next returns
}

// NewReader returns a Reader of the uncompressed tar stream r.
func NewReader(r io.Reader, l Limits) *Reader {
	return newReader(&readerFeed{r: r}, l.effective())
}

func newReader(f feeder, l Limits) *Reader {
	r := &Reader{limits: l, tape: tape{feed: f, most: l.HeaderBytes}}
	r.tar = tar.NewReader(&r.tape)
	return r
}

// All yields the entries that are left, and the error that ends them early.
func (r *Reader) All() iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		for {
			e, err := r.Next()
			if err == io.EOF || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Next returns the next entry, which is the caller's, after skipping what is
// left of the current one's content. At the end of the layer it returns
// io.EOF. An error is an [*EntryError]; it stays.
func (r *Reader) Next() (*Entry, error) {
	if e := r.ahead; e != nil {
		r.ahead = nil
		return e, nil
	}
	if r.err != nil {
		return nil, r.err
	}
	e, err := r.next()
	switch {
	case err == nil:
		return e, nil
	case err == io.EOF:
		r.err = io.EOF
	default:
		r.err = &EntryError{Op: "read", Name: r.name, Err: r.located(classify(err))}
	}
	r.size, r.pos, r.left = 0, 0, 0
	return nil, r.err
}

func (r *Reader) next() (*Entry, error) {
	if r.nt != nil {
		if e, err := r.nextInLine(); e != nil || err != nil {
			return e, err
		}
	}
	if err := r.skipContent(); err != nil {
		return nil, err
	}
	r.takeBack()
	r.tape.startRecording()
	firstPad := int(padding(r.tape.pos))
	for {
		begin := int64(len(r.tape.slab) - r.tape.start)
		pad := padding(r.tape.pos)
		hdr, err := r.header(int(pad))
		if err == io.EOF {
			return r.last(int(begin), int(pad), firstPad)
		}
		if err != nil {
			return nil, r.headerError(err)
		}
		r.name = hdr.Name
		if r.tape.ghost != 0 {
			return nil, errLostTrack
		}
		if r.entries++; r.entries > r.limits.Entries {
			return nil, exceeded("Entries", r.limits.Entries)
		}
		raw := r.tape.recorded()
		at, err := headerOffset(raw, int(begin+pad))
		if err != nil {
			return nil, err
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		r.decide(hdr, raw[int(begin+pad):at])
		s, err := r.entry(hdr, raw[at:at+blockSize], raw[at+blockSize:])
		if err != nil {
			return nil, err
		}
		if s != nil {
			return r.emit(s, firstPad)
		}
		// The entry is skipped, but written again before the next one.
		kept, err := r.keepContent()
		if err != nil {
			return nil, err
		}
		if !kept {
			if err := r.skipContent(); err != nil {
				return nil, err
			}
			r.tape.startRecording()
			firstPad = int(padding(r.tape.pos))
		}
	}
}

// headerError says where a header is that cannot be read.
func (r *Reader) headerError(err error) error {
	after := r.name
	r.name = ""
	if after == "" {
		return err
	}
	return fmt.Errorf("header after %q: %w", after, err)
}

// keepSource keeps an entry's header and, of an entry that should have no
// content, the content.
func (r *Reader) keepSource(s *slot, pad int) error {
	if !s.e.hasContent() && s.s.stored > 0 {
		kept, err := r.keepContent()
		if err != nil || !kept {
			return err
		}
		s.s.stored = 0
	}
	s.s.take(r.tape.recorded(), pad)
	r.lent = &s.s
	return nil
}

// Lend is for who writes entries at once or not at all. What was read of an
// entry's header, for writing the same bytes again, is gone with the next call
// of Next, and takes no memory of its own: a Writer that gets the entry later
// encodes it anew. The entry itself is the caller's as ever.
func (r *Reader) Lend() { r.tape.lent = true }

// takeBack takes what was lent with the last entry.
func (r *Reader) takeBack() {
	if r.tape.lent && r.lent != nil {
		r.lent.raw, r.lent.pad = nil, nil
	}
	r.lent = nil
}

// keepContent records the current entry's content with its header, unless it
// is too long for that.
func (r *Reader) keepContent() (bool, error) {
	kept, err := r.tape.keep(r.left)
	if kept && err == nil {
		r.left = 0
		err = r.skipContent()
	}
	return kept, err
}

// take keeps what was read of the entry's header, of which the first pad bytes
// are the padding of the entry before.
func (s *source) take(raw []byte, pad int) {
	s.raw = raw[pad:]
	if p := raw[:pad]; !allZero(p) {
		s.pad = p
	}
}

// skipContent takes what is left of the current entry's content.
func (r *Reader) skipContent() error {
	if r.absent {
		r.tape.pos += r.left // padding counts as if it were there
	} else if err := r.tape.skip(r.left); err != nil {
		return err
	}
	if !r.stale {
		r.tape.ghost += r.ghost
	}
	r.ghost, r.left = 0, 0
	r.size, r.pos, r.data, r.sparse, r.absent = 0, 0, nil, false, false
	return nil
}

// headerOffset returns where in raw the header block lies that archive/tar
// ended with, after PAX headers and GNU long names from offset at on. A global
// header cannot stand between those and their entry, because readers differ on
// what it does to them.
func headerOffset(raw []byte, at int) (int, error) {
	for meta := false; at+blockSize <= len(raw); meta = true {
		block := raw[at : at+blockSize]
		switch block[156] {
		case tar.TypeXGlobalHeader:
			if meta {
				return 0, invalid("global PAX header between an entry and its extended header")
			}
			return at, nil
		case tar.TypeXHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			n, ok := parseNumber(block[124:136])
			if !ok || n > int64(len(raw)) {
				return 0, errLostTrack
			}
			at += blockSize + int(n+padding(n))
		default:
			return at, nil
		}
	}
	return 0, errLostTrack
}

// entry makes an entry of a header and sets the reader to its content. It
// returns nil for an entry that is to be skipped.
func (r *Reader) entry(hdr *tar.Header, block, after []byte) (*slot, error) {
	if r.nt != nil {
		return r.entryNT(hdr, block, after)
	}
	lay, err := layoutOf(hdr, block, after)
	if err != nil {
		return nil, err
	}
	r.ghost, r.left = lay.stored, lay.stored
	s := new(slot)
	s.s.stored = lay.stored
	s.e.source = &s.s
	e := &s.e
	what, err := r.limits.identify(e, hdr)
	if err != nil {
		return nil, err
	}
	if what == forgotten {
		return nil, r.count(lay.stored)
	}
	if e.Kind == File {
		e.Size = hdr.Size
		if lay.sparse {
			e.Data = lay.data
		}
	}
	if err := r.limits.describe(e, hdr, block); err != nil {
		return nil, err
	}
	if err := r.count(max(e.Size, lay.stored)); err != nil {
		return nil, err
	}
	r.size, r.data, r.sparse = e.Size, lay.data, lay.sparse
	r.leaveOut(e)
	return s, nil
}

// leaveOut makes an entry one without content, if the stream has none of it.
func (r *Reader) leaveOut(e *Entry) {
	if r.hollow && e.Kind == File {
		r.size, r.data, r.sparse, r.absent = 0, nil, false, true
	}
}

// count adds an entry's content to what the layer holds.
func (r *Reader) count(n int64) error {
	if n > r.limits.EntryBytes {
		return exceeded("EntryBytes", r.limits.EntryBytes)
	}
	if n > r.limits.Bytes-r.bytes {
		return exceeded("Bytes", r.limits.Bytes)
	}
	r.bytes += n
	return nil
}

// Read reads the current entry's content, holes as zeros. It returns io.EOF at
// its end, and at once for everything but files.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.readable(); err != nil {
		return 0, err
	}
	if r.pos >= r.size {
		return 0, io.EOF
	}
	n := int64(len(p))
	hole := r.run(&n)
	p = p[:n]
	if hole {
		clear(p)
		r.pos += n
		return len(p), nil
	}
	got, err := r.tape.take(p)
	r.took(got)
	return got, r.fail(err)
}

// run cuts n to what is left of the hole or the data at the current position,
// and says which it is.
func (r *Reader) run(n *int64) (hole bool) {
	end := r.size
	if r.sparse {
		for len(r.data) > 0 && r.data[0].Offset+r.data[0].Length <= r.pos {
			r.data = r.data[1:]
		}
		switch {
		case len(r.data) == 0:
			hole = true
		case r.pos < r.data[0].Offset:
			hole, end = true, r.data[0].Offset
		default:
			end = r.data[0].Offset + r.data[0].Length
		}
	}
	*n = min(*n, end-r.pos)
	return hole
}

func (r *Reader) took(n int) {
	r.pos += int64(n)
	r.left -= int64(n)
}

// WriteTo writes the rest of the current entry's content to w, holes as zeros.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	return r.copyRuns(
		func(b []byte, _ int64) (int, error) { return w.Write(b) },
		func(n int64) error { return writeZeros(w, n) },
	)
}

// WriteDataAt writes what is left of the current entry's data to w, each piece
// at its offset in the file, and leaves the holes out. It returns the number
// of bytes written. The file's size, if it ends in a hole, is the caller's
// affair.
func (r *Reader) WriteDataAt(w io.WriterAt) (int64, error) {
	return r.copyRuns(w.WriteAt, func(int64) error { return nil })
}

// copyRuns hands the rest of the content to data, with its offset, and to hole.
func (r *Reader) copyRuns(data func([]byte, int64) (int, error), hole func(int64) error) (int64, error) {
	var total int64
	if err := r.readable(); err != nil {
		return 0, err
	}
	for r.pos < r.size {
		n := r.size
		if r.run(&n) {
			if err := hole(n); err != nil {
				return total, err
			}
			r.pos += n
			continue
		}
		b, err := r.tape.peek(n)
		if err != nil {
			return total, r.fail(err)
		}
		got, err := data(b, r.pos)
		r.tape.advance(got)
		r.took(got)
		total += int64(got)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// readable returns the error that an earlier Next or Read met.
func (r *Reader) readable() error {
	if r.err == io.EOF {
		return nil // there is no content, either
	}
	return r.err
}

// fail keeps a stream's error for all calls to come.
func (r *Reader) fail(err error) error {
	if err != nil {
		err = &EntryError{Op: "read", Name: r.name, Err: classify(cutOff(err))}
		r.err = err
	}
	return err
}

// classify gives an error from below its class.
func classify(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("layer is cut off: %w: %w", err, errdefs.ErrDataLoss)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, tar.ErrFieldTooLong):
		return exceeded("HeaderBytes", int64(maxHeaderBytes))
	}
	return err
}

// Trailer is what follows the last entry of a tar stream: two blocks of zeros
// and more of them up to the record size of the program that wrote it, and
// rarely anything else. Its zero value ends a stream with two blocks.
type Trailer struct {
	Zeros int64  // how many zeros follow the last entry; 0 means 1024
	Rest  []byte // what follows these, which no reader of tar files looks at

	head []byte // padding of the last entry, and headers without an entry
	pad  int    // bytes of head that are padding
	bare bool   // Zeros is truly 0
}

// end takes note of what archive/tar read up to the end of the layer: padding,
// and up to two blocks of zeros, all from offset begin of the recording.
func (r *Reader) end(begin, pad, firstPad int) error {
	raw := r.tape.recorded()
	if len(raw) < begin+pad || !allZero(raw[begin+pad:]) {
		return io.ErrUnexpectedEOF
	}
	r.trailer = Trailer{
		Zeros: int64(len(raw) - begin - pad),
		head:  raw[:begin+pad],
		pad:   firstPad,
	}
	return io.EOF
}

// Trailer reads the rest of the stream after Next returned io.EOF, for
// [Writer.CloseWith]. It fails where more than a MiB that is not zero follows,
// and the stream can then not be written again as it was.
func (r *Reader) Trailer() (Trailer, error) {
	if r.err != io.EOF {
		return Trailer{}, fmt.Errorf("read layer trailer: the last entry is not read yet: %w", errdefs.ErrFailedPrecondition)
	}
	t := &r.trailer
	for {
		b, err := r.tape.peek(chunkSize)
		if err == io.EOF {
			t.bare = t.Zeros == 0
			return *t, nil
		}
		if err != nil {
			return Trailer{}, fmt.Errorf("read layer trailer: %w", err)
		}
		if len(t.Rest) == 0 {
			z := leadingZeros(b)
			t.Zeros += int64(z)
			r.tape.advance(z)
			b = b[z:]
		}
		if len(t.Rest)+len(b) > maxHeaderBytes {
			return Trailer{}, fmt.Errorf("read layer trailer: %w", exceeded("HeaderBytes", int64(maxHeaderBytes)))
		}
		t.Rest = append(t.Rest, b...)
		r.tape.advance(len(b))
	}
}

// drain takes the rest of the stream, whatever it is.
func (r *Reader) drain() error {
	for {
		b, err := r.tape.peek(1 << 62)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		r.tape.advance(len(b))
	}
}

func allZero(b []byte) bool { return leadingZeros(b) == len(b) }

func leadingZeros(b []byte) int {
	if i := slices.IndexFunc(b, func(c byte) bool { return c != 0 }); i >= 0 {
		return i
	}
	return len(b)
}

var zeros [32 << 10]byte

// writeZeros writes n zeros.
func writeZeros(w io.Writer, n int64) error {
	for n > 0 {
		m, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}
