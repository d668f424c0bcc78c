package layer

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// WindowsTree makes Windows layers of trees that know nothing of Windows: of
// files as a Linux machine or a plain tar file has them. The zero value makes
// a layer without any below it.
//
// Names are put below Files, and so are hard links' targets. Directories that
// are missing are made up, Files and Hives first. Descriptors are inherited
// from the directory, as Windows does it for new files; that of Files, where
// lower layers do not tell, is what BuildKit and Buildah give to directories.
// Targets of symbolic links get backslashes. A link has the attribute of
// directories if it leads to one, of the tree or of lower layers, maybe through
// other links of the tree; links whose targets the tree has not shown before them come at the end, when it is known
// what they lead to. A directory should come before what is in it: a later entry
// for it is passed over.
//
// A file whose mode lets nobody write is readonly. What Windows has no place
// for is left out: owners, other modes, extended attributes. What a layer cannot tell at all (devices, fifos, opaque
// directories; names that Windows does not have, or not twice) is an error of
// class [errdefs.ErrInvalidArgument].
type WindowsTree struct {
	// Lower looks up a directory of the layers below, by its name in Windows
	// layers, in which case does not count; nil means that there is none. A
	// directory that lower layers have keeps their metadata, except for its
	// times if it is in the tree, too. No Lower: there are no layers below.
	Lower func(name string) *Entry

	// Time is that of directories that are made up; zero means that of the
	// first entry.
	Time time.Time
}

// Entries returns the entries of the Windows layer. Content stays where it is:
// if entries come from a Reader, it is read while the entry is current. An
// error ends the sequence.
func (t WindowsTree) Entries(entries iter.Seq2[*Entry, error]) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		m := &treeMaker{
			WindowsTree: t, tree: newNTTree(), descriptors: make(map[string][]byte),
			links: make(map[string]string), waits: make(map[string]struct{}),
		}
		m.yield = func(e *Entry) error {
			if !yield(e, nil) {
				return errStopped
			}
			return nil
		}
		if err := m.all(entries); err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

// errStopped says that nobody wants more entries.
var errStopped = errors.New("sequence is stopped")

// treeMaker is a WindowsTree at work.
type treeMaker struct {
	WindowsTree
	yield       func(*Entry) error
	tree        *ntTree
	links       map[string]string   // targets of the symbolic links so far, by upper-case name
	late        []*Entry            // links that wait for what they lead to
	waits       map[string]struct{} // their upper-case names
	begun       bool
	descriptors map[string][]byte // of the directories so far
	made        Descriptors
}

func (m *treeMaker) all(entries iter.Seq2[*Entry, error]) error {
	for e, err := range entries {
		if err != nil {
			return err
		}
		if err := m.entry(e); errors.Is(err, errStopped) {
			return err
		} else if err != nil {
			return &EntryError{"convert", e.Name, err}
		}
	}
	if err := m.begin(time.Unix(0, 0).UTC()); err != nil {
		return err
	}
	for _, w := range m.late {
		if err := m.finish(w); errors.Is(err, errStopped) {
			return err
		} else if err != nil {
			_, name := SplitPart(w.Name)
			return &EntryError{"convert", name, err}
		}
	}
	return nil
}

// entry gives an entry of the tree and what has to come before it.
func (m *treeMaker) entry(e *Entry) error {
	w := Entry{
		Name: string(FilesPart) + "/" + e.Name, Kind: e.Kind, Size: e.Size, Data: e.Data,
		ModTime: e.ModTime, AccessTime: e.AccessTime, ChangeTime: e.ChangeTime, NT: new(ntfs.Meta),
	}
	if w.ModTime.IsZero() {
		w.ModTime = time.Unix(0, 0).UTC()
	}
	w.ModTime = ntTime(w.ModTime)
	if err := m.begin(w.ModTime); err != nil || e.Name == "." && e.Kind == Dir {
		return err
	}
	if err := m.convert(&w, e); err != nil {
		return err
	}
	if err := m.tree.parents(w.Name, m.makeDir, m.refuse); err != nil {
		return err
	}
	if w.Kind == Whiteout {
		return m.yield(&w)
	}
	if s, ok := m.tree.find(w.Name); ok && s.implied && w.Kind == Dir {
		return nil // something in it came first
	}
	if err := m.tree.add(&w, m.refuse); err != nil {
		return err
	}
	if w.Kind == File && e.Mode != 0 && e.Mode&0o222 == 0 {
		w.NT.Attributes = ntfs.AttrReadonly
	}
	if m.mustWait(&w) {
		m.late = append(m.late, &w)
		m.waits[ntfs.Upcase(w.Name)] = struct{}{}
		return nil
	}
	return m.finish(&w)
}

// mustWait says whether it is not known yet what a link leads to. Other names of
// a link that waits do, too.
func (m *treeMaker) mustWait(w *Entry) bool {
	switch w.Kind {
	case Symlink:
		m.links[ntfs.Upcase(w.Name)] = w.Link
		_, known := m.leadsTo(w)
		return !known
	case Hardlink:
		_, waits := m.waits[ntfs.Upcase(w.Link)]
		return waits
	}
	return false
}

// finish gives an entry that has a name and a place.
func (m *treeMaker) finish(w *Entry) error {
	if err := m.describe(w); err != nil {
		return err
	}
	return m.yield(w)
}

// begin gives the entries for Files and Hives.
func (m *treeMaker) begin(at time.Time) error {
	if m.begun {
		return nil
	}
	m.begun = true
	if m.Time.IsZero() {
		m.Time = at
	}
	for _, p := range []Part{FilesPart, HivesPart} {
		if err := m.makeDir(string(p)); err != nil {
			return err
		}
		if err := m.tree.insert(string(p), Dir, m.refuse); err != nil {
			return err
		}
	}
	return nil
}

// refuse is the way of a layer that is being made with what others mend.
func (m *treeMaker) refuse(p Problem, format string, args ...any) error {
	return invalid("%s: "+format, append([]any{p}, args...)...)
}

// convert judges an entry and sets what depends on its kind.
func (m *treeMaker) convert(w, e *Entry) error {
	if e.NT != nil {
		return invalid("the entry is a Windows layer's already")
	}
	if err := checkNTName(w.Name); err != nil {
		return err
	}
	switch e.Kind {
	case Opaque, Stream:
		return invalid("a Windows layer cannot tell an entry of kind %s", e.Kind)
	case Whiteout:
		w.ModTime, w.AccessTime, w.ChangeTime = time.Time{}, time.Time{}, time.Time{}
		return nil
	case Symlink:
		w.Link = strings.ReplaceAll(e.Link, "/", `\`)
	case Hardlink:
		w.Link = string(FilesPart) + "/" + e.Link
		return checkNTLink(w)
	}
	return checkNTKind(w)
}

// describe sets an object's metadata.
func (m *treeMaker) describe(w *Entry) error {
	if w.AccessTime.IsZero() {
		w.AccessTime = w.ModTime
	}
	if w.ChangeTime.IsZero() {
		w.ChangeTime = w.ModTime
	}
	w.AccessTime, w.ChangeTime = ntTime(w.AccessTime), ntTime(w.ChangeTime)
	if w.Kind == Dir {
		if l := m.lower(w.Name); l != nil && l.NT.SecurityDescriptor != nil {
			*w.NT = *l.NT
			m.descriptors[w.Name] = w.NT.SecurityDescriptor
			return nil
		}
	}
	w.NT.CreationTime = w.ModTime
	dir := w.Kind == Dir
	switch w.Kind {
	case Dir:
		w.NT.Attributes = ntfs.AttrDirectory
	case Symlink:
		w.NT.Attributes = ntfs.AttrReparse
		if dir, _ = m.leadsTo(w); dir {
			w.NT.Attributes |= ntfs.AttrDirectory
		}
		var err error
		if w.NT.Reparse, err = encodeLink(ntfs.TagSymlink, w.Link); err != nil {
			return err
		}
	default:
		w.NT.Attributes |= ntfs.AttrArchive
	}
	if w.Kind == Hardlink {
		return nil // its object has a descriptor
	}
	sd, err := m.inherit(path.Dir(w.Name), dir)
	if err != nil {
		return err
	}
	w.NT.SecurityDescriptor = sd
	if w.Kind == Dir {
		m.descriptors[w.Name] = sd
	}
	return nil
}

// ntTime returns the nearest time to t that Windows has a number for, and no
// more of it than that number tells.
func ntTime(t time.Time) time.Time {
	t = inRange(t)
	return t.Add(-time.Duration(t.Nanosecond() % 100))
}

// maxLinks is how many symbolic links are followed before one leads nowhere.
const maxLinks = 40

// leadsTo says whether a symbolic link's target is a directory, and whether that
// is known: whether the tree has shown the target, or lower layers have such a
// directory. Other links on the way are followed as Windows does it: the target
// takes the place of the name up to the link, and ".." goes with the name before
// it, whatever that is, before anything is looked up.
func (m *treeMaker) leadsTo(w *Entry) (dir, known bool) {
	name := linked(w.Name, w.Link, "")
	for range maxLinks {
		link, ok := m.firstLink(name)
		if ok {
			name = linked(link, m.links[ntfs.Upcase(link)], name[len(link):])
			continue
		}
		if s, ok := m.tree.find(name); ok {
			return s.kind == Dir, true
		}
		dir = m.lower(name) != nil
		return dir, dir
	}
	return false, true
}

// firstLink returns the shortest part of a path that is a symbolic link of the
// tree. A hard link to one is not followed.
func (m *treeMaker) firstLink(name string) (link string, ok bool) {
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' {
			continue
		}
		if s, ok := m.tree.find(name[:i]); ok && s.kind == Symlink {
			return name[:i], true
		}
	}
	return "", false
}

// linked returns the path in the layer that rest leads to behind a symbolic link
// with a target: below Files, which is the drive.
func linked(link, target, rest string) string {
	target = strings.ReplaceAll(target, `\`, "/")
	if len(target) > 1 && target[1] == ':' && target[0]|0x20 == 'c' {
		target = target[2:]
	}
	if !strings.HasPrefix(target, "/") {
		_, in := SplitPart(path.Dir(link))
		target = "/" + in + "/" + target
	}
	return path.Clean(string(FilesPart) + path.Clean(target+"/"+rest))
}

// makeDir gives the entry of a directory that the tree lacks: that of the lower
// layers, if they have one.
func (m *treeMaker) makeDir(name string) error {
	w := Entry{Name: name, Kind: Dir, ModTime: m.Time, NT: new(ntfs.Meta)}
	if l := m.lower(name); l != nil {
		w.ModTime, w.AccessTime, w.ChangeTime = l.ModTime, l.AccessTime, l.ChangeTime
	}
	if err := m.describe(&w); err != nil {
		return err
	}
	return m.yield(&w)
}

func (m *treeMaker) lower(name string) *Entry {
	if m.Lower == nil {
		return nil
	}
	if e := m.Lower(name); e != nil && e.Kind == Dir && e.NT != nil {
		return e
	}
	return nil
}

// inherit returns the descriptor of a new object in a directory.
func (m *treeMaker) inherit(parent string, dir bool) ([]byte, error) {
	kind := ntfs.Leaf
	if dir {
		kind = ntfs.Container
	}
	sd, err := m.made.Inherit(m.descriptors[parent], kind) // Files and Hives themselves have none above
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", parent, err)
	}
	return sd, nil
}
