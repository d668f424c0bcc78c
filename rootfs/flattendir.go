package rootfs

import (
	"container/list"
	"sync/atomic"
	"time"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/mtree"
)

// openDir is an open directory with a count of those who use it.
type openDir struct {
	*inroot.Dir
	id   int32
	refs atomic.Int32
}

// release ends one use. That closing a directory which was only read fails means nothing.
func (d *openDir) release() {
	if d.refs.Add(-1) == 0 {
		_ = d.Close()
	}
}

// openDirs keeps the directories open that were used last.
type openDirs struct {
	nodes  *nodeTable
	root   *openDir
	byID   map[int32]*list.Element
	recent *list.List // of *openDir, most recently used first
}

func newOpenDirs(nodes *nodeTable, root *inroot.Dir) *openDirs {
	d := &openDirs{
		nodes: nodes, root: &openDir{Dir: root, id: rootNode}, byID: make(map[int32]*list.Element), recent: list.New(),
	}
	d.root.refs.Store(1)
	return d
}

// open returns a directory that was made. The caller releases it.
func (d *openDirs) open(id int32) (*openDir, error) {
	if id == rootNode {
		d.root.refs.Add(1)
		return d.root, nil
	}
	if element := d.byID[id]; element != nil {
		d.recent.MoveToFront(element)
		h := element.Value.(*openDir)
		h.refs.Add(1)
		return h, nil
	}
	n := d.nodes.at(id)
	above, err := d.open(n.parent)
	if err != nil {
		return nil, err
	}
	defer above.release()
	dir, err := above.OpenDir(n.name)
	if err != nil {
		return nil, err
	}
	h := &openDir{Dir: dir, id: id}
	h.refs.Store(2)
	d.byID[id] = d.recent.PushFront(h)
	if d.recent.Len() > maxDirs {
		d.forget(d.recent.Back())
	}
	return h, nil
}

func (d *openDirs) forget(element *list.Element) {
	h := d.recent.Remove(element).(*openDir)
	delete(d.byID, h.id)
	h.release()
}

func (d *openDirs) close() error {
	for d.recent.Len() > 0 {
		d.forget(d.recent.Back())
	}
	return d.root.Close()
}

// finish gives directories their metadata, from the leaves to the root, and writes the manifest.
func (f *flattener) finish(top *inroot.Dir) error {
	for d := f.dirs; d.recent.Len() > 0; {
		d.forget(d.recent.Back())
	}
	if err := f.finishDir(rootNode, top); err != nil {
		return err
	}
	if f.opts.Mtree == nil {
		return nil
	}
	done := time.Now()
	w := newManifest(f.opts.Mtree)
	if err := f.manifest(rootNode, ".", w.Write); err != nil {
		return err
	}
	return w.Close(done)
}

func (f *flattener) finishDir(id int32, d *inroot.Dir) error {
	n := f.nodes.at(id)
	for c := n.child; c != rootNode; c = f.nodes.at(c).next {
		sub := f.nodes.at(c)
		switch {
		case sub.kind == aDir:
			err := inDir(d, sub.name, func(below *inroot.Dir) error { return f.finishDir(c, below) })
			if err != nil {
				return entryError(f.nodes.path(c), err)
			}
		case sub.kind == aThing && sub.record != nil && sub.record.linked:
			st, err := d.Lstat(sub.name)
			if err != nil {
				return entryError(f.nodes.path(c), err)
			}
			sub.record.take(&st)
		}
	}
	return f.describeDir(id, n, d)
}

// describeDir sets what differs from what the directory got by being made.
func (f *flattener) describeDir(id int32, n *node, d *inroot.Dir) error {
	var m dirMeta
	switch {
	case n.meta != nil:
		m.entry = n.meta.entry(n.name)
	case id == rootNode:
		m.atime, m.mtime = d.Stat().ATime, d.Stat().MTime
	default:
		m.entry = f.ids.impliedDir(n.name)
	}
	err := f.owner.describeDir(d, &m)
	if err != nil || f.opts.Mtree == nil {
		return err
	}
	st, err := d.Self().Stat()
	if err != nil {
		return err
	}
	n.record = new(record)
	n.record.take(&st)
	attrs, err := f.owner.readXattrs(m.entry, d.Self())
	n.record.setXattrs(attrs)
	return err
}

// manifest gives write what the tree holds.
func (f *flattener) manifest(id int32, name string, write func(*mtree.Entry) error) error {
	n := f.nodes.at(id)
	if err := write(n.record.entry(name)); err != nil {
		return err
	}
	things, dirs := f.nodes.children(id)
	for _, c := range things {
		sub := f.nodes.at(c)
		if sub.record == nil || !sub.record.there {
			continue // a device that may not be made
		}
		if err := write(sub.record.entry(sub.below(name))); err != nil {
			return err
		}
	}
	for _, c := range dirs {
		if err := f.manifest(c, f.nodes.at(c).below(name), write); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) below(dir string) string {
	if dir == "." {
		return n.name
	}
	return dir + "/" + n.name
}
