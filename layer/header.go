package layer

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// record is a PAX record.
type record struct{ key, value string }

// header is the ustar header block that is being made, and what does not fit
// into it. archive/tar's writer would not do: it refuses sparse files, and its
// bytes, and with them every diffID, may change with the Go version.
type header struct {
	block   [blockSize]byte
	records []record
}

// flagOf gives the tar type of each Kind.
var flagOf = [...]byte{
	File: '0', Dir: '5', Symlink: '2', Hardlink: '1', CharDevice: '3', BlockDevice: '4', Fifo: '6',
	Whiteout: '0', Opaque: '0', Stream: '0',
}

// appendHeader appends an entry's headers to b, of whose content data is
// stored.
func appendHeader(b []byte, e *Entry, data []Extent) ([]byte, error) {
	var h header
	name := storedName(e)
	size := sum(data)
	var sparse []byte
	if e.Data != nil {
		sparse = appendSparseMap(nil, data, e.Size)
		size += int64(len(sparse))
		h.add(sparseMajor, "1")
		h.add(sparseMinor, "0")
		h.add(sparseName, name)
		h.add(sparseRealSize, strconv.FormatInt(e.Size, 10))
		h.text(0, 100, metaName("GNUSparseFile.0", name))
	} else {
		h.name(name)
	}
	if e.Kind == Symlink || e.Kind == Hardlink {
		if !h.text(157, 100, e.Link) {
			h.add("linkpath", e.Link)
		}
	}
	if !utf8.ValidString(name) || !utf8.ValidString(e.Link) {
		h.add("hdrcharset", "BINARY") // POSIX's word for: not UTF-8
	}
	h.metadata(e, size)
	for k, v := range e.Xattrs {
		h.add(xattrPrefix+xattrEscaper.Replace(k), v)
	}
	for k, v := range e.Records {
		h.add(k, v)
	}
	b = h.append(b, name)
	b = append(b, sparse...)
	if len(b) > maxHeaderBytes {
		return b, exceeded("HeaderBytes", int64(maxHeaderBytes))
	}
	return b, nil
}

// storedName returns the name that stands for an entry in a tar file.
func storedName(e *Entry) string {
	switch e.Kind {
	case Dir:
		return e.Name + "/"
	case Whiteout:
		i := strings.LastIndexByte(e.Name, '/') + 1
		return e.Name[:i] + whiteoutPrefix + e.Name[i:]
	case Opaque:
		if e.Name == "." {
			return opaqueName
		}
		return e.Name + "/" + opaqueName
	}
	return e.Name
}

// metaName returns a name for a header that stands for another one, short and
// in ASCII: programs that know no better make a file of it.
func metaName(dir, name string) string {
	base := strings.TrimSuffix(name, "/")
	base = base[strings.LastIndexByte(base, '/')+1:]
	ascii := make([]byte, 0, 100)
	ascii = append(append(ascii, dir...), '/')
	for i := 0; i < len(base) && len(ascii) < 100; i++ {
		if c := base[i]; c > ' ' && c < 0x7f {
			ascii = append(ascii, c)
		}
	}
	return string(ascii)
}

// appendSparseMap appends the map of format 1.0. GNU tar takes the file's end
// from the map, so that a hole there is told by an empty part.
func appendSparseMap(b []byte, data []Extent, size int64) []byte {
	n := len(data)
	hole := n == 0 || data[n-1].Offset+data[n-1].Length < size
	if hole {
		n++
	}
	b = append(strconv.AppendInt(b, int64(n), 10), '\n')
	for _, x := range data {
		b = append(strconv.AppendInt(b, x.Offset, 10), '\n')
		b = append(strconv.AppendInt(b, x.Length, 10), '\n')
	}
	if hole {
		b = append(strconv.AppendInt(b, size, 10), "\n0\n"...)
	}
	return append(b, zeros[:padding(int64(len(b)))]...)
}

func (h *header) add(key, value string) { h.records = append(h.records, record{key, value}) }

// text puts s into a field if it is ASCII and short enough.
func (h *header) text(at, size int, s string) bool {
	if len(s) > size {
		return false
	}
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	copy(h.block[at:at+size], s)
	return true
}

// name stores a name: whole, split at a slash, or as a record.
func (h *header) name(name string) {
	if h.text(0, 100, name) {
		return
	}
	if len(name) <= 256 {
		i := strings.LastIndexByte(name[:min(156, len(name)-1)], '/')
		if i > 0 && h.text(345, 155, name[:i]) && h.text(0, 100, name[i+1:]) {
			return
		}
		clear(h.block[345:500])
	}
	h.add("path", name)
	h.text(0, 100, metaName("PaxName.0", name))
}

// metadata fills all fields but the names.
func (h *header) metadata(e *Entry, size int64) {
	h.octal(100, 8, int64(e.Mode&0o7777))
	h.number(108, 8, "uid", int64(e.UID))
	h.number(116, 8, "gid", int64(e.GID))
	h.number(124, 12, "size", size)
	h.mtime(e.ModTime)
	if !e.AccessTime.IsZero() {
		h.add("atime", paxTime(e.AccessTime))
	}
	if !e.ChangeTime.IsZero() {
		h.add("ctime", paxTime(e.ChangeTime))
	}
	h.block[156] = flagOf[e.Kind]
	if e.Kind == CharDevice || e.Kind == BlockDevice {
		h.device(329, e.Major)
		h.device(337, e.Minor)
	} else {
		h.octal(329, 8, 0)
		h.octal(337, 8, 0)
	}
}

func (h *header) mtime(t time.Time) {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	if !h.octal(136, 12, t.Unix()) || t.Nanosecond() != 0 {
		h.add("mtime", paxTime(t))
	}
}

// number puts v into a field, or into a record if it is too large.
func (h *header) number(at, size int, key string, v int64) {
	if !h.octal(at, size, v) {
		h.add(key, strconv.FormatInt(v, 10))
	}
}

// octal puts v into a field with a NUL at its end, or 0 if it does not fit.
func (h *header) octal(at, size int, v int64) bool {
	fits := v >= 0 && v>>(3*(size-1)) == 0
	if !fits {
		v = 0
	}
	for i := at + size - 2; i >= at; i-- {
		h.block[i] = '0' + byte(v&7)
		v >>= 3
	}
	return fits
}

// device puts a device number into a field, in GNU's base 256 if it is too
// large: PAX has no record for it that everybody knows.
func (h *header) device(at int, v uint32) {
	if h.octal(at, 8, int64(v)) {
		return
	}
	copy(h.block[at:], []byte{0x80, 0, 0, 0, byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// paxTime writes a time in seconds, with as many digits as it needs.
func paxTime(t time.Time) string {
	sec, nsec := t.Unix(), int64(t.Nanosecond())
	if nsec == 0 {
		return strconv.FormatInt(sec, 10)
	}
	b := make([]byte, 0, 32)
	if sec < 0 {
		b = append(b, '-')
		sec, nsec = -(sec + 1), 1e9-nsec
	}
	b = append(strconv.AppendInt(b, sec, 10), '.')
	for digit := int64(1e8); nsec > 0; digit /= 10 {
		b = append(b, '0'+byte(nsec/digit))
		nsec %= digit
	}
	return string(b)
}

// append appends the PAX header, if one is needed, and the header block.
func (h *header) append(b []byte, name string) []byte {
	if len(h.records) > 0 {
		b = h.appendRecords(b, name)
	}
	h.finish()
	return append(b, h.block[:]...)
}

func (h *header) appendRecords(b []byte, name string) []byte {
	size := h.sortRecords()
	x := recordsHeader(metaName("PaxHeaders.0", name), size)
	x.octal(329, 8, 0)
	x.octal(337, 8, 0)
	x.finish()
	return h.appendRecordText(append(b, x.block[:]...), size)
}

// sortRecords puts the records in the order of their keys, and returns their
// length.
func (h *header) sortRecords() (size int64) {
	slices.SortFunc(h.records, func(x, y record) int { return cmp.Compare(x.key, y.key) })
	for _, r := range h.records {
		size += int64(r.size())
	}
	return size
}

// recordsHeader returns the header of records, which is not finished.
func recordsHeader(name string, size int64) (x header) {
	x.text(0, 100, name)
	x.octal(100, 8, 0o644)
	x.octal(108, 8, 0)
	x.octal(116, 8, 0)
	x.octal(124, 12, size)
	x.octal(136, 12, 0)
	x.block[156] = 'x'
	return x
}

func (h *header) appendRecordText(b []byte, size int64) []byte {
	for _, r := range h.records {
		b = strconv.AppendInt(b, int64(r.size()), 10)
		b = append(append(append(b, ' '), r.key...), '=')
		b = append(append(b, r.value...), '\n')
	}
	return append(b, zeros[:padding(size)]...)
}

// size returns the record's length, which it starts with.
func (r record) size() int {
	rest := len(r.key) + len(r.value) + 3
	return rest + digits(rest+digits(rest))
}

// digits returns how many decimal digits n has.
func digits(n int) (count int) {
	for ; n > 0; n /= 10 {
		count++
	}
	return count
}

// finish sets magic and checksum.
func (h *header) finish() {
	copy(h.block[257:265], "ustar\x0000")
	copy(h.block[148:156], "        ")
	total := 0
	for _, c := range h.block {
		total += int(c)
	}
	h.octal(148, 7, int64(total))
	h.block[154], h.block[155] = 0, ' '
}
