package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// flattener merges layers from the top into a fresh tree, so that every path is written once. It keeps a table of all names
// that have a meaning so far, so that it never asks the kernel what is there.
//
// Layers that were applied in order could lead through symbolic links that others bring. Whatever might make that
// difference ends with errNotFlat: something that is no directory where an entry of the same layer or one above it passed
// through without making sure, by an entry for that directory before, that it is one. So do hard links and whiteouts whose
// meaning depends on more than the table holds. Then the caller starts again, in order.
type flattener struct {
	opts   TreeOptions
	layers []LayerBlob
	nodes  *nodeTable
	dirs   *openDirs
	pool   *creators
	owner  ownership
	ids    idMapper
	stats  TreeStats

	at     int32 // the layer that is being read
	r      *layer.Reader
	place  place              // the last one that was entered
	hidden map[int32]*stashed // what nodes would have if nothing hid it, if that was kept
	stash  int64              // bytes that hidden may still keep
	given  map[int32]*stashed // what nodes have of it
	links  []link
	wants  map[int32]string // what nodes are links to, until a lower layer brings that
	wanted map[string][]want
	spare  int      // bytes that wants may still take
	brings []string // names of wanted that the layer brings
}

// place is a directory as the current layer sees it.
type place struct {
	name   string
	id     int32
	hidden bool  // what the layer has in it is hidden by layers above
	shown  int32 // the directory itself, or the next one above it that is not hidden
}

// link is a hard link to be made.
type link struct{ from, to int32 }

// want is a hard link to what a layer below that of the link has to bring.
type want struct {
	layer int32
	to    int32
	noted bool // in brings
}

// stashed is what the current layer has and upper ones hide, in case that a hard link wants it. Hidden names of one object
// share it.
type stashed struct {
	entry *layer.Entry // nil: it is gone
	data  []byte
	node  int32 // that it was given to; 0 if none
}

// What may wait in memory at once.
const (
	stashBytes = 4 << 20
	stashFile  = 1 << 20 // the largest that is kept
	stashEntry = 1 << 10 // what an entry is taken to cost
	maxHidden  = 8 << 10
	maxLinked  = 16 << 10
	wantBytes  = 4 << 20
	wantEntry  = 128
)

// flatten unpacks the layers from the top.
func flatten(ctx context.Context, root *inroot.Root, layers []LayerBlob, opts TreeOptions, create spillFile) (TreeStats, error) {
	top, err := root.OpenDir(".")
	if err != nil {
		return TreeStats{}, err
	}
	f := &flattener{
		opts: opts, layers: layers, nodes: newNodeTable(create, opts.Memory),
		owner:  newOwnership(ApplyOptions{Owner: opts.Owner}),
		ids:    newIDMapper(opts.UIDs, opts.GIDs, opts.Rootless),
		wants:  make(map[int32]string),
		wanted: make(map[string][]want),
		spare:  wantBytes,
	}
	f.dirs = newOpenDirs(f.nodes, top)
	stats, err := f.run(ctx, top)
	return stats, errors.Join(err, f.dirs.close(), f.nodes.close())
}

func (f *flattener) run(ctx context.Context, top *inroot.Dir) (TreeStats, error) {
	if err := f.owner.probe(top, OverlayUpper); err != nil {
		return TreeStats{}, err
	}
	attrs, err := top.Self().Xattrs()
	if err != nil {
		return TreeStats{}, err
	}
	f.pool = newCreators(f.opts.Writers, f.create)
	f.pool.made, f.pool.strangeXattrs = f.keepRecord, len(attrs) > 0
	err = f.all(ctx)
	if poolErr := f.pool.close(); err == nil || f.pool.failed.Load() {
		err = poolErr
	}
	if err == nil {
		err = f.finish(top)
	}
	return f.stats, err
}

func (f *flattener) all(ctx context.Context) error {
	ahead := newAhead(ctx, f.layers, f.opts.Limits)
	defer ahead.close()
	for i := len(f.layers) - 1; i >= 0; i-- {
		if err := f.layer(ctx, int32(i), ahead); err != nil {
			if errors.Is(err, errNotFlat) {
				return errNotFlat
			}
			return inLayer(i, err)
		}
	}
	if len(f.wanted) > 0 {
		return errNotFlat
	}
	return nil
}

func (f *flattener) layer(ctx context.Context, i int32, ahead *ahead) (err error) {
	o, err := ahead.take(int(i))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	f.at, f.r = i, o.Reader
	f.place = place{name: ".", id: rootNode, hidden: f.nodes.at(rootNode).opaque > i, shown: rootNode}
	f.hidden, f.stash, f.brings = make(map[int32]*stashed), stashBytes, nil
	f.given = make(map[int32]*stashed)
	if err := f.entries(ctx, o.Reader); err != nil {
		return err
	}
	if err := f.fulfil(); err != nil {
		return err
	}
	if err := f.makeLinks(); err != nil {
		return err
	}
	return o.check()
}

// progressStep is after how many entries progress is told.
const progressStep = 1024

func (f *flattener) entries(ctx context.Context, r *layer.Reader) error {
	for n := int64(1); ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := f.nodes.trim(); err != nil {
			return err
		}
		e, err := r.Next()
		if err == io.EOF {
			if f.opts.Progress != nil {
				f.opts.Progress(int(f.at), n-1)
			}
			return nil
		}
		if err != nil {
			return err
		}
		f.stats.Entries++
		err = f.ids.toHost(e)
		if err == nil {
			err = f.entry(e)
		}
		if err != nil {
			if errors.Is(err, errNotFlat) {
				return errNotFlat
			}
			return entryError(e.Name, err)
		}
		if f.pool.failed.Load() {
			return errStopped
		}
		if f.opts.Progress != nil && n%progressStep == 0 {
			f.opts.Progress(int(f.at), n)
		}
	}
}

// errStopped ends the reading when a writer failed, whose error is the one that counts.
var errStopped = errors.New("stopped")

func (f *flattener) entry(e *layer.Entry) error {
	switch e.Kind {
	case layer.Whiteout:
		return f.whiteout(e)
	case layer.Opaque:
		return f.opaque(e)
	case layer.Dir:
		return f.dir(e)
	}
	if e.Name == "." {
		return fmt.Errorf("the root is a %v, not a directory: %w", e.Kind, errdefs.ErrInvalidArgument)
	}
	if e.Kind == layer.CharDevice && e.Major == 0 && e.Minor == 0 {
		return nil // as plainTree.whiteoutDevice says
	}
	if e.Kind > layer.Fifo {
		return fmt.Errorf("unknown %v: %w", e.Kind, errdefs.ErrInvalidArgument)
	}
	return f.object(e)
}

// enter finds the directory called name, for something in it.
func (f *flattener) enter(name string) (place, error) {
	if name == f.place.name {
		return f.place, nil
	}
	if name == "." {
		return place{name: ".", id: rootNode, hidden: f.nodes.at(rootNode).opaque > f.at, shown: rootNode}, nil
	}
	parent, last := cut(name)
	above, err := f.enter(parent)
	if err != nil {
		return place{}, err
	}
	id := f.nodes.add(above.id, last)
	n := f.nodes.at(id)
	if n.dirAt != f.at && n.passedAt != f.at {
		if n.hiddenAt == f.at || n.kind == aThing && n.layer == f.at {
			return place{}, errNotFlat
		}
		n.passed, n.passedAt = true, f.at
	}
	f.place = place{name, id, above.hidden || n.whited > f.at || n.kind == aThing, above.shown}
	if !f.place.hidden {
		f.place.shown = id
		f.place.hidden = n.opaque > f.at
	}
	return f.place, nil
}

// cut is split without a look at whether the name is clean.
func cut(name string) (parent, last string) {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[:i], name[i+1:]
		}
	}
	return ".", name
}

// whiteout hides what lower layers have of the name and below it.
func (f *flattener) whiteout(e *layer.Entry) error {
	parent, last := cut(e.Name)
	p, err := f.enter(parent)
	if err != nil {
		return err
	}
	id := f.nodes.add(p.id, last)
	n := f.nodes.at(id)
	if n.impliedIn(f.at) {
		return errNotFlat // it stays, with the metadata that lower layers give it
	}
	if n.whited < 0 {
		n.whited = f.at
	}
	return f.checkBelow(id)
}

// opaque hides what lower layers have below the name, but not the directory.
func (f *flattener) opaque(e *layer.Entry) error {
	p, err := f.enter(e.Name)
	if err != nil {
		return err
	}
	if n := f.nodes.at(p.id); n.opaque < 0 {
		n.opaque = f.at
	}
	return f.checkBelow(p.id)
}

// checkBelow makes sure that no directory below stays for the sake of something that the layer brought before. It would
// keep the metadata that lower layers give it.
func (f *flattener) checkBelow(id int32) error {
	for c := f.nodes.at(id).child; c != 0; c = f.nodes.at(c).next {
		if f.nodes.at(c).impliedIn(f.at) {
			return errNotFlat
		}
		if f.nodes.budget--; f.nodes.budget < 0 {
			return errNotFlat // whiteouts of the same large directory in every layer
		}
		if f.nodes.budget%nodeBlock == 0 {
			if err := f.nodes.trim(); err != nil {
				return err
			}
		}
		if err := f.checkBelow(c); err != nil {
			return err
		}
	}
	return nil
}

func (f *flattener) dir(e *layer.Entry) error {
	if e.Name == "." {
		f.stats.Root = true
		f.describe(f.nodes.at(rootNode), e)
		return nil
	}
	parent, last := cut(e.Name)
	p, err := f.enter(parent)
	if err != nil {
		return err
	}
	id := f.nodes.add(p.id, last)
	n := f.nodes.at(id)
	if n.hiddenAt == f.at || n.kind == aThing && n.layer == f.at || len(f.wanted[e.Name]) > 0 {
		return errNotFlat
	}
	n.dirAt = f.at
	if p.hidden || n.whited > f.at || n.kind == aThing {
		return f.makeDir(p.shown)
	}
	if err := f.makeDir(id); err != nil {
		return err
	}
	f.describe(n, e)
	return nil
}

// describe keeps what the directory is to look like, unless an upper layer knew.
func (f *flattener) describe(n *node, e *layer.Entry) {
	if n.meta == 0 || n.metaAt == f.at {
		f.nodes.describe(n, e)
		n.metaAt = f.at
	}
}

// makeDir makes a directory, and those that it is in, unless it is there.
func (f *flattener) makeDir(id int32) error {
	n := f.nodes.at(id)
	if n.kind == aDir {
		return nil
	}
	if err := f.makeDir(n.parent); err != nil {
		return err
	}
	h, err := f.dirs.open(n.parent)
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.Mkdir(f.nodes.string(n.name), 0o700); err != nil {
		return err
	}
	n.kind, n.layer = aDir, f.at
	return nil
}

// object deals with what is no directory.
func (f *flattener) object(e *layer.Entry) error {
	parent, last := cut(e.Name)
	p, err := f.enter(parent)
	if err != nil {
		return err
	}
	if err := f.makeDir(p.shown); err != nil {
		return err
	}
	id := f.nodes.add(p.id, last)
	n := f.nodes.at(id)
	if n.passed || n.dirAt == f.at {
		return errNotFlat
	}
	if f.opts.KeepDirlinks && n.dirAt > f.at && (e.Kind == layer.Symlink || e.Kind == layer.Hardlink) {
		return errNotFlat // the directory above, hidden or not, may have come out where a link leads
	}
	if n.kind == aDir {
		return f.underDir(id, n, e)
	}
	if hidden := p.hidden || n.whited > f.at; hidden || n.kind == aThing && n.layer > f.at {
		return f.hide(id, e, hidden)
	}
	if n.kind == aThing {
		if err := f.discard(id); err != nil {
			return err
		}
	}
	return f.bring(id, e)
}

// underDir hides what an upper layer has put a directory in the place of. That directory shows nothing of what is below it.
func (f *flattener) underDir(id int32, n *node, e *layer.Entry) error {
	if n.opaque < 0 {
		n.opaque = f.at
	}
	return f.hide(id, e, true)
}

// bring makes an object that nothing hides.
func (f *flattener) bring(id int32, e *layer.Entry) error {
	n := f.nodes.at(id)
	n.kind, n.layer = aThing, f.at
	if len(f.wanted) > 0 {
		f.noteBrought(e.Name)
	}
	if e.Kind == layer.Hardlink {
		return f.hardlink(id, e)
	}
	return f.put(id, e, nil)
}

// put has an object made: with the given content, or with what the reader gives.
func (f *flattener) put(id int32, e *layer.Entry, data []byte) error {
	h, err := f.dirs.open(f.nodes.at(id).parent)
	if err != nil {
		return err
	}
	n := f.nodes.at(id)
	j := creation{dir: h, name: f.nodes.string(n.name), entry: e, data: data}
	if f.opts.Mtree != nil {
		j.recordID = f.nodes.newRecord(n)
	}
	f.stats.Bytes += e.Size
	switch {
	case data != nil || e.Kind != layer.File || e.Size == 0:
		f.pool.add(j)
		return nil
	case e.Size <= smallFile && e.Data == nil:
		return f.pool.read(j, f.r)
	}
	defer h.release()
	if err := f.createLarge(&j); err != nil {
		return err
	}
	f.keepRecord(&j)
	return nil
}

// hide passes over an object, but keeps it for hard links if that is cheap. otherwise says that more than the object above
// it hides it.
func (f *flattener) hide(id int32, e *layer.Entry, otherwise bool) error {
	if len(f.wanted[e.Name]) > 0 {
		if otherwise {
			return errNotFlat
		}
		f.noteBrought(e.Name)
	}
	f.nodes.at(id).hiddenAt = f.at
	delete(f.hidden, id)
	if e.Kind == layer.Hardlink {
		f.alias(id, e.Link)
		return nil
	}
	cost := e.Size + stashEntry + weight(e)
	if e.Data != nil || e.Size > stashFile || cost > f.stash || len(f.hidden) == maxHidden {
		return nil
	}
	f.stash -= cost
	e.Forget() // the header's bytes
	s := &stashed{entry: e}
	f.hidden[id] = s
	if e.Kind == layer.File {
		s.data = make([]byte, e.Size)
		_, err := io.ReadFull(f.r, s.data)
		return err
	}
	return nil
}

// weight is how many bytes an entry has that few have.
func weight(e *layer.Entry) int64 {
	n := len(e.Name) + len(e.Link)
	for _, m := range []map[string]string{e.Xattrs, e.Records} {
		for k, v := range m {
			n += len(k) + len(v)
		}
	}
	return int64(n)
}

// discard removes what the layer itself brought under the name before.
func (f *flattener) discard(id int32) error {
	if f.wants[id] != "" {
		return errNotFlat
	}
	if err := f.makeLinks(); err != nil {
		return err
	}
	if err := f.pool.settle(); err != nil {
		return err
	}
	n := f.nodes.at(id)
	h, err := f.dirs.open(n.parent)
	if err != nil {
		return err
	}
	defer h.release()
	f.nodes.forgetRecord(n)
	if s := f.given[id]; s != nil {
		*s = stashed{} // which no name that is known has now
	}
	return h.RemoveAll(f.nodes.string(n.name)) // a device that may not be made is not there
}
