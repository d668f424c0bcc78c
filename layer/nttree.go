package layer

import (
	"fmt"
	"hash/maphash"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hostcompute/hcs/ntfs"
)

// ntTree remembers which names a Windows layer has brought so far, in some
// thirty bytes for each, and finds out what is missing or doubled.
type ntTree struct {
	seed   maphash.Seed
	seen   map[uint64]ntSeen
	parent string // the last directory that was found to be there
	last   string // the last name but streams'
	kind   Kind   // of last
}

// ntSeen is what is known of a name, or of its variants in case.
type ntSeen struct {
	small   uint64 // which letters of its last component are small, for messages
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
			if err := report(CaseVariant, "directory %q: %s", dir, t.spelled(dir, s)); err != nil {
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
		t.seen[nameKey(t.seed, dir)] = ntSeen{smallLetters(dir), t.exact(dir), Dir, true}
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
	key, now := nameKey(t.seed, name), ntSeen{small: smallLetters(name), exact: t.exact(name), kind: kind}
	was, ok := t.seen[key]
	if ok && was.exact != now.exact {
		other := t.spelled(name, was)
		t.seen[key], t.parent = now, ""
		return report(CaseVariant, "%s", other)
	}
	t.seen[key] = now
	switch {
	case !ok:
		return nil
	case was.implied && kind == Dir:
		return nil // it comes late, which was told
	}
	t.parent = ""
	return report(Repeated, "a %s of this name is there before it", was.kind)
}

// spelled tells how a name was spelled when it was seen, if that can be found
// out: nobody keeps names.
func (t *ntTree) spelled(name string, was ntSeen) string {
	last := strings.LastIndexByte(name, '/') + 1
	own := respell(name[last:], was.small)
	for _, above := range []string{name[:last], t.respellAbove(name[:last])} {
		if other := above + own; t.exact(other) == was.exact {
			return fmt.Sprintf("%q is there before it", other)
		}
	}
	return "an entry before it is spelled differently"
}

// respellAbove spells the directories of a path, which ends in a slash, as they
// were seen last.
func (t *ntTree) respellAbove(above string) string {
	var b strings.Builder
	for end := 0; end < len(above); end++ {
		if above[end] != '/' {
			continue
		}
		part := above[b.Len():end]
		if s, ok := t.find(above[:end]); ok {
			part = respell(part, s.small)
		}
		if b.WriteString(part); b.Len() != end { // another letter takes more bytes
			return above
		}
		b.WriteByte('/')
	}
	return b.String()
}

// smallLetters says of the first 64 characters of a path's last component which
// are changed by case, one bit for each.
func smallLetters(name string) (small uint64) {
	i := 0
	for _, r := range name[strings.LastIndexByte(name, '/')+1:] {
		if r < utf8.RuneSelf && ('a' > r || r > 'z') {
			i++
			continue
		}
		if r < utf8.RuneSelf || upper(r) != r {
			small |= 1 << i
		}
		i++
	}
	return small
}

// respell turns the letters of a component into small ones or large ones.
func respell(part string, small uint64) string {
	i := -1
	return strings.Map(func(r rune) rune {
		i++
		switch large := upper(r); {
		case i >= 64:
			return r
		case small>>i&1 == 0:
			return large
		case large == r && upper(unicode.ToLower(r)) == r:
			return unicode.ToLower(r)
		}
		return r
	}, part)
}

// upper returns a character in upper case, as NTFS compares names.
func upper(r rune) rune {
	up, _ := utf8.DecodeRuneInString(ntfs.Upcase(string(r)))
	return up
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
