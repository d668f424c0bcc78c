package rootfs

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/ntfs"
)

// ntNames spells names the way that they are spelled already: case does not count in Windows, but does on the disk. What
// the layer itself brought first decides after what the layers in roots have, nearest first. A whiteout's name counts, too:
// so whoever spelled a name first has spelled it for all layers.
type ntNames struct {
	roots   []*inroot.Root
	dirs    map[string]*ntNamesIn // by directory as spelled
	spelled map[string]string     // directories as spelled, by how entries call them

	last ntDir // that of the last name: entries come directory by directory
}

// ntNamesIn is what is known of a directory.
type ntNamesIn struct {
	names  map[string]string // by their upper case
	layers []*inroot.Root    // that have it, nearest first
}

// ntDir is a directory of ntNames.
type ntDir struct {
	called string // by entries; "" is none
	dir    string
	names  map[string]string
}

func newNTNames(roots []*inroot.Root) *ntNames {
	return &ntNames{
		roots:   roots,
		dirs:    make(map[string]*ntNamesIn),
		spelled: map[string]string{".": "."},
	}
}

// spell returns the name as it is spelled on the disk, and remembers it.
func (n *ntNames) spell(name string) (string, error) {
	parent, last := cut(name)
	if err := n.enter(parent); err != nil {
		return "", err
	}
	d := n.last
	key := ntfs.Upcase(last)
	if known, ok := d.names[key]; ok {
		return join(d.dir, known), nil
	}
	name = join(d.dir, last) // a copy: what comes of a header would keep all of it in memory
	spelled := name[len(name)-len(last):]
	if key == last {
		key = spelled
	}
	d.names[key] = spelled
	return name, nil
}

// enter makes parent the last directory.
func (n *ntNames) enter(parent string) error {
	if parent == n.last.called {
		return nil
	}
	dir, ok := n.spelled[parent]
	if !ok {
		var err error
		if dir, err = n.spell(parent); err != nil {
			return err
		}
		n.spelled[strings.Clone(parent)] = dir
	}
	in, err := n.in(dir)
	if err != nil {
		return err
	}
	n.last = ntDir{called: strings.Clone(parent), dir: dir, names: in.names}
	return nil
}

// join returns the name of last in dir, both clean, in memory of its own.
func join(dir, last string) string {
	if dir == "." {
		return strings.Clone(last)
	}
	return dir + "/" + last
}

// in returns what the layers have in a directory.
func (n *ntNames) in(dir string) (*ntNamesIn, error) {
	if in, ok := n.dirs[dir]; ok {
		return in, nil
	}
	in := &ntNamesIn{names: make(map[string]string)}
	var err error
	if in.layers, err = n.layersOf(dir); err != nil {
		return nil, err
	}
	for _, root := range in.layers {
		found, err := namesIn(root, dir)
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			key := ntfs.Upcase(name)
			if _, ok := in.names[key]; !ok {
				in.names[strings.Clone(key)] = name
			}
		}
	}
	n.dirs[dir] = in
	return in, nil
}

// layersOf returns the layers that have a directory, and no link to one or below one.
func (n *ntNames) layersOf(dir string) (layers []*inroot.Root, err error) {
	if dir == "." {
		return n.roots, nil
	}
	parent, _ := cut(dir)
	above, err := n.in(parent)
	if err != nil {
		return nil, err
	}
	for _, root := range above.layers {
		st, err := root.Lstat(dir)
		if err != nil && !isMissing(err) {
			return nil, err
		}
		if err == nil && st.IsDir() {
			layers = append(layers, root)
		}
	}
	return layers, nil
}

// namesIn returns the names in a directory, none if it is something else.
func namesIn(root *inroot.Root, name string) ([]string, error) {
	dir, err := root.OpenDir(name)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := dir.Names()
	return names, errors.Join(err, dir.Close())
}

// isMissing reports whether there is nothing of a name, or something else than a directory on the way.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
