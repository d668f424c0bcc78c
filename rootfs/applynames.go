package rootfs

import (
	"path"
	"strings"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
)

// describeLater notes what a directory is to look like in the end.
func (a *applier) describeLater(id objectID, m *dirMeta) {
	if m.entry != nil {
		e := *m.entry
		e.Forget() // its header's bytes, which are kept together with others'
		m.entry = &e
	}
	a.meta[id] = m
	a.linked = append(a.linked, m)
}

// settleNames gives directories that were found through symbolic links the names that they have without: a later entry may
// replace such a link, or what is to be searched on the way may get its final mode before what lies below.
func (a *applier) settleNames() error {
	names := a.realNames()
	for _, m := range a.linked {
		name, err := names.of(m.name)
		if nothingThere(err) != nil {
			return entryError(m.name, err)
		}
		if err == nil { // else something else has taken its place
			m.name = name
		}
	}
	a.linked = a.linked[:0]
	return nil
}

func (a *applier) realName(name string) (string, error) {
	names := a.realNames()
	return names.of(name)
}

func (a *applier) realNames() realNames {
	return realNames{root: a.root, known: map[string]string{".": ".", "": "."}}
}

// realNames finds the names that directories of a tree have without symbolic links, as long as nothing in it changes.
type realNames struct {
	root  *inroot.Root
	known map[string]string
	links int // that may still be followed
}

func (r *realNames) of(name string) (string, error) {
	if known, ok := r.known[name]; ok {
		return known, nil
	}
	parent, last := cut(name)
	dir, err := r.of(parent)
	if err != nil {
		return "", err
	}
	r.links = maxLinks
	if dir, err = r.step(dir, last); err != nil {
		return "", err
	}
	r.known[name] = dir
	return dir, nil
}

// step goes from the directory dir to its part.
func (r *realNames) step(dir, part string) (string, error) {
	switch part {
	case "", ".":
		return dir, nil
	case "..":
		return path.Dir(dir), nil
	}
	name := path.Join(dir, part)
	st, err := r.root.Lstat(name)
	if err != nil || !st.IsSymlink() {
		return name, err
	}
	if r.links--; r.links < 0 {
		return "", sys.ErrTooManyLinks
	}
	target, err := r.root.Readlink(name)
	if err != nil {
		return "", err
	}
	if path.IsAbs(target) {
		dir = "."
	}
	for next := range strings.SplitSeq(target, "/") {
		if dir, err = r.step(dir, next); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// goneSoon prepares for the removal of a directory or symbolic link: names may lead elsewhere afterwards, so none is
// remembered. Directories in use stay open until the next entry.
func (a *applier) goneSoon(st *sys.Stat) error {
	if !st.IsDir() && !st.IsSymlink() {
		return nil
	}
	a.dirs.forgetAll()
	return a.settleNames()
}
