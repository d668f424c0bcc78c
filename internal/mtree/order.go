package mtree

import (
	"cmp"
	"strings"
)

// Place is where an object stands in a manifest of a [Writer].
type Place struct {
	Name string // as an Entry's
	Dir  bool
}

// Place returns the place of the entry.
func (e *Entry) Place() Place { return Place{e.Name, e.Type == Dir} }

// Compare is negative if the object stands before the other one in a manifest, zero if they are the same.
func (p Place) Compare(other Place) int {
	a, b := p.Name, other.Name
	switch {
	case a == "." && b == ".":
		return 0
	case a == ".":
		return -1
	case b == ".":
		return 1
	}
	for {
		var restA, restB string
		var deepA, deepB bool
		a, restA, deepA = strings.Cut(a, "/")
		b, restB, deepB = strings.Cut(b, "/")
		if isDir := deepA || p.Dir; isDir != (deepB || other.Dir) {
			if isDir {
				return 1
			}
			return -1
		}
		if a != b || !deepA || !deepB {
			if c := cmp.Compare(a, b); c != 0 {
				return c
			}
			return cmp.Compare(len(restA), len(restB)) // what is in a directory comes after it
		}
		a, b = restA, restB
	}
}
