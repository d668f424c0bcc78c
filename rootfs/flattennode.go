package rootfs

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"path"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/spill"
)

type nodeKind uint8

const (
	nothing nodeKind = iota // so far
	aDir
	aThing // and no directory
)

// node is a name that has a meaning. Layers are counted from the base, and -1 is none. Those of upper layers are known first.
// It has no pointers and no spare bytes, as there may be a great many.
type node struct {
	name                textRef
	parent, child, next int32
	layer               int32 // that brought what is there
	dirAt               int32 // the last layer with an entry for a directory here
	passedAt            int32 // the last layer that passed through without one
	whited, opaque      int32 // the uppermost layer that hides what lower ones have here, or below
	hiddenAt            int32 // the last layer that has something here, but no directory, that others hide
	metaAt              int32
	meta, record        int32 // 0 is none
	kind                nodeKind
	passed              bool
}

// impliedIn reports whether the layer needs the directory and did not mention it.
func (n *node) impliedIn(layer int32) bool { return n.passedAt == layer && n.dirAt != layer }

// rootNode is the root's number, and as a child's or sibling's that of none.
const rootNode = 0

// nodeTable holds all nodes, what directories are to look like, and what the manifest will say. Any number of them takes as
// much memory as it is given, and files for the rest.
type nodeTable struct {
	store   *spill.Store
	text    *spill.Text
	nodes   *spill.Array[node]
	index   *spill.Table[slot] // of nodes by parent and name
	metas   *spill.Array[nodeMeta]
	records *spill.Array[record]

	sorts  int // how many names are sorted in memory
	seed   maphash.Seed
	budget int // how many nodes may be looked at for the sake of whiteouts
	err    error
}

// slot is a node in the index.
type slot struct {
	hash uint32
	id   int32 // 0 is none: nobody looks for the root
}

// place is the hash as the index wants it.
func (s slot) place() uint64 { return uint64(s.hash) << 32 }

const (
	nodeMemory     = 16 << 20
	sortMemory     = 1024 // of it, for each name that is sorted
	whiteoutBudget = 1 << 22
)

// newNodeTable returns a table with the root. The caller closes it.
func newNodeTable(create spillFile, memory int) *nodeTable {
	if memory <= 0 {
		memory = nodeMemory
	}
	s := spill.New(spill.Config{Memory: memory, Create: create})
	t := &nodeTable{
		store: s, text: spill.NewText(s), nodes: spill.NewArray[node](s), index: spill.NewTable(s, slot.place),
		metas: spill.NewArray[nodeMeta](s), records: spill.NewArray[record](s),
		seed: maphash.MakeSeed(), budget: whiteoutBudget, sorts: max(memory/sortMemory, 8),
	}
	t.metas.Extend(1)
	t.records.Extend(1)
	root := newNode()
	root.name, root.kind, root.layer = t.keep("."), aDir, 0
	t.nodes.Append(root)
	return t
}

func newNode() node {
	return node{layer: -1, dirAt: -1, passedAt: -1, whited: -1, opaque: -1, hiddenAt: -1}
}

// close gives back the memory and the files.
func (t *nodeTable) close() error { return t.store.Close() }

// trim writes out what is too much for memory. No pointer to a node or record is of use afterwards. The error is the first
// that the table had at all: answers since then may be wrong.
func (t *nodeTable) trim() error {
	return errors.Join(t.err, t.index.Trim())
}

// at returns a node, until the next trim.
func (t *nodeTable) at(id int32) *node { return t.nodes.At(int(id)) }

// peek returns what a node is, to be looked at alone.
func (t *nodeTable) peek(id int32) node { return t.nodes.Get(int(id)) }

func (t *nodeTable) name(id int32) string { return t.string(t.peek(id).name) }

func (t *nodeTable) find(parent int32, name string) (int32, bool) {
	hash := t.hash(parent, name)
	s, _, found := t.probe(parent, name, hash)
	return s.id, found
}

// lookup returns the node of a clean path, if there is one.
func (t *nodeTable) lookup(name string) (int32, bool) {
	if name == "." {
		return rootNode, true
	}
	parent, last := cut(name)
	id, ok := t.lookup(parent)
	if !ok {
		return 0, false
	}
	return t.find(id, last)
}

// add returns the node of a name, which is new if it has none.
func (t *nodeTable) add(parent int32, name string) int32 {
	hash := t.hash(parent, name)
	s, place, found := t.probe(parent, name, hash)
	if found {
		return s.id
	}
	if t.nodes.Len() == math.MaxInt32 || t.index.Full() {
		t.tooMany("names")
		return rootNode
	}
	p := t.at(parent)
	n := newNode()
	n.name, n.parent, n.next = t.keep(name), parent, p.child
	id := int32(t.nodes.Append(n))
	p.child = id
	t.index.Put(place, slot{hash, id})
	return id
}

func (t *nodeTable) hash(parent int32, name string) uint32 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio: each parent's names are spread anew
	h := (maphash.String(t.seed, name) + uint64(parent)) * odd
	return uint32(h >> 32)
}

// probe returns the slot of a name, or the place where it belongs.
func (t *nodeTable) probe(parent int32, name string, hash uint32) (s slot, place int, found bool) {
	return t.index.Find(slot{hash: hash}.place(), func(s slot) bool {
		if s.hash != hash {
			return false
		}
		n := t.peek(s.id)
		return n.parent == parent && n.name.len() == len(name) && t.text.Equal(n.name.at(), name)
	})
}

func (t *nodeTable) tooMany(what string) {
	t.fail(fmt.Errorf("too many %s: %w", what, errdefs.ErrResourceExhausted))
}

func (t *nodeTable) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// nodeBlock is after how many steps of something long the table is trimmed.
const nodeBlock = 1024

func (t *nodeTable) path(id int32) string {
	if id == rootNode {
		return "."
	}
	return path.Join(t.path(t.peek(id).parent), t.name(id))
}

// textRef says where a text is: its length in the lower 24 bits, above them the offset.
type textRef uint64

const (
	textBits = 24
	maxText  = 1<<textBits - 1
)

func (r textRef) at() int64 { return int64(r >> textBits) }
func (r textRef) len() int  { return int(r & maxText) }

// keep returns where a copy of s is.
func (t *nodeTable) keep(s string) textRef {
	at := t.text.Append(s)
	if len(s) > maxText || at > math.MaxInt64>>textBits {
		t.tooMany("bytes of names")
	}
	return textRef(at)<<textBits | textRef(len(s))&maxText
}

func (t *nodeTable) string(r textRef) string { return t.text.String(r.at(), r.len()) }
