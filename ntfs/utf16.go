package ntfs

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// DecodeUTF16 returns UTF-16LE as WTF-8; surrogates without their other half
// are kept. An odd last byte is left out.
func DecodeUTF16(b []byte) string {
	out := make([]byte, 0, len(b)/2)
	for len(b) >= 2 {
		r := rune(binary.LittleEndian.Uint16(b))
		b = b[2:]
		if utf16.IsSurrogate(r) && len(b) >= 2 {
			next := rune(binary.LittleEndian.Uint16(b))
			if pair := utf16.DecodeRune(r, next); pair != utf8.RuneError {
				r, b = pair, b[2:]
			}
		}
		out = appendWTF8(out, r)
	}
	return string(out)
}

// appendWTF8 is utf8.AppendRune that encodes surrogates too.
func appendWTF8(b []byte, r rune) []byte {
	if !utf16.IsSurrogate(r) {
		return utf8.AppendRune(b, r)
	}
	return append(b, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
}

// AppendUTF16 adds WTF-8 as UTF-16LE to b. Bytes that are not WTF-8 become
// U+FFFD; ValidWTF8 says beforehand whether there are any.
func AppendUTF16(b []byte, s string) []byte {
	for len(s) > 0 {
		r, n := decodeWTF8(s)
		s = s[n:]
		if r > 0xFFFF {
			high, low := utf16.EncodeRune(r)
			b = binary.LittleEndian.AppendUint16(b, uint16(high))
			r = low
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(r))
	}
	return b
}

// decodeWTF8 is utf8.DecodeRuneInString that decodes surrogates too.
func decodeWTF8(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 && len(s) >= 3 && s[0] == 0xED && s[1]&0xE0 == 0xA0 && s[2]&0xC0 == 0x80 {
		return 0xD000 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F), 3
	}
	return r, n
}

// ValidWTF8 reports whether s survives AppendUTF16 and DecodeUTF16: it is
// UTF-8 but for surrogates, and no two of those make a pair.
func ValidWTF8(s string) bool {
	var last rune
	for len(s) > 0 {
		r, n := decodeWTF8(s)
		if r == utf8.RuneError && n == 1 || utf16.DecodeRune(last, r) != utf8.RuneError {
			return false
		}
		last, s = r, s[n:]
	}
	return true
}

// lenUTF16 is the number of 16-bit units that s takes.
func lenUTF16(s string) int {
	n := 0
	for len(s) > 0 {
		r, size := decodeWTF8(s)
		s = s[size:]
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}
