package disk

import (
	"cmp"
	"io"
	"slices"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// The log (2.3): a ring of entries, each of which says what some pages of the file are to be. Changes to tables go there
// first, so that an interrupted one is finished or has never begun.

const (
	logHead       = 64 // bytes of an entry's header
	logDescriptor = 32

	// Of a page in a data sector the log has the middle; the descriptor has the first 8 and the last 4 bytes (2.3.1.3).
	pageLeading  = 8
	pageTrailing = 4

	// maxLog and maxChanges bound what a log can cost to be read; Windows makes logs of 1 MiB, which have half as many.
	maxLog     = 16 * mib
	maxChanges = 1 << 16
)

// change is a run of the file's bytes that a log entry sets. Without data they become zero.
type change struct {
	off, n int64
	data   []byte
}

func (c change) end() int64 { return c.off + c.n }

// logEntry is one entry of the log.
type logEntry struct {
	sequence uint64
	length   int64 // all of it, in the log
	tail     int64
	flushed  int64 // the file must have this size at least for the entry to make sense
	last     int64 // and gets this one
	changes  []change
}

// encodeLogEntry makes an entry that sets whole pages, with itself as the tail: what came before it is in place.
func encodeLogEntry(id guid.GUID, sequence uint64, at, fileSize int64, changed []change) []byte {
	descriptors := roundUp(logHead+int64(len(changed))*logDescriptor, vhdxPage)
	b := make([]byte, descriptors+int64(len(changed))*vhdxPage)
	copy(b, "loge")
	le.PutUint32(b[8:], uint32(len(b)))
	le.PutUint32(b[12:], uint32(at))
	le.PutUint64(b[16:], sequence)
	le.PutUint32(b[24:], uint32(len(changed)))
	putGUID(b[32:], id)
	le.PutUint64(b[48:], uint64(fileSize))
	le.PutUint64(b[56:], uint64(fileSize))
	for i, c := range changed {
		d := b[logHead+i*logDescriptor:]
		copy(d, "desc")
		copy(d[4:8], c.data[vhdxPage-pageTrailing:])
		copy(d[8:16], c.data[:pageLeading])
		le.PutUint64(d[16:], uint64(c.off))
		le.PutUint64(d[24:], sequence)
		s := b[descriptors+int64(i)*vhdxPage:]
		copy(s, "data")
		le.PutUint32(s[4:], uint32(sequence>>32))
		copy(s[pageLeading:vhdxPage-pageTrailing], c.data[pageLeading:])
		le.PutUint32(s[vhdxPage-pageTrailing:], uint32(sequence))
	}
	le.PutUint32(b[4:], checksum(b))
	return b
}

// ring is a log that is read.
type ring struct {
	b  []byte
	id guid.GUID
	at int64 // in the file
}

// slice returns n bytes from off on, around the end.
func (l *ring) slice(off, n int64) []byte {
	size := int64(len(l.b))
	off %= size
	if off+n <= size {
		return l.b[off : off+n]
	}
	return append(append([]byte(nil), l.b[off:]...), l.b[:off+n-size]...)
}

// entry returns the entry at off if there is a valid one (2.3.1.1).
func (l *ring) entry(off int64) (logEntry, bool) {
	head := l.slice(off, vhdxPage)
	e := logEntry{
		length: int64(le.Uint32(head[8:])), tail: int64(le.Uint32(head[12:])), sequence: le.Uint64(head[16:]),
		flushed: int64(le.Uint64(head[48:])), last: int64(le.Uint64(head[56:])),
	}
	count := int64(le.Uint32(head[24:]))
	descriptors := roundUp(logHead+count*logDescriptor, vhdxPage)
	if string(head[:4]) != "loge" || getGUID(head[32:]) != l.id || e.sequence == 0 ||
		e.length%vhdxPage != 0 || e.length > int64(len(l.b)) || descriptors > e.length ||
		e.tail%vhdxPage != 0 || e.tail >= int64(len(l.b)) || e.flushed < 0 || e.last < 0 || e.last > maxImage {
		return logEntry{}, false
	}
	b := l.slice(off, e.length)
	if checksum(b) != le.Uint32(b[4:]) {
		return logEntry{}, false
	}
	sectors := b[descriptors:]
	for i := range count {
		c, rest, ok := decodeChange(b[logHead+i*logDescriptor:], sectors, e.sequence)
		if !ok {
			return logEntry{}, false
		}
		e.changes, sectors = append(e.changes, c), rest
	}
	return e, true
}

// decodeChange reads a descriptor (2.3.1.2, 2.3.1.3) and, if it has one, its data sector (2.3.1.4), the first of sectors.
func decodeChange(d, sectors []byte, sequence uint64) (c change, rest []byte, ok bool) {
	c.off = int64(le.Uint64(d[16:]))
	if le.Uint64(d[24:]) != sequence || c.off < 0 || c.off%vhdxPage != 0 || c.off > maxImage {
		return change{}, nil, false
	}
	switch string(d[:4]) {
	case "zero":
		c.n = int64(le.Uint64(d[8:]))
		return c, sectors, c.n >= 0 && c.n%vhdxPage == 0 && c.n <= maxImage
	case "desc":
		if len(sectors) < vhdxPage {
			return change{}, nil, false
		}
		s := sectors[:vhdxPage]
		if string(s[:4]) != "data" || le.Uint32(s[4:]) != uint32(sequence>>32) ||
			le.Uint32(s[vhdxPage-pageTrailing:]) != uint32(sequence) {
			return change{}, nil, false
		}
		c.n, c.data = vhdxPage, append([]byte(nil), s...)
		copy(c.data, d[8:16])
		copy(c.data[vhdxPage-pageTrailing:], d[4:8])
		return c, sectors[vhdxPage:], true
	}
	return change{}, nil, false
}

// active returns the entries that are to be replayed, in order: of all runs of entries with ascending numbers in which the
// last one's tail is one of them, the run with the highest number, from that tail on (2.3.2).
func (l *ring) active() []logEntry {
	var best []logEntry
	size := int64(len(l.b))
	for start := int64(0); start < size; {
		run, offsets := l.run(start)
		used := int64(vhdxPage)
		for i := len(run) - 1; i >= 0; i-- {
			if offsets[i] == run[len(run)-1].tail {
				used = run[len(run)-1].length + (offsets[len(run)-1]-start+size)%size
				if len(best) == 0 || run[len(run)-1].sequence > best[len(best)-1].sequence {
					best = run[i:]
				}
				break
			}
		}
		start += used
	}
	return best
}

// run returns the entries from off on whose numbers ascend by one, and where they are.
func (l *ring) run(off int64) (entries []logEntry, offsets []int64) {
	size := int64(len(l.b))
	for total := int64(0); total < size; {
		e, ok := l.entry(off)
		if !ok || len(entries) > 0 && e.sequence != entries[len(entries)-1].sequence+1 || total+e.length > size {
			break
		}
		entries, offsets = append(entries, e), append(offsets, off)
		off, total = (off+e.length)%size, total+e.length
	}
	return entries, offsets
}

// pendingChanges returns what the log of an image that was not closed says is to be done, and the size that the file must
// get (2.3.3).
func pendingChanges(r io.ReaderAt, h *vhdxHeader, fileSize int64) (changes []change, size int64, err error) {
	const structure = "VHDX log"
	if h.log == (guid.GUID{}) {
		return nil, fileSize, nil
	}
	switch {
	case h.logVersion != 0:
		return nil, 0, unsupported(structure, h.logOffset, "version %d", h.logVersion)
	case h.logLength > maxLog:
		return nil, 0, unsupported(structure, h.logOffset, "%d bytes to be replayed", h.logLength)
	case h.logLength == 0:
		return nil, 0, corrupt(structure, h.logOffset, "no space for the entries that must be there")
	}
	b, err := readStructure(r, structure, h.logOffset, int(h.logLength))
	if err != nil {
		return nil, 0, err
	}
	l := ring{b: b, id: h.log, at: h.logOffset}
	entries := l.active()
	if len(entries) == 0 {
		return nil, 0, corrupt(structure, h.logOffset, "the image was not closed and there is no valid entry")
	}
	size = fileSize
	for _, e := range entries {
		if e.flushed > fileSize {
			return nil, 0, corrupt(structure, h.logOffset, "entry %d is for a file of %d bytes, this one has %d", e.sequence,
				e.flushed, fileSize)
		}
		size = max(size, e.last)
		for _, c := range e.changes {
			if c.off < vhdxStructure || c.end() > max(fileSize, e.last) {
				return nil, 0, corrupt(structure, h.logOffset, "entry %d sets %d bytes at %d", e.sequence, c.n, c.off)
			}
		}
		if changes = append(changes, e.changes...); len(changes) > maxChanges {
			return nil, 0, unsupported(structure, h.logOffset, "more than %d changes to be replayed", maxChanges)
		}
	}
	return changes, size, nil
}

// apply puts the changes in place, each byte once, since it is the last change that counts: a log may say to clear the whole
// file many times. The file is longer than end bytes already, and zero from there on.
func apply(f File, changes []change, end int64) error {
	var done spans
	for _, c := range slices.Backward(changes) {
		for _, x := range done.add(span{c.off, c.end()}) {
			var err error
			if c.data == nil {
				err = writeZeros(f, x.from, min(x.to, end)-x.from)
			} else {
				_, err = f.WriteAt(c.data[x.from-c.off:x.to-c.off], x.from)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// span is a run of bytes, and spans are some that ascend and do not touch.
type (
	span  struct{ from, to int64 }
	spans []span
)

// add adds a span, and returns what of it is new.
func (s *spans) add(x span) (fresh []span) {
	first, _ := slices.BinarySearchFunc(*s, x.from, func(y span, from int64) int { return cmp.Compare(y.to, from) })
	last, at := first, x.from
	for ; last < len(*s) && (*s)[last].from <= x.to; last++ {
		y := (*s)[last]
		if at < y.from {
			fresh = append(fresh, span{at, y.from})
		}
		at, x.from, x.to = max(at, y.to), min(x.from, y.from), max(x.to, y.to)
	}
	if at < x.to {
		fresh = append(fresh, span{at, x.to})
	}
	*s = slices.Replace(*s, first, last, x)
	return fresh
}

// replayed reads a file as if the changes were in place.
type replayed struct {
	io.ReaderAt
	changes []change
	size    int64
}

func (r *replayed) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), max(r.size-off, 0))
	if err := readZeroed(r.ReaderAt, p[:n], off); err != nil {
		return 0, err
	}
	for _, c := range r.changes {
		from, to := max(c.off, off), min(c.end(), off+n)
		switch {
		case from >= to:
		case c.data == nil:
			clear(p[from-off : to-off])
		default:
			copy(p[from-off:to-off], c.data[from-c.off:])
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
