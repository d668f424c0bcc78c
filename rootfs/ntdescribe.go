package rootfs

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// describeDir completes the entry of a directory; above is the descriptor of the one that it is in.
func (d *ntDiffer) describeDir(e *layer.Entry, p *ntPlace, above []byte) error {
	if value, has := p.attrs[d.parents.attr]; has {
		if err := parseNTMeta([]byte(value), e, spillsOf(d.parents.roots...)); err != nil {
			return err
		}
	} else if err := d.describeOldDir(e, p); err != nil {
		return err
	}
	if e.NT == nil {
		born, err := p.Self().Born()
		if err != nil {
			return err
		}
		if err := d.invent(e, above, ntfs.Container, born, p.Stat()); err != nil {
			return err
		}
	}
	e.NT.Attributes |= ntfs.AttrDirectory
	e.NT.Attributes &^= ntfs.AttrReparse | ntfs.AttrNormal
	e.NT.Reparse = nil
	fitTimes(e)
	return nil
}

// describeOldDir gives a directory that a layer below has, and that says nothing itself, what is told there.
func (d *ntDiffer) describeOldDir(e *layer.Entry, p *ntPlace) error {
	if !p.merged || p.below == nil {
		return nil
	}
	l, err := p.below.entry(p.name)
	if l != nil {
		e.NT, e.ChangeTime = l.NT, l.ChangeTime
	}
	return err
}

// describe completes the entry of a file or symbolic link in p.
func (d *ntDiffer) describe(e *layer.Entry, attrs map[string]string, p *ntPlace, o *ntChange) error {
	if value, has := attrs[d.parents.attr]; has {
		if err := parseNTMeta([]byte(value), e, spillsOf(d.parents.roots...)); err != nil {
			return err
		}
		if !ntfs.EqualFold(o.below, o.last) {
			e.NT.ShortName = "" // of the name that it had
		}
	} else if err := d.describeNew(e, p, o); err != nil {
		return err
	}
	fitTimes(e)
	if e.Kind == layer.Symlink {
		return d.describeLink(e, p, o)
	}
	m := e.NT
	m.Attributes &^= ntfs.AttrReparse | ntfs.AttrDirectory | ntfs.AttrReadonly
	if o.st.Mode&0o222 == 0 {
		m.Attributes = m.Attributes&^ntfs.AttrNormal | ntfs.AttrReadonly
	}
	m.Reparse = nil
	return nil
}

// describeNew gives metadata to what Linux made.
func (d *ntDiffer) describeNew(e *layer.Entry, p *ntPlace, o *ntChange) error {
	born, err := p.Born(o.last)
	if err != nil {
		return err
	}
	kind := ntfs.Leaf
	if e.Kind == layer.Symlink {
		isDir, err := d.leadsToDir(p, o)
		if err != nil {
			return err
		}
		if isDir {
			kind = ntfs.Container
		}
	}
	if err := d.invent(e, p.entry.NT.SecurityDescriptor, kind, born, &o.st); err != nil {
		return err
	}
	switch {
	case e.Kind == layer.File:
		e.NT.Attributes = ntfs.AttrArchive
	case kind == ntfs.Container:
		e.NT.Attributes = ntfs.AttrDirectory
	}
	return nil
}

// invent gives e what a new object in a directory with the descriptor above has.
func (d *ntDiffer) invent(e *layer.Entry, above []byte, kind ntfs.Kind, born time.Time, st *sys.Stat) error {
	sd, err := d.made.Inherit(above, kind)
	if err != nil {
		return err
	}
	e.NT = &ntfs.Meta{SecurityDescriptor: sd, CreationTime: born}
	e.ChangeTime = st.CTime
	return nil
}

// describeLink completes a symbolic link: its reparse buffer, where it has one, is the truth, as the link on the disk is only
// what Linux makes of it.
func (d *ntDiffer) describeLink(e *layer.Entry, p *ntPlace, o *ntChange) error {
	e.NT.Attributes |= ntfs.AttrReparse
	e.NT.Attributes &^= ntfs.AttrNormal
	if l, err := ntfs.ParseLink(e.NT.Reparse); err == nil {
		e.Link = l.Target()
		return nil
	}
	target, err := p.Readlink(o.last)
	if err != nil {
		return err
	}
	e.Link = strings.ReplaceAll(target, "/", `\`)
	e.NT.Reparse, err = ntfs.NewLink(ntfs.TagSymlink, e.Link).Append(nil)
	return err
}

// fitTimes brings an entry's times into the range and to the precision that Windows has. Something that was written last
// after its last change changed when it was written.
func fitTimes(e *layer.Entry) {
	if e.NT.CreationTime.IsZero() {
		e.NT.CreationTime = e.ModTime
	}
	if e.ChangeTime.Before(e.ModTime) {
		e.ChangeTime = e.ModTime
	}
	for _, t := range []*time.Time{&e.ModTime, &e.AccessTime, &e.ChangeTime, &e.NT.CreationTime} {
		*t = max(ntfs.FromTime(*t), 1).Time()
	}
}

// leadsToDir reports whether a symbolic link's target is a directory of the tree. A link on the way is none.
func (d *ntDiffer) leadsToDir(p *ntPlace, o *ntChange) (bool, error) {
	target, err := p.Readlink(o.last)
	if err != nil {
		return false, err
	}
	if !path.IsAbs(target) {
		target = path.Join("/", strings.TrimPrefix(p.name, filesPart), target)
	}
	return d.isDir(strings.TrimPrefix(path.Clean(target), "/"))
}

// isDir reports whether the tree shows a directory of a clean name, "" for the root. A link on the way is none.
func (d *ntDiffer) isDir(name string) (bool, error) {
	merged := true
	for end := range len(name) + 1 {
		if end < len(name) && name[end] != '/' || name == "" {
			continue
		}
		st, err := d.upper.Lstat(name[:end])
		if errors.Is(err, fs.ErrNotExist) {
			if !merged {
				return false, nil
			}
			return d.parents.isDir(path.Join(filesPart, name))
		}
		if err != nil || !st.IsDir() {
			return false, err
		}
		opaque, err := d.isOpaque(name[:end])
		if err != nil {
			return false, err
		}
		merged = merged && !opaque
	}
	return true, nil
}

// isOpaque reports whether a directory of the upper directory hides what is below.
func (d *ntDiffer) isOpaque(name string) (bool, error) {
	dir, err := d.upper.OpenDir(name)
	if err != nil {
		return false, err
	}
	mark, err := dir.Self().Xattr(d.parents.marks + "opaque")
	if errors.Is(err, sys.ErrNoXattr) {
		err = nil
	}
	return mark == "y", errors.Join(err, dir.Close())
}
