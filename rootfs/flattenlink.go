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
	if s := f.hidden[e.Link]; s != nil {
		return f.unhide(id, s)
	}
	target := f.nodes.add(p.id, last)
	t := f.nodes.at(target)
	switch {
	case t.kind == aThing && t.layer == f.at && f.wants[target] != "":
		f.want(id, f.wants[target])
	case t.kind == aThing && t.layer == f.at:
		f.links = append(f.links, link{target, id})
	case t.kind == aDir || t.passed || t.dirAt == f.at || t.whited == f.at:
		return errNotFlat // an error, which says more if the layers are applied in order
	default:
		f.want(id, e.Link)
	}
	return nil
}

func (f *flattener) want(id int32, target string) {
	f.wants[id] = target
	f.wanted[target] = append(f.wanted[target], want{f.at, id})
}

// alias is what is known of a hard link's target that is itself hidden.
func (f *flattener) alias(target string) *stashed {
	if s := f.hidden[target]; s != nil {
		return s
	}
	return new(stashed)
}

// unhide gives the node what is hidden under another name.
func (f *flattener) unhide(id int32, s *stashed) error {
	switch {
	case s.node != 0:
		f.links = append(f.links, link{s.node, id})
		return nil
	case s.entry == nil:
		return errNotFlat
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
	for _, w := range f.wanted[name] {
		if w.layer > f.at {
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
	if s := f.hidden[name]; s != nil {
		return f.unhide(to, s)
	}
	parent, last := cut(name)
	p, err := f.enter(parent)
	if err != nil {
		return err
	}
	id := f.nodes.add(p.id, last)
	n := f.nodes.at(id)
	switch {
	case n.kind != aThing || n.layer != f.at:
		return errNotFlat
	case f.wants[id] != "":
		f.want(to, f.wants[id])
	default:
		f.links = append(f.links, link{id, to})
	}
	return nil
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
	if err := fromDir.Link(from.name, toDir.Dir, to.name); err != nil {
		return err
	}
	if to.record = from.record; to.record != nil {
		to.record.linked = true
	}
	return nil
}
