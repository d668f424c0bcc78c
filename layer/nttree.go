package layer

import (
	"hash/maphash"
	"strings"

	"github.com/hostcompute/hcs/ntfs"
)

// ntTree remembers which names a Windows layer has brought so far, in some
// twenty bytes for each, and finds out what is missing or doubled.
type ntTree struct {
	seed   maphash.Seed
	seen   map[uint64]ntSeen
	parent string // the last directory that was found to be there
	last   string // the last name but streams'
	kind   Kind   // of last
}

// ntSeen is what is known of a name, or of its variants in case.
type ntSeen struct {
	exact   uint32 // hash of the spelling
	kind    Kind
	implied bool // made up
}

func newNTTree() *ntTree {
	return &ntTree{seed: maphash.MakeSeed(), seen: make(map[uint64]ntSeen)}
}

func (t *ntTree) exact(name string) uint32 { return uint32(maphash.String(t.seed, name)) }

func (t *ntTree) find(name string) (ntSeen, bool) {
	s, ok := t.seen[nameKey(t.seed, name)]
	return s, ok
}

// parents makes sure that the directories above name are there: make is called
// for each that is not, from the top down.
func (t *ntTree) parents(name string, make func(dir string) error, report flawFunc) error {
	i := strings.LastIndexByte(name, '/')
	if i < 0 || name[:i] == t.parent {
		return nil
	}
	dir := name[:i]
	if s, ok := t.find(dir); ok {
		if s.kind != Dir {
			return invalid("name leads through a %s", s.kind)
		}
		if s.exact != t.exact(dir) {
			if err := report(CaseVariant, "the entry of directory %q is spelled differently", dir); err != nil {
				return err
			}
		}
	} else {
		if err := t.parents(dir, make, report); err != nil {
			return err
		}
		if err := make(dir); err != nil {
			return err
		}
		t.seen[nameKey(t.seed, dir)] = ntSeen{t.exact(dir), Dir, true}
	}
	t.parent = dir
	return nil
}

// add remembers an object.
func (t *ntTree) add(e *Entry, report flawFunc) error {
	t.last, t.kind = e.Name, e.Kind
	return t.insert(e.Name, e.Kind, report)
}

func (t *ntTree) insert(name string, kind Kind, report flawFunc) error {
	key, now := nameKey(t.seed, name), ntSeen{exact: t.exact(name), kind: kind}
	was, ok := t.seen[key]
	t.seen[key] = now
	switch {
	case !ok:
		return nil
	case was.exact != now.exact:
		t.parent = ""
		return report(CaseVariant, "an entry before it is spelled differently")
	case was.implied && kind == Dir:
		return nil // it comes late, which was told
	}
	t.parent = ""
	return report(Repeated, "a %s of this name is there before it", was.kind)
}

// addStream finds the owner of an alternate stream, and gives it the owner's
// spelling.
func (t *ntTree) addStream(e *Entry, report flawFunc) error {
	switch {
	case e.Name == t.last && t.kind != Hardlink:
	case t.kind != Hardlink && ntfs.EqualFold(e.Name, t.last):
		name := e.Name
		e.Name = t.last
		if err := report(CaseVariant, "stream %q of %q is spelled differently", e.Stream, name); err != nil {
			return err
		}
	default:
		if _, ok := t.find(e.Name); !ok {
			return invalid("alternate stream %q belongs to nothing in the layer", e.Stream)
		}
		if err := report(LateStream, "stream %q does not follow its owner", e.Stream); err != nil {
			return err
		}
	}
	return t.insert(e.Name+":"+e.Stream, Stream, report)
}

// flawFunc takes notice of something malformed that is mended. An error is for
// those who want none mended.
type flawFunc func(p Problem, format string, args ...any) error
