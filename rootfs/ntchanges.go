package rootfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/ntfs"
)

// NTTree is a tree of a layer's Files in which something may have been changed, apart from the layer directory that has all
// else of the layer: how its registry hives were, and metadata that is too big for an attribute.
type NTTree struct {
	Files string // the tree
	Layer string // the directory with the layer's other parts

	Links LinkPolicy
	Unfit UnfitPolicy
	Warn  func(error) // is told of every object that is left out; nil: nobody is
}

// EmitChanges reads changed objects of the tree as a Windows layer, as NTScratch.Diff does for what was written over layers:
// in its order, with the directories above each change, and with the rules that are told there. changes are those of the
// function Changes. Without any there are no entries.
func (t NTTree) EmitChanges(ctx context.Context, changes []Change, emit Emit) (err error) {
	if len(changes) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("read changes in %s: %w", t.Files, err)
		}
	}()
	s := NTScratch{Upper: t.Files, Parents: []string{t.Layer}, Links: t.Links, Unfit: t.Unfit, Warn: t.Warn}
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	d.emit = emit
	return d.named(func() error { return d.changed(ntChangesOf(changes)) })
}

// ntChanges are the changes in a directory.
type ntChanges struct {
	kind ChangeKind
	has  bool // the object itself has changed, and not only what is in it
	in   map[string]*ntChanges
}

func ntChangesOf(changes []Change) *ntChanges {
	top := &ntChanges{kind: Modified}
	for _, c := range changes {
		n := top
		for part := range strings.SplitSeq(c.Name, "/") {
			if part == "." {
				continue
			}
			if n.in == nil {
				n.in = make(map[string]*ntChanges)
			}
			if n.in[part] == nil {
				n.in[part] = &ntChanges{kind: Modified}
			}
			n = n.in[part]
		}
		n.kind, n.has = c.Kind, true
	}
	return top
}

// changed emits the changes of the whole tree.
func (d *ntDiffer) changed(c *ntChanges) error {
	d.name = filesPart
	top, err := d.upper.OpenDir(".")
	if err != nil {
		return err
	}
	p := &ntPlace{Dir: top, name: filesPart}
	if p.attrs, err = top.Self().Xattrs(); err == nil {
		err = d.changedDir(p, nil, c)
	}
	if err == nil {
		err = d.hives.emit(d, p.entry)
	}
	return errors.Join(err, top.Close())
}

// changedDir emits a directory and the changes in it.
func (d *ntDiffer) changedDir(p *ntPlace, above []byte, c *ntChanges) error {
	fit, err := d.place(p, above)
	if err != nil || !fit {
		return err
	}
	shown, err := p.Names()
	if err != nil {
		return err
	}
	known, err := d.shown(p, shown, c)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(c.in))
	for _, last := range names {
		if _, replaced := known[ntfs.Upcase(last)]; c.in[last].kind == Deleted && !replaced {
			if err := d.whiteout(path.Join(p.name, last)); err != nil {
				return err
			}
		}
	}
	for _, last := range names {
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		if c.in[last].kind == Deleted || p.name == filesPart && isRecycleBin(last) {
			continue
		}
		if err := d.changedObject(p, last, c.in[last]); err != nil {
			return err
		}
	}
	return nil
}

// shown returns the names in a directory by upper case, none twice.
func (d *ntDiffer) shown(p *ntPlace, names []string, c *ntChanges) (map[string]string, error) {
	known := make(map[string]string, len(names))
	for _, last := range names {
		key := ntfs.Upcase(last)
		other, twice := known[key]
		if twice && (c.in[last] != nil || c.in[other] != nil) {
			d.name = path.Join(p.name, last)
			return nil, twoCases(other)
		}
		known[key] = last
	}
	return known, nil
}

func (d *ntDiffer) changedObject(p *ntPlace, last string, c *ntChanges) error {
	d.name = path.Join(p.name, last)
	st, err := p.Lstat(last)
	if err != nil {
		return err
	}
	if st.Type() != sys.ModeDir {
		o := &ntChange{last: last, st: st}
		if c.has && c.kind == Modified {
			o.below = last
		}
		return d.object(p, o)
	}
	return inDir(p.Dir, last, func(dir *inroot.Dir) (err error) {
		sub := &ntPlace{Dir: dir, name: d.name}
		if sub.attrs, err = dir.Self().Xattrs(); err != nil {
			return err
		}
		return d.changedDir(sub, p.entry.NT.SecurityDescriptor, c)
	})
}
