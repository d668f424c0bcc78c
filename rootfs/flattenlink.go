package rootfs

import (
	"errors"
	"io/fs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// hardlink makes id another name of what the link says: something of this layer, seen or hidden, or of a lower one.
func (f *flattener) hardlink(id int32, e *layer.Entry) error {
	if e.Link == "." || e.Link == e.Name {
		return errNotFlat
	}
	parent, last := cut(e.Link)
	p, err := f.enter(parent)
	if err != nil {
		return err
	}
	target := f.nodes.add(p.id, last)
	t := f.nodes.at(target)
	switch {
	case t.hiddenAt == f.at:
		return f.unhide(id, f.hidden[target])
	case t.kind == aThing && t.layer == f.at && f.wants[target] != "":
		return f.want(id, f.wants[target])
	case t.kind == aThing && t.layer == f.at:
		return f.link(target, id)
	case t.kind == aDir || t.passed || t.dirAt == f.at || t.whited == f.at:
		return errNotFlat // an error, which says more if the layers are applied in order
	default:
		return f.want(id, e.Link)
	}
}

// link has a hard link made. Not too many wait.
func (f *flattener) link(from, to int32) error {
	f.links = append(f.links, link{from, to})
	if len(f.links) < maxLinked {
		return nil
	}
	return f.makeLinks()
}

func (f *flattener) want(id int32, target string) error {
	if f.spare -= len(target) + wantEntry; f.spare < 0 {
		return errNotFlat
	}
	f.wants[id] = target
	f.wanted[target] = append(f.wanted[target], want{layer: f.at, to: id})
	return nil
}

// alias makes a hidden name, which is a hard link, one of what its target is, if that is hidden, too, and was kept.
func (f *flattener) alias(id int32, target string) {
	from, ok := f.nodes.lookup(target)
	if !ok || f.nodes.at(from).hiddenAt != f.at || len(f.hidden) == maxHidden {
		return
	}
	if s := f.hidden[from]; s != nil {
		f.hidden[id] = s
	}
}

// unhide gives the node what is hidden under another name, which is nil if it was not kept.
func (f *flattener) unhide(id int32, s *stashed) error {
	switch {
	case s == nil || s.entry == nil:
		return errNotFlat
	case s.node != 0:
		return f.link(s.node, id)
	}
	s.node, f.given[id] = id, s
	e := *s.entry
	data := s.data
	if e.Kind == layer.File && data == nil {
		data = []byte{}
	}
	return f.put(id, &e, data)
}

func (f *flattener) noteBrought(name string) {
	for i := range f.wanted[name] {
		w := &f.wanted[name][i]
		if w.noted {
			return
		}
		if w.layer > f.at {
			w.noted = true
			f.brings = append(f.brings, name)
			return
		}
	}
}

// fulfil makes the links of upper layers to what this layer brings, as it is at its end.
func (f *flattener) fulfil() error {
	for _, name := range f.brings {
		wants := f.wanted[name]
		delete(f.wanted, name)
		var later []want
		for _, w := range wants {
			if w.layer <= f.at {
				later = append(later, w)
				continue
			}
			delete(f.wants, w.to)
			if err := f.fulfilOne(name, w.to); err != nil {
				return err
			}
		}
		if later != nil {
			f.wanted[name] = later
		}
	}
	return nil
}

func (f *flattener) fulfilOne(name string, to int32) error {
	parent, last := cut(name)
	p, err := f.enter(parent)
	if err != nil {
		return err
	}
	id := f.nodes.add(p.id, last)
	n := f.nodes.at(id)
	switch {
	case n.hiddenAt == f.at:
		return f.unhide(to, f.hidden[id])
	case n.kind != aThing || n.layer != f.at:
		return errNotFlat
	case f.wants[id] != "":
		return f.want(to, f.wants[id])
	default:
		return f.link(id, to)
	}
}

// makeLinks makes the hard links that wait. What they lead to is complete then.
func (f *flattener) makeLinks() error {
	if len(f.links) == 0 {
		return nil
	}
	if err := f.pool.settle(); err != nil {
		return err
	}
	for _, l := range f.links {
		if err := f.nodes.trim(); err != nil {
			return err
		}
		if err := f.makeLink(l); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, sys.ErrNotPermitted) {
				return errNotFlat // as one of a device that was left out
			}
			return entryError(f.nodes.path(l.to), err)
		}
	}
	f.links = f.links[:0]
	return nil
}

func (f *flattener) makeLink(l link) error {
	from, to := f.nodes.at(l.from), f.nodes.at(l.to)
	fromDir, err := f.dirs.open(from.parent)
	if err != nil {
		return err
	}
	defer fromDir.release()
	toDir, err := f.dirs.open(to.parent)
	if err != nil {
		return err
	}
	defer toDir.release()
	if err := fromDir.Link(f.nodes.string(from.name), toDir.Dir, f.nodes.string(to.name)); err != nil {
		return err
	}
	to.record = from.record
	if r := f.nodes.record(to); r != nil {
		r.linked = true
	}
	return nil
}
