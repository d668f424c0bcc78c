package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// plainTree removes what whiteouts hide, except what the layer itself brought.
type plainTree struct {
	*applier
	brought *nameSet
}

func (p *plainTree) made(dir *dirHandle, last string) error {
	_, err := p.brought.add(nameID{dir.id, last})
	return err
}

// whiteoutDevice leaves the device out: a plain tree may become a lower directory one day.
func (p *plainTree) whiteoutDevice() error { return nil }

func (p *plainTree) replacedByDir(*dirHandle) error { return nil }

func (p *plainTree) fresh(objectID) {}

func (p *plainTree) finish() error { return nil }

func (p *plainTree) close() error { return p.brought.close() }

func (p *plainTree) whiteout(e *layer.Entry) error {
	parent, last, err := p.existing(e.Name)
	if err == nil {
		_, err = p.prune(parent, last)
	}
	return nothingThere(err)
}

func (p *plainTree) opaque(e *layer.Entry) error {
	h, err := p.lookup(e.Name)
	if err == nil {
		_, err = p.pruneBelow(h)
	}
	return nothingThere(err)
}

// prune removes last from dir, unless the layer brought it, or something below it. kept says that it is still there.
func (p *plainTree) prune(dir *dirHandle, last string) (kept bool, err error) {
	st, err := dir.Lstat(last)
	if err != nil {
		return false, err
	}
	kept = p.brought.has(nameID{dir.id, last})
	if st.IsDir() {
		sub, err := dir.OpenDir(last)
		if err != nil {
			return false, err
		}
		h := newDirHandle(sub, path.Join(dir.name, last))
		keptBelow, err := p.pruneBelow(h)
		if err := errors.Join(err, sub.Close()); err != nil {
			return false, err
		}
		if kept = kept || keptBelow; kept {
			p.noteExisting(h)
		}
	}
	if kept {
		return true, nil
	}
	if err := p.goneSoon(&st); err != nil {
		return false, err
	}
	return false, dir.RemoveAll(last)
}

func (p *plainTree) pruneBelow(dir *dirHandle) (kept bool, err error) {
	names, err := dir.Names()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		k, err := p.prune(dir, name)
		if err != nil {
			return false, err
		}
		kept = kept || k
	}
	return kept, nil
}

// nothingThere drops the errors of a whiteout that has nothing to remove.
func nothingThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, sys.ErrNotDir) || errors.Is(err, sys.ErrTooManyLinks) {
		return nil
	}
	return err
}

// overlayTree holds one layer alone, so that all that is there and no whiteout is what the layer brought.
type overlayTree struct {
	*applier
	marks   string                // prefix of overlayfs's attributes
	opaques map[objectID]struct{} // directories that hide lower layers
	holding map[objectID]struct{} // directories with whiteouts
}

func newOverlayTree(a *applier) *overlayTree {
	prefix := overlayTrusted
	if a.opts.UserXattr {
		prefix = overlayUser
	}
	return &overlayTree{
		applier: a, marks: prefix, opaques: make(map[objectID]struct{}), holding: make(map[objectID]struct{}),
	}
}

func (o *overlayTree) close() error { return nil }

func (o *overlayTree) made(*dirHandle, string) error { return nil }

func (o *overlayTree) whiteoutDevice() error {
	return fmt.Errorf("a character device 0:0 would be a whiteout: %w", errdefs.ErrInvalidArgument)
}

// replacedByDir makes the directory opaque. A whiteout hid what lower layers have of that name, or something else that was
// no directory would have: either way nothing of theirs is to show through now.
func (o *overlayTree) replacedByDir(h *dirHandle) error { return o.hideLower(h.Dir) }

func (o *overlayTree) hideLower(d *inroot.Dir) error {
	if err := d.Self().SetXattr(o.marks+"opaque", "y"); err != nil {
		return fmt.Errorf("mark directory as opaque: %w", err)
	}
	o.opaques[idOf(d.Stat())] = struct{}{}
	return nil
}

// whiteout makes a whiteout, unless the layer brought something of that name: that hides what lower layers have, but for
// the content of a directory.
func (o *overlayTree) whiteout(e *layer.Entry) error {
	parent, last, err := o.parent(e.Name)
	if err != nil {
		return err
	}
	if err = o.claim(parent, last); err != nil {
		return err
	}
	err = parent.Mknod(last, sys.ModeChar, 0, 0)
	if err == nil {
		o.stats.Whiteouts++
		return o.hold(parent)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := parent.Lstat(last)
	if err != nil || !st.IsDir() {
		return err
	}
	d, err := parent.OpenDir(last)
	if err != nil {
		return err
	}
	return errors.Join(o.hideLower(d), d.Close())
}

// fresh forgets what is known of a directory that is no more: a new one has got its number.
func (o *overlayTree) fresh(id objectID) {
	delete(o.opaques, id)
	delete(o.holding, id)
}

// hold marks a directory with whiteouts as one that was copied up from nobody knows where. Then overlayfs hides whiteouts
// also if it is in no other layer (ovl_check_origin_xattr and OVL_WHITEOUTS in fs/overlayfs): without the mark it would
// list them, as things that are not there.
func (o *overlayTree) hold(h *dirHandle) error {
	if _, done := o.holding[h.id]; done || h == o.dirs.root {
		return nil // overlayfs always looks for whiteouts in the root
	}
	o.holding[h.id] = struct{}{}
	if err := h.Self().SetXattr(o.marks+"origin", ""); err != nil {
		return fmt.Errorf("mark directory as one with whiteouts: %w", err)
	}
	return nil
}

func (o *overlayTree) opaque(e *layer.Entry) error {
	if e.Name == "." {
		// overlayfs merges the roots of its layers whatever they are marked with.
		o.stats.Opaque = true
		o.opaques[o.dirs.root.id] = struct{}{}
		return nil
	}
	h, err := o.directory(e.Name)
	if err != nil {
		return err
	}
	return o.hideLower(h.Dir)
}

// finish removes whiteouts below opaque directories. They hide nothing there, and overlayfs, which does not expect them in
// a directory that it need not merge, would list them.
func (o *overlayTree) finish() error {
	if o.stats.Whiteouts == 0 {
		return nil
	}
	for id := range o.opaques {
		name := o.meta[id].name
		d, err := o.root.OpenDir(name)
		if nothingThere(err) != nil {
			return entryError(name, err)
		}
		if err != nil {
			continue // replaced by a later entry
		}
		if idOf(d.Stat()) == id {
			err = o.removeWhiteouts(d)
		}
		if err := errors.Join(err, d.Close()); err != nil {
			return entryError(name, err)
		}
	}
	return nil
}

func (o *overlayTree) removeWhiteouts(dir *inroot.Dir) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := dir.Lstat(name)
		switch {
		case err != nil:
			return err
		case st.IsWhiteout():
			err = dir.Remove(name)
		case st.IsDir():
			err = o.removeWhiteoutsBelow(dir, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeWhiteoutsBelow removes the directory too, if it was only made to hold a whiteout.
func (o *overlayTree) removeWhiteoutsBelow(dir *inroot.Dir, name string) error {
	implied := false
	err := inDir(dir, name, func(sub *inroot.Dir) error {
		m := o.meta[idOf(sub.Stat())]
		implied = m != nil && m.implied
		return o.removeWhiteouts(sub)
	})
	if err != nil || !implied {
		return err
	}
	if err := dir.Remove(name); !errors.Is(err, sys.ErrNotEmpty) {
		return err
	}
	return nil
}

// inDir calls f with the directory name in dir.
func inDir(dir *inroot.Dir, name string, f func(*inroot.Dir) error) error {
	sub, err := dir.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(f(sub), sub.Close())
}
