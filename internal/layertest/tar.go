package layertest

import (
	"fmt"
	"strconv"
)

const blockSize = 512

// Header is a tar header block with all the freedom that the format gives, and
// none of the sense.
type Header struct {
	Name, Prefix, Link string
	Type               byte
	Mode, UID, GID     int64
	Size, ModTime      int64
	Major, Minor       int64
	Magic              string // default: ustar
}

// Append appends the block. Numbers that are negative or too large for octal
// become base 256; names are cut to their fields.
func (h Header) Append(b []byte) []byte {
	var k [blockSize]byte
	if h.Magic == "" {
		h.Magic = "ustar\x0000"
	}
	copy(k[:100], h.Name)
	number(k[100:108], h.Mode)
	number(k[108:116], h.UID)
	number(k[116:124], h.GID)
	number(k[124:136], h.Size)
	number(k[136:148], h.ModTime)
	k[156] = h.Type
	copy(k[157:257], h.Link)
	copy(k[257:265], h.Magic)
	number(k[329:337], h.Major)
	number(k[337:345], h.Minor)
	copy(k[345:500], h.Prefix)
	return append(b, Checksum(k)...)
}

// Checksum returns the block with its checksum set.
func Checksum(k [blockSize]byte) []byte {
	copy(k[148:156], "        ")
	sum := 0
	for _, c := range k {
		sum += int(c)
	}
	copy(k[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return k[:]
}

func number(field []byte, v int64) {
	if s := fmt.Sprintf("%0*o", len(field)-1, v); v >= 0 && len(s) < len(field) {
		copy(field, s)
		return
	}
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte(v)
		v >>= 8
	}
	field[0] |= 0x80
}

// Pad appends zeros up to the end of a block.
func Pad(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(blockSize-1))...)
}

// Record returns a PAX record.
func Record(key, value string) string {
	n := len(key) + len(value) + 3
	for size := n; ; size++ {
		if s := strconv.Itoa(size); size == n+len(s) {
			return s + " " + key + "=" + value + "\n"
		}
	}
}

// AppendMeta appends a header of type 'x', 'g', 'L' or 'K' with its content.
func AppendMeta(b []byte, kind byte, content string) []byte {
	h := Header{Name: "meta", Type: kind, Size: int64(len(content))}
	if kind == 'L' || kind == 'K' {
		h.Name, h.Magic = "././@LongLink", "ustar  \x00"
	}
	return Pad(append(h.Append(b), content...))
}
