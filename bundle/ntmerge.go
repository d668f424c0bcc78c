package bundle

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// Reading says how the layers of a Windows image are read. The zero value
// mends what is malformed, and tells nobody.
type Reading struct {
	// Limits bound what each layer may cost.
	Limits layer.Limits
	// Strict refuses what is malformed but known, see [layer.ReadOptions].
	Strict bool
	// Warn, if not nil, is told of what is mended, and in which layer, the
	// base being 1.
	Warn func(layer int, w layer.Warning)
}

func (r Reading) layer(i int) layer.ReadOptions {
	o := layer.ReadOptions{Limits: r.Limits, Encoding: layer.NT, Strict: r.Strict}
	if r.Warn != nil {
		o.Warn = func(w layer.Warning) { r.Warn(i+1, w) }
	}
	return o
}

// again is for layers that were judged already.
func (r Reading) again() Reading { return Reading{Limits: r.Limits} }

const (
	maxHive      = 512 << 20 // bytes: SOFTWARE has 100 MB
	maxDirStream = 64 << 20  // bytes of all directories' alternate streams
)

// ntObject is what a name in a Windows image leads to: a file of one layer, or
// a symbolic link. Several names may lead to it.
type ntObject struct {
	layer int
	index int // of the entry in its layer
	names []string
}

// ntNode is a name in the tree that the layers of a Windows image add up to.
type ntNode struct {
	name     string             // its last component, as it is spelled
	layer    int                // that brought it, or something in it
	entry    *layer.Entry       // of a directory or a hard link; nil for others
	object   *ntObject          // nil for a directory
	children map[string]*ntNode // of a directory, by upper case
	streams  []ntStream         // of a directory
	written  bool
}

// ntStream is an alternate stream of a directory. They are small.
type ntStream struct {
	entry *layer.Entry
	data  []byte
}

// ntMerge adds the layers of a Windows image up, without what is in the files:
// it says which entry of which layer each name of the whole stands for. Names
// that differ in case alone are one, and spelled as by the first layer that had
// one of them, as [rootfs.ImportNT] spells them: also if it was removed in
// between. A directory that several layers have has the metadata of the last
// that has an entry of its own for it.
type ntMerge struct {
	root    *ntNode
	objects []map[int]*ntObject // by layer and index of its entry
	streams []map[int]*ntObject // whose an entry is that is an alternate stream
	hives   map[rootfs.HiveName][]ntDelta
	hasHive bool              // the base has Hives, as layers on top of others do
	spelled map[string]string // the last components of names that are gone, by name in upper case

	current  int
	entries  int
	removed  map[string]*ntNode // of lower layers by the current one, by name in upper case
	emptied  map[string]bool    // directories of which the current layer has taken all that lower ones have
	links    []*layer.Entry
	linked   map[string]bool // their names in upper case
	late     map[int]string  // alternate streams of hard links, by index: whose
	streamed int64           // bytes of directories' streams
}

// ntDelta is what a layer changes in a hive.
type ntDelta struct {
	layer int
	entry *layer.Entry
	data  []byte
}

func newNTMerge() *ntMerge {
	return &ntMerge{
		root:  &ntNode{children: make(map[string]*ntNode), written: true},
		hives: make(map[rootfs.HiveName][]ntDelta), spelled: make(map[string]string),
	}
}

// mergeNT reads the layers of a Windows image.
func mergeNT(ctx context.Context, layers []rootfs.LayerBlob, r Reading) (*ntMerge, error) {
	m := newNTMerge()
	for i, l := range layers {
		m.begin(i)
		err := readLayer(ctx, l, r.layer(i), m.add)
		if err == nil {
			err = m.end()
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return m, nil
}

func (m *ntMerge) begin(i int) {
	m.current, m.entries, m.removed, m.emptied = i, 0, make(map[string]*ntNode), make(map[string]bool)
	m.linked = make(map[string]bool)
	m.objects = append(m.objects, make(map[int]*ntObject))
	m.streams = append(m.streams, make(map[int]*ntObject))
}

func (m *ntMerge) add(e *layer.Entry, content *layer.Blob) error {
	index := m.entries
	m.entries++
	switch e.Kind {
	case layer.Whiteout:
		m.remove(e.Name)
		return nil
	case layer.Opaque:
		m.empty(e.Name)
		return nil
	case layer.Stream:
		return m.stream(e, content, index)
	case layer.Dir:
		m.dir(e)
		return nil
	case layer.Hardlink:
		m.links = append(m.links, e)
		m.linked[ntfs.Upcase(e.Name)] = true
		return nil
	}
	if hive := deltaOf(e); hive != "" {
		return m.delta(hive, e, content)
	}
	o := &ntObject{layer: m.current, index: index}
	m.objects[m.current][index] = o
	m.put(e.Name, &ntNode{object: o})
	return nil
}

// end makes the layer's hard links, whose targets may come late.
func (m *ntMerge) end() error {
	for _, e := range m.links {
		target := m.target(e.Link)
		if target == nil {
			return &layer.EntryError{Op: "merge", Name: e.Name, Err: invalid("find the hard link's target %q: %w", e.Link, errdefs.ErrNotFound)}
		}
		m.put(e.Name, &ntNode{object: target.object, entry: e})
	}
	for index, name := range m.late {
		m.streams[m.current][index] = m.find(name).object
	}
	m.links, m.late = nil, nil
	return nil
}

// target finds the file that a hard link leads to: the layer's own, or what
// lower layers have, also if this one removes it.
func (m *ntMerge) target(name string) *ntNode {
	now := m.find(name)
	if now != nil && now.object != nil && now.layer == m.current {
		return now
	}
	for above := name; above != "."; above = path.Dir(above) {
		if n := m.removed[ntfs.Upcase(above)].find(strings.TrimPrefix(name[len(above):], "/")); n != nil && n.object != nil {
			return n
		}
	}
	if now != nil && now.object != nil {
		return now
	}
	return nil
}

func (m *ntMerge) find(name string) *ntNode { return m.root.find(name) }

// find returns what name leads to from the node, nil if nothing.
func (n *ntNode) find(name string) *ntNode {
	for part := range strings.SplitSeq(name, "/") {
		if n == nil || part == "" || part == "." {
			return n
		}
		n = n.children[ntfs.Upcase(part)]
	}
	return n
}

// parent returns the directory that name is in. The reader has made sure that
// it was brought.
func (m *ntMerge) parent(name string) *ntNode {
	n := m.root
	for i := range len(name) {
		if name[i] == '/' {
			n = m.child(n, name[:i])
			n.layer = m.current
		}
	}
	return n
}

// child returns the directory called name in the directory n, which it makes if
// need be.
func (m *ntMerge) child(n *ntNode, name string) *ntNode {
	key := ntfs.Upcase(path.Base(name))
	c := n.children[key]
	if c == nil || c.children == nil {
		c = &ntNode{name: m.firstSpelling(c, name), children: make(map[string]*ntNode)}
		n.children[key] = c
	}
	return c
}

// firstSpelling returns the last component of a name as it was spelled first: was is
// what has the name, if anything.
func (m *ntMerge) firstSpelling(was *ntNode, name string) string {
	if was != nil {
		return was.name
	}
	if last, ok := m.spelled[ntfs.Upcase(name)]; ok {
		return last
	}
	return path.Base(name)
}

// forget notes how what is called name, and all in it, was spelled.
func (m *ntMerge) forget(name string, n *ntNode) {
	key := ntfs.Upcase(name)
	m.spelled[key] = n.name
	_ = n.walk(key, func(name string, c *ntNode) error {
		m.spelled[ntfs.Upcase(name)] = c.name
		return nil
	})
}

// put puts an object in its place, over what lower layers have there.
func (m *ntMerge) put(name string, n *ntNode) {
	parent, key := m.parent(name), ntfs.Upcase(path.Base(name))
	was := parent.children[key]
	m.keep(name, was)
	if was != nil && was.children != nil {
		m.forget(name, was)
	}
	n.name, n.layer = m.firstSpelling(was, name), m.current
	parent.children[key] = n
}

// keep remembers what lower layers have for hard links of this one.
func (m *ntMerge) keep(name string, n *ntNode) {
	key := ntfs.Upcase(name)
	if _, known := m.removed[key]; n == nil || known || n.layer == m.current && n.object != nil {
		return
	}
	m.removed[key] = n
}

// dir merges a directory.
func (m *ntMerge) dir(e *layer.Entry) {
	if e.Name == string(layer.HivesPart) && m.current == 0 && !e.Implied {
		m.hasHive = true
	}
	n := m.parent(e.Name).children[ntfs.Upcase(path.Base(e.Name))]
	if n == nil || n.children == nil {
		n = &ntNode{children: make(map[string]*ntNode)}
		m.put(e.Name, n)
	}
	n.layer = m.current
	if n.entry == nil || !e.Implied {
		e.Forget()
		n.entry, n.streams = e, nil
	}
}

// remove takes away what lower layers have at and below a name.
func (m *ntMerge) remove(name string) {
	parent := m.find(path.Dir(name))
	key := ntfs.Upcase(path.Base(name))
	if parent == nil || parent.children[key] == nil || m.removed[ntfs.Upcase(name)] != nil {
		return // after the first time nothing is left that could go
	}
	n := parent.children[key]
	m.forget(name, n)
	m.keep(name, n.copy())
	if !n.fade(m.current) {
		delete(parent.children, key)
	}
}

// empty takes away what lower layers have in a directory.
func (m *ntMerge) empty(name string) {
	n, key := m.find(name), ntfs.Upcase(name)
	if n == nil || m.emptied[key] {
		return
	}
	m.emptied[key] = true
	for last, c := range n.children {
		m.forget(name+"/"+c.name, c)
		m.keep(name+"/"+c.name, c.copy())
		if !c.fade(m.current) {
			delete(n.children, last)
		}
	}
}

// copy returns a directory that stays as it is when the other one loses what
// is in it.
func (n *ntNode) copy() *ntNode {
	c := *n
	if n.children != nil {
		c.children = make(map[string]*ntNode, len(n.children))
		for key, child := range n.children {
			c.children[key] = child.copy()
		}
	}
	return &c
}

// fade removes what is not the layer's at and below a node, and reports
// whether the node is to stay.
func (n *ntNode) fade(current int) bool {
	for key, c := range n.children {
		if !c.fade(current) {
			delete(n.children, key)
		}
	}
	return n.layer == current
}

// stream takes an alternate stream: that of a directory is kept, and that of a
// file is found again by its place in the layer.
func (m *ntMerge) stream(e *layer.Entry, content *layer.Blob, index int) error {
	if m.linked[ntfs.Upcase(e.Name)] {
		if m.late == nil {
			m.late = make(map[int]string)
		}
		m.late[index] = e.Name
		return nil
	}
	n := m.find(e.Name)
	if n == nil {
		return &layer.EntryError{Op: "merge", Name: e.Name, Err: invalid("stream %q belongs to nothing in the layer", e.Stream)}
	}
	if n.children == nil {
		m.streams[m.current][index] = n.object
		return nil
	}
	if m.streamed += e.Size; m.streamed > maxDirStream {
		return &layer.EntryError{
			Op: "merge", Name: e.Name, Err: fmt.Errorf("alternate streams of directories have more than %d bytes: %w", maxDirStream, errdefs.ErrOutOfRange),
		}
	}
	data, err := io.ReadAll(content)
	n.streams = append(n.streams, ntStream{e, data})
	return err
}

// deltaOf returns the hive that an entry is a delta of, "" if it is none.
func deltaOf(e *layer.Entry) rootfs.HiveName {
	if e.Kind == layer.File && strings.HasPrefix(e.Name, string(layer.HivesPart)+"/") {
		for _, hive := range rootfs.HiveNames() {
			if ntfs.EqualFold(e.Name, hive.Delta()) {
				return hive
			}
		}
	}
	return ""
}

func (m *ntMerge) delta(hive rootfs.HiveName, e *layer.Entry, content *layer.Blob) error {
	data, err := readHive(e, content)
	if err != nil {
		return err
	}
	m.hives[hive] = append(m.hives[hive], ntDelta{m.current, e, data})
	return nil
}

func readHive(e *layer.Entry, content io.Reader) ([]byte, error) {
	if e.Size > maxHive {
		return nil, &layer.EntryError{
			Op: "merge", Name: e.Name, Err: fmt.Errorf("a hive of %d bytes: %w", e.Size, errdefs.ErrOutOfRange),
		}
	}
	return io.ReadAll(content)
}

// walk calls f for every node but the root, directories before what is in
// them, in the order of names.
func (n *ntNode) walk(name string, f func(string, *ntNode) error) error {
	for _, key := range sortedKeys(n.children) {
		c := n.children[key]
		full := path.Join(name, c.name)
		if err := f(full, c); err != nil {
			return err
		}
		if err := c.walk(full, f); err != nil {
			return err
		}
	}
	return nil
}

// settle tells the objects their names: the one that they came with first, if
// they still have it.
func (m *ntMerge) settle() {
	_ = m.root.walk("", func(name string, n *ntNode) error {
		switch {
		case n.object == nil:
		case n.entry == nil: // the name of its own entry
			n.object.names = slices.Insert(n.object.names, 0, name)
		default:
			n.object.names = append(n.object.names, name)
		}
		return nil
	})
}

// readLayer calls f for each entry of a layer, and holds the layer against its
// diffID, if it has one.
func readLayer(ctx context.Context, l rootfs.LayerBlob, o layer.ReadOptions, f func(*layer.Entry, *layer.Blob) error) error {
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	blob, err := o.OpenBlob(r)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }() // after Finish it does nothing
	for e, err := range blob.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = f(e, blob)
		}
		if err != nil {
			return err
		}
	}
	d, err := blob.Finish()
	if err == nil && l.DiffID != "" && d.DiffID != l.DiffID {
		err = &classed{fmt.Errorf("the layer has diffID %s, not %s", d.DiffID, l.DiffID), errdefs.ErrDataLoss}
	}
	return err
}
