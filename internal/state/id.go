package state

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// CheckID returns an error of class errdefs.ErrInvalidArgument unless id can name an object of the given kind: a letter or
// digit, then up to 127 letters, digits, underscores, dots or hyphens.
func CheckID(kind, id string) error {
	if isID(id) {
		return nil
	}
	return fmt.Errorf("name %s %q: want a letter or digit, then at most 127 of a-z A-Z 0-9 _ . -: %w",
		kind, id, errdefs.ErrInvalidArgument)
}

// isID leaves no room for a path: no separator, no leading dot. 128 bytes fit every file system's name limit with space
// for a suffix. It is no regular expression, whose compilation would be a good part of the time that a command takes.
func isID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		isAlphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !isAlphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}
