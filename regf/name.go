package regf

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	maxKeyName   = 255   // UTF-16 units, as on Windows
	maxValueName = 16383 // likewise
)

// A rawName is a name as a hive has it: bytes of Latin-1 ("compressed"), or UTF-16LE.
type rawName struct {
	b    []byte
	wide bool
}

func (n rawName) units() int {
	if n.wide {
		return len(n.b) / 2
	}
	return len(n.b)
}

func (n rawName) at(i int) uint16 {
	if n.wide {
		return le16(n.b[2*i:])
	}
	return uint16(n.b[i])
}

// String is WTF-8: UTF-8 in which a lone surrogate, which names may hold, is encoded like any other code point, so that
// no two names become the same.
func (n rawName) String() string {
	var s strings.Builder
	s.Grow(len(n.b))
	count := n.units()
	for i := 0; i < count; i++ {
		u := rune(n.at(i))
		if u >= 0xD800 && u < 0xDC00 && i+1 < count {
			if low := rune(n.at(i + 1)); low >= 0xDC00 && low < 0xE000 {
				u = (u-0xD800)<<10 + (low - 0xDC00) + 0x10000
				i++
			}
		}
		writeWTF8(&s, u)
	}
	return s.String()
}

func writeWTF8(s *strings.Builder, r rune) {
	if r < 0xD800 || r > 0xDFFF {
		s.WriteRune(r)
		return
	}
	s.Write([]byte{0xE0 | byte(r>>12), 0x80 | byte(r>>6)&0x3F, 0x80 | byte(r)&0x3F})
}

// nextRune is utf8.DecodeRuneInString for WTF-8.
func nextRune(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 && len(s) >= 3 && s[0] == 0xED && s[1]&0xE0 == 0xA0 && s[2]&0xC0 == 0x80 {
		return 0xD000 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F), 3
	}
	return r, n
}

// utf16Bytes returns the text as UTF-16LE without a NUL.
func utf16Bytes(s string) []byte {
	b := make([]byte, 0, 2*len(s))
	for len(s) > 0 {
		r, n := nextRune(s)
		s = s[n:]
		if r >= 0x10000 {
			r -= 0x10000
			high := 0xD800 + r>>10
			b = append(b, byte(high), byte(high>>8))
			r = 0xDC00 + r&0x3FF
		}
		b = append(b, byte(r), byte(r>>8))
	}
	return b
}

// nameOf returns the name as a hive stores it, Latin-1 where that is possible.
func nameOf(s string) rawName {
	narrow := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xFF {
			return rawName{utf16Bytes(s), true}
		}
		narrow = append(narrow, byte(r))
	}
	return rawName{b: narrow}
}

func textUpToNUL(b []byte) string {
	for i := 0; i+1 < len(b); i += 2 {
		if b[i] == 0 && b[i+1] == 0 {
			b = b[:i]
		}
	}
	return rawName{b[:len(b)&^1], true}.String()
}

// upcase returns the uppercase of a UTF-16 unit for itself: surrogates and what would leave the plane stay as they are.
func upcase(u uint16) uint16 {
	switch {
	case u >= 0x80:
		return upcaseTable()[u]
	case 'a' <= u && u <= 'z':
		return u - 'a' + 'A'
	}
	return u
}

// upcaseTable has all units, which takes some milliseconds: programs that link this package and meet no such names, as most
// do, are not to pay for it when they start.
var upcaseTable = sync.OnceValue(func() *[0x10000]uint16 {
	var t [0x10000]uint16
	for i := range t {
		t[i] = uint16(i)
		if u := unicode.ToUpper(rune(i)); u < 0x10000 && !caseless(rune(i)) {
			t[i] = uint16(u)
		}
	}
	return &t
})

func (n rawName) upper(i int) uint16 { return upcase(n.at(i)) }

// compareNames orders names as lists of subkeys are ordered: by UTF-16 units in upper case.
func compareNames(a, b rawName) int {
	na, nb := a.units(), b.units()
	for i := range min(na, nb) {
		if c := cmp.Compare(a.upper(i), b.upper(i)); c != 0 {
			return c
		}
	}
	return cmp.Compare(na, nb)
}

// EqualNames reports whether two names of keys or values are the same name, whatever their case.
func EqualNames(a, b string) bool {
	return a == b || compareNames(nameOf(a), nameOf(b)) == 0
}

// hashName is the hash in a list of kind lh.
func hashName(n rawName) uint32 {
	var h uint32
	for i := range n.units() {
		h = 37*h + uint32(n.upper(i))
	}
	return h
}

func checkKeyName(s string) (rawName, error) {
	n := nameOf(s)
	if n.units() == 0 || n.units() > maxKeyName || strings.Contains(s, `\`) {
		return n, fmt.Errorf("name a key %q: not 1 to %d characters without a backslash: %w", s, maxKeyName, ErrInvalid)
	}
	return n, nil
}

// caseless reports whether Windows leaves a letter as it is that Unicode has a capital for: one that is not the only small
// letter of its capital (µ, ı, ſ), and those whose capitals are younger than Windows' table, which is that of an NTFS
// volume's $UpCase.
func caseless(r rune) bool {
	if unicode.ToLower(unicode.ToUpper(r)) != r {
		return true
	}
	switch {
	case r < 0x23F:
		return false
	case r < 0x2A0:
		return strings.ContainsRune("\u023f\u0240\u0252\u025c\u0261\u0265\u0266\u026a\u026c\u0282\u0287\u029d\u029e", r)
	case r >= 0x525 && r <= 0x52F, r >= 0x10D0 && r <= 0x10FF, r >= 0x13F8 && r <= 0x13FD, r >= 0xA791 && r <= 0xA7F6, r >= 0xAB53 && r <= 0xABBF:
		return true
	}
	return strings.ContainsRune("\u03f3\u1d8e\u2c5f\u2cec\u2cee\u2cf3\u2d27\u2d2d\ua661\ua699\ua69b", r)
}
