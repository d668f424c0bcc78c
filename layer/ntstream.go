package layer

import (
	"archive/tar"
	"fmt"
	"io"
)

// Encoding returns the encoding that is read: Auto until the first entry was.
func (r *Reader) Encoding() Encoding {
	switch {
	case r.nt != nil:
		return NT
	case r.undecided != nil:
		return Auto
	}
	return POSIX
}

// Detect reads the first entry, which Next returns then, and tells the encoding
// by it. That of a layer without entries is Auto. It is called before Next.
func (r *Reader) Detect() (Encoding, error) {
	e, err := r.Next()
	if err != nil && err != io.EOF {
		return r.Encoding(), err
	}
	r.ahead = e
	return r.Encoding(), nil
}

// header reads the next headers: by itself if they are plain and the entry is
// of the NT encoding, otherwise by archive/tar.
func (r *Reader) header(pad int) (*tar.Header, error) {
	r.records = r.records[:0]
	if r.nt != nil || r.undecided != nil {
		if ok, err := r.plainHeader(pad); ok || err != nil {
			return &r.plain, err
		}
	}
	if r.stale {
		kept, err := r.tape.keep(int64(pad))
		if err != nil {
			return nil, err
		}
		if !kept {
			return nil, exceeded("HeaderBytes", r.limits.HeaderBytes)
		}
		r.tar, r.stale = tar.NewReader(&r.tape), false
	}
	return r.tar.Next()
}

// plainHeader reads plain headers.
func (r *Reader) plainHeader(pad int) (bool, error) {
	if r.tape.fill() != nil {
		return false, nil // archive/tar meets the error again
	}
	n := r.parseChunk(pad)
	if n == 0 && r.tape.join() {
		n = r.parseChunk(pad)
	}
	if n == 0 {
		return false, nil
	}
	if err := r.tape.record(r.tape.chunk[:pad+n]); err != nil {
		return false, err
	}
	r.tape.advance(pad + n)
	r.tape.ghost, r.stale = 0, true
	return true, nil
}

// parseChunk is parsePlain for what follows pad bytes in the tape's chunk.
func (r *Reader) parseChunk(pad int) (n int) {
	if b := r.tape.chunk; len(b) >= pad {
		n, r.records = parsePlain(b[pad:], &r.plain, r.records[:0])
	}
	if n == 0 {
		r.records = r.records[:0]
	}
	return n
}

// located says where in a Windows layer an error is: names of such layers may
// be anything.
func (r *Reader) located(err error) error {
	if r.nt == nil {
		return err
	}
	return fmt.Errorf("%w (before byte %d of the layer)", err, r.tape.pos)
}

// decide tells the NT encoding by the first entry, if it is not told, and
// finds the records that archive/tar keeps in a map in the order that they
// have in meta, the blocks before the header's last.
func (r *Reader) decide(hdr *tar.Header, meta []byte) {
	if r.nt == nil && r.undecided == nil {
		return
	}
	if !r.stale {
		r.records = orderedRecords(meta, hdr.PAXRecords, r.records[:0])
	}
	if r.undecided != nil {
		if looksNT(hdr, r.records) {
			r.nt = r.undecided
		} else if r.stale {
			hdr.PAXRecords = recordMap(r.records)
		}
		r.undecided = nil
	}
}

func recordMap(records []record) map[string]string {
	m := make(map[string]string, len(records))
	for _, r := range records {
		m[r.key] = r.value
	}
	return m
}

// orderedRecords finds the records in the last PAX header of meta that are
// those of the map.
func orderedRecords(meta []byte, records map[string]string, to []record) []record {
	if len(records) == 0 {
		return to
	}
	taken := make(map[string]bool, len(records))
	for s := lastRecords(meta); s != ""; {
		key, value, rest, ok := cutRecord(s)
		if !ok {
			break // archive/tar has read it
		}
		if v, ok := records[key]; ok && v == value && !taken[key] {
			taken[key] = true
			to = append(to, record{key, value})
		}
		s = rest
	}
	return to
}

// lastRecords returns the content of the last PAX header of those in meta.
func lastRecords(meta []byte) string {
	var last []byte
	for len(meta) >= blockSize {
		size, ok := parseNumber(meta[124:136])
		if !ok || size > int64(len(meta)-blockSize) {
			break
		}
		if meta[156] == tar.TypeXHeader {
			last = meta[blockSize : blockSize+size]
		}
		meta = meta[min(int64(len(meta)), blockSize+size+padding(size)):]
	}
	return string(last)
}

// nextInLine returns what was made up, and then what it was made up for.
func (r *Reader) nextInLine() (*Entry, error) {
	if s := r.nt.next(); s != nil {
		r.setContent(s)
		return &s.e, nil
	}
	if r.nt.ended {
		return nil, io.EOF
	}
	return nil, nil
}

// setContent lets Read give the content of an entry that is of the stream.
func (r *Reader) setContent(s *slot) {
	r.size, r.data, r.sparse = s.e.Size, s.e.Data, s.e.Data != nil
	r.leaveOut(&s.e)
}

// emit keeps an entry's source and returns it, or what comes before it.
func (r *Reader) emit(s *slot, pad int) (*Entry, error) {
	if err := r.keepSource(s, pad); err != nil || r.nt == nil {
		return &s.e, err
	}
	if first := r.nt.line(s); first != s {
		return &first.e, nil
	}
	r.setContent(s)
	return &s.e, nil
}

// last returns what was made up at the end of the layer, or the end.
func (r *Reader) last(begin, pad, firstPad int) (*Entry, error) {
	err := r.end(begin, pad, firstPad)
	if err != io.EOF || r.nt == nil {
		return nil, err
	}
	if err := r.nt.finish(); err != nil {
		r.name = r.nt.name
		return nil, err
	}
	if s := r.nt.next(); s != nil {
		return &s.e, nil
	}
	return nil, err
}
