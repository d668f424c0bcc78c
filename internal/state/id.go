package state

import (
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
)

// validID leaves no room for a path: no separator, no leading dot. 128 bytes fit every file system's name limit with
// space for a suffix.
var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// CheckID returns an error of class errdefs.ErrInvalidArgument unless id can name an object of the given kind: a letter or
// digit, then up to 127 letters, digits, underscores, dots or hyphens.
func CheckID(kind, id string) error {
	if validID.MatchString(id) {
		return nil
	}
	return fmt.Errorf("name %s %q: want a letter or digit, then at most 127 of a-z A-Z 0-9 _ . -: %w",
		kind, id, errdefs.ErrInvalidArgument)
}
