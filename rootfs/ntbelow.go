package rootfs

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// ntStacked are the layers below a scratch layer, open, the nearest first.
type ntStacked struct {
	roots []*inroot.Root
	attr  string // of Windows' metadata
	marks string // prefix of overlayfs's attributes
}

// openStacked opens the layers in dirs, which must all keep their metadata, as far as they have any, in the same attribute.
func openStacked(dirs []string) (*ntStacked, error) {
	roots, err := openRoots(dirs)
	if err != nil {
		return nil, err
	}
	p := &ntStacked{roots: roots}
	user, err := sameXattrs(recorded(roots))
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.attr, p.marks = ntAttrName(user), overlayTrusted
	if user {
		p.marks = overlayUser
	}
	return p, nil
}

func (p *ntStacked) close() error { return closeRoots(p.roots) }

// dir returns a directory of the stack by the name that it has in each layer, and nil if none has it.
func (p *ntStacked) dir(name string) (*ntBelow, error) {
	b := &ntBelow{parents: p}
	for _, root := range p.roots {
		d, err := root.OpenDir(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.dirs = append(b.dirs, ntLayerDir{d, root})
	}
	if len(b.dirs) == 0 {
		return nil, nil //nolint:nilnil // nothing is below
	}
	return b, nil
}

// isDir reports whether the stack has a directory of that very name. A link on the way is none.
func (p *ntStacked) isDir(name string) (bool, error) {
	first, rest, _ := strings.Cut(name, "/")
	b, err := p.dir(first)
	for last := range strings.SplitSeq(rest, "/") {
		if b == nil || err != nil || last == "" {
			break
		}
		var sub *ntBelow
		sub, err = b.enter(last)
		err = errors.Join(err, b.close())
		b = sub
	}
	is := b != nil
	return is && err == nil, errors.Join(err, b.close())
}

// ntBelow is a directory of the layers below as they stack: the same directory of each that has it, the nearest first.
type ntBelow struct {
	parents *ntStacked
	dirs    []ntLayerDir
	names   map[string]string // what shows, by upper case; nil until it is asked for
}

type ntLayerDir struct {
	*inroot.Dir
	layer *inroot.Root
}

func (b *ntBelow) close() error {
	if b == nil {
		return nil
	}
	var err error
	for _, d := range b.dirs {
		err = errors.Join(err, d.Close())
	}
	return err
}

// spell returns how the layers spell a name, "" if they have none of it.
func (b *ntBelow) spell(name string) (string, error) {
	if b == nil {
		return "", nil
	}
	if b.names == nil {
		// Names differ in more than case, so what has this spelling is all there is.
		if _, st, err := b.find(name); err != nil || st != nil {
			return name, err
		}
		if err := b.list(); err != nil {
			return "", err
		}
	}
	return b.names[ntfs.Upcase(name)], nil
}

// find returns the layer's directory that shows an object, by its very name, and what that is; nil if there is none.
func (b *ntBelow) find(name string) (*ntLayerDir, *sys.Stat, error) {
	if b == nil {
		return nil, nil, nil
	}
	for i := range b.dirs {
		st, err := b.dirs[i].Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || st.IsWhiteout() {
			return nil, nil, err
		}
		return &b.dirs[i], &st, nil
	}
	return nil, nil, nil
}

// list reads the names that show.
func (b *ntBelow) list() error {
	names := make(map[string]string)
	gone := make(map[string]struct{})
	for _, d := range b.dirs {
		all, err := d.Names()
		if err != nil {
			return err
		}
		for _, name := range all {
			key := ntfs.Upcase(name)
			if _, is := gone[key]; is || names[key] != "" {
				continue
			}
			st, err := d.Lstat(name)
			if err != nil {
				return err
			}
			if st.IsWhiteout() {
				gone[key] = struct{}{}
			} else {
				names[key] = name
			}
		}
	}
	b.names = names
	return nil
}

// all returns the names that show, ascending.
func (b *ntBelow) all() ([]string, error) {
	if b == nil {
		return nil, nil
	}
	if b.names == nil {
		if err := b.list(); err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Values(b.names)), nil
}

// enter returns a directory in this one by its very name, and nil if it is none. The caller closes it.
func (b *ntBelow) enter(name string) (sub *ntBelow, err error) {
	if b == nil {
		return nil, nil //nolint:nilnil // nothing is below
	}
	sub = &ntBelow{parents: b.parents}
	for _, d := range b.dirs {
		st, err := d.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, sub.close())
		}
		if !st.IsDir() {
			break
		}
		in, err := d.OpenDir(name)
		if err != nil {
			return nil, errors.Join(err, sub.close())
		}
		sub.dirs = append(sub.dirs, ntLayerDir{in, d.layer})
		if mark, err := in.Self().Xattr(b.parents.marks + "opaque"); err == nil && mark == "y" {
			break
		}
	}
	if len(sub.dirs) == 0 {
		return nil, nil //nolint:nilnil // it is no directory
	}
	return sub, nil
}

// entry returns the entry of the directory itself, with the metadata that the nearest layer has; nil if it has none.
func (b *ntBelow) entry(name string) (*layer.Entry, error) {
	d := b.dirs[0]
	attrs, err := d.Self().Xattrs()
	value, has := attrs[b.parents.attr]
	if err != nil || !has {
		return nil, err
	}
	e := ntEntry(name, d.Stat())
	return e, parseNTMeta([]byte(value), e, spillsOf(d.layer))
}
