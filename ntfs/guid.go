package ntfs

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a GUID as Windows stores it: the first three fields are little
// endian.
type GUID [16]byte

// guidOrder says which stored byte each pair of digits is.
var guidOrder = [...]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}

// String returns the usual form, without braces, in lower case.
func (g GUID) String() string {
	var b [16]byte
	for i, at := range guidOrder {
		b[i] = g[at]
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ParseGUID reads the usual form, with or without braces.
func ParseGUID(s string) (GUID, error) {
	text := s
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		text = s[1 : len(s)-1]
	}
	var g GUID
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return g, fmt.Errorf("parse GUID %q: %w", s, ErrSyntax)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != len(g) {
		return g, fmt.Errorf("parse GUID %q: %w", s, ErrSyntax)
	}
	for i, at := range guidOrder {
		g[at] = b[i]
	}
	return g, nil
}
