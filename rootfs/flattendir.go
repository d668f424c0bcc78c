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
	n := d.nodes.peek(id)
	above, err := d.open(n.parent)
	if err != nil {
		return nil, err
	}
	defer above.release()
	dir, err := above.OpenDir(d.nodes.string(n.name))
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
	if err := f.manifest(namedNode{name: ".", record: f.nodes.peek(rootNode).record}, w.Write); err != nil {
		return err
	}
	if err := f.nodes.trim(); err != nil {
		return err
	}
	return w.Close(done)
}

func (f *flattener) finishDir(id int32, d *inroot.Dir) error {
	for c := f.nodes.peek(id).child; c != rootNode; c = f.nodes.peek(c).next {
		if err := f.nodes.trim(); err != nil {
			return err
		}
		if err := f.finishNode(c, d); err != nil {
			return entryError(f.nodes.path(c), err)
		}
	}
	return f.describeDir(id, d)
}

// finishNode is for what is in the directory d.
func (f *flattener) finishNode(id int32, d *inroot.Dir) error {
	n := f.nodes.peek(id)
	switch {
	case n.kind == aDir:
		return inDir(d, f.nodes.string(n.name), func(below *inroot.Dir) error { return f.finishDir(id, below) })
	case n.kind == aThing && n.record != 0 && f.nodes.records.Get(int(n.record)).linked:
		st, err := d.Lstat(f.nodes.string(n.name))
		if err == nil {
			f.nodes.record(&n).take(&st)
		}
		return err
	}
	return nil
}

// describeDir sets what differs from what the directory got by being made.
func (f *flattener) describeDir(id int32, d *inroot.Dir) error {
	var m dirMeta
	n := f.nodes.at(id)
	switch {
	case n.meta != 0:
		m.entry = f.nodes.described(n)
	case id == rootNode:
		m.atime, m.mtime = d.Stat().ATime, d.Stat().MTime
	default:
		m.entry = f.ids.impliedDir(f.nodes.string(n.name))
	}
	err := f.owner.describeDir(d, &m)
	if err != nil || f.opts.Mtree == nil {
		return err
	}
	st, err := d.Self().Stat()
	if err != nil {
		return err
	}
	attrs, err := f.owner.readXattrs(m.entry, d.Self())
	r := f.nodes.records.At(int(f.nodes.newRecord(n)))
	r.take(&st)
	r.more = f.nodes.keepAttrs(attrs)
	return err
}

// manifest gives write what the tree holds.
func (f *flattener) manifest(dir namedNode, write func(*mtree.Entry) error) error {
	if err := write(f.nodes.inManifest(dir)); err != nil {
		return err
	}
	for c := range f.nodes.children(dir.id, aThing) {
		if err := f.nodes.trim(); err != nil {
			return err
		}
		c.name = below(dir.name, c.name)
		e := f.nodes.inManifest(c)
		if e == nil {
			continue // a device that may not be made
		}
		if err := write(e); err != nil {
			return err
		}
	}
	for c := range f.nodes.children(dir.id, aDir) {
		if err := f.nodes.trim(); err != nil {
			return err
		}
		c.name = below(dir.name, c.name)
		if err := f.manifest(c, write); err != nil {
			return err
		}
	}
	return nil
}

func below(dir, last string) string {
	if dir == "." {
		return last
	}
	return dir + "/" + last
}
