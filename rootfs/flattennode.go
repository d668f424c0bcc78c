package rootfs

import (
	"cmp"
	"crypto/sha256"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hostcompute/hcs/internal/mtree"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

type nodeKind uint8

const (
	nothing nodeKind = iota // so far
	aDir
	aThing // and no directory
)

// node is a name that has a meaning. Layers are counted from the base, and -1 is none. Those of upper layers are known first.
type node struct {
	name                string
	parent, child, next int32
	layer               int32 // that brought what is there
	dirAt               int32 // the last layer with an entry for a directory here
	passedAt            int32 // the last layer that passed through without one
	whited, opaque      int32 // the uppermost layer that hides what lower ones have here, or below
	metaAt              int32
	kind                nodeKind
	passed              bool
	meta                *nodeMeta
	record              *record
}

// impliedIn reports whether the layer needs the directory and did not mention it.
func (n *node) impliedIn(layer int32) bool { return n.passedAt == layer && n.dirAt != layer }

// nodeMeta is what a directory is to look like. It keeps no entry, as that would keep much more.
type nodeMeta struct {
	mode, uid, gid uint32
	atime, mtime   time.Time
	xattrs         map[string]string
}

func newNodeMeta(e *layer.Entry) *nodeMeta {
	m := &nodeMeta{mode: e.Mode, uid: e.UID, gid: e.GID, xattrs: e.Xattrs}
	m.atime, m.mtime = times(e)
	return m
}

func (m *nodeMeta) entry(name string) *layer.Entry {
	return &layer.Entry{
		Name: name, Kind: layer.Dir, Mode: m.mode, UID: m.uid, GID: m.gid, AccessTime: m.atime, ModTime: m.mtime, Xattrs: m.xattrs,
	}
}

// record is what the manifest will say of a node. Several names of one object share it. There is one for each file, so it
// is small.
type record struct {
	sum                    [sha256.Size]byte
	inode                  uint64
	size, seconds, changed int64
	mode, uid, gid, nlink  uint32 // mode with the type
	more                   *recordMore
	there, linked          bool
}

// recordMore is what few objects have.
type recordMore struct {
	link   string
	xattrs map[string]string
}

func newRecord(e *layer.Entry) *record {
	r := new(record)
	if e.Kind == layer.Symlink {
		r.more = &recordMore{link: e.Link}
	}
	return r
}

func (r *record) setXattrs(attrs map[string]string) {
	if len(attrs) > 0 {
		r.more = &recordMore{xattrs: attrs}
	}
}

// take notes what the kernel says.
func (r *record) take(st *sys.Stat) {
	r.there = true
	r.mode, r.uid, r.gid, r.nlink = st.Mode, st.UID, st.GID, uint32(st.Nlink)
	r.size, r.seconds = st.Size, st.MTime.Unix()
	r.inode, r.changed = st.Ino, st.CTime.UnixNano()
}

func (r *record) entry(name string) *mtree.Entry {
	e := &mtree.Entry{
		Name: name, Type: manifestTypes[r.mode&sys.ModeType], Mode: r.mode & sys.ModePerm, UID: r.uid, GID: r.gid,
		Nlink: uint64(r.nlink), Size: r.size, Seconds: r.seconds, SHA256: r.sum, Inode: r.inode, Changed: time.Unix(0, r.changed),
	}
	if r.more != nil {
		e.Link, e.Xattrs = r.more.link, r.more.xattrs
	}
	return e
}

// rootNode is the root's number, and as a child's or sibling's that of none.
const rootNode = 0

// nodeTable holds all nodes, in blocks that stay where they are.
type nodeTable struct {
	blocks [][]node
	count  int32
	byName map[nodeKey]int32
	budget int // how many nodes may be looked at for the sake of whiteouts
}

type nodeKey struct {
	parent int32
	name   string
}

const (
	nodeBlock      = 1024
	whiteoutBudget = 1 << 22
)

func newNodeTable() *nodeTable {
	t := &nodeTable{byName: make(map[nodeKey]int32), budget: whiteoutBudget}
	t.new(node{name: ".", kind: aDir, dirAt: -1, passedAt: -1, whited: -1, opaque: -1})
	return t
}

func (t *nodeTable) new(n node) int32 {
	if int(t.count)%nodeBlock == 0 {
		t.blocks = append(t.blocks, make([]node, nodeBlock))
	}
	id := t.count
	t.count++
	*t.at(id) = n
	return id
}

func (t *nodeTable) at(id int32) *node { return &t.blocks[id/nodeBlock][id%nodeBlock] }

func (t *nodeTable) find(parent int32, name string) (int32, bool) {
	id, ok := t.byName[nodeKey{parent, name}]
	return id, ok
}

// add returns the node of a name, which is new if it has none.
func (t *nodeTable) add(parent int32, name string) int32 {
	key := nodeKey{parent, name}
	if id, ok := t.byName[key]; ok {
		return id
	}
	name = strings.Clone(name) // which would keep the whole path
	key.name = name
	p := t.at(parent)
	id := t.new(node{name: name, parent: parent, next: p.child, dirAt: -1, passedAt: -1, whited: -1, opaque: -1, layer: -1})
	p.child = id
	t.byName[key] = id
	return id
}

func (t *nodeTable) path(id int32) string {
	if id == rootNode {
		return "."
	}
	n := t.at(id)
	return path.Join(t.path(n.parent), n.name)
}

// children returns what is in a directory: first what is no directory, names ascending.
func (t *nodeTable) children(id int32) (things, dirs []int32) {
	for c := t.at(id).child; c != 0; c = t.at(c).next {
		switch t.at(c).kind {
		case aThing:
			things = append(things, c)
		case aDir:
			dirs = append(dirs, c)
		}
	}
	byName := func(a, b int32) int { return cmp.Compare(t.at(a).name, t.at(b).name) }
	slices.SortFunc(things, byName)
	slices.SortFunc(dirs, byName)
	return things, dirs
}
