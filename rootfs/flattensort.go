package rootfs

import (
	"cmp"
	"container/heap"
	"iter"
	"slices"

	"github.com/hostcompute/hcs/internal/spill"
)

// Children are sorted in memory as long as they are not too many; of a larger directory such parts are sorted one after the
// other, and then read together. Those that are directories wait while what is in one of them is looked at.
const (
	sortedDirs  = 8  // times less are sorted at once
	sortedBytes = 64 // a name, on average, at the most
)

// namedNode is a node with what a manifest asks for at hand.
type namedNode struct {
	name       string
	id, record int32
}

// children yields what of a kind is in a directory, names ascending. The table may be trimmed meanwhile, and is.
func (t *nodeTable) children(id int32, kind nodeKind) iter.Seq[namedNode] {
	return func(yield func(namedNode) bool) {
		part, next := t.sortedPart(t.peek(id).child, kind)
		if next == rootNode {
			for _, n := range part {
				if !yield(n) {
					return
				}
			}
			return
		}
		m := merger{t: t, sorted: spill.NewArray[sortedNode](t.store)}
		for {
			m.add(part)
			if next == rootNode {
				break
			}
			part, next = t.sortedPart(next, kind)
		}
		m.all(yield)
		if err := m.sorted.Close(); err != nil {
			t.fail(err)
		}
	}
}

// sortedPart returns what of a kind is among the siblings from c on, as far as it fits, and the first that does not.
func (t *nodeTable) sortedPart(c int32, kind nodeKind) (part []namedNode, next int32) {
	most := t.sorts
	if kind == aDir {
		most /= sortedDirs
	}
	bytes := most * sortedBytes
	for n := 1; c != rootNode; n++ {
		if n%nodeBlock == 0 && t.trim() != nil {
			return nil, rootNode
		}
		node := t.peek(c)
		if node.kind == kind {
			if bytes -= node.name.len(); len(part) > 0 && bytes < 0 || len(part) == most {
				break
			}
			part = append(part, namedNode{t.string(node.name), c, node.record})
		}
		c = node.next
	}
	slices.SortFunc(part, func(a, b namedNode) int { return cmp.Compare(a.name, b.name) })
	return part, c
}

// merger reads sorted parts together. It is a heap of them for package heap, that with the first name on top.
type merger struct {
	t      *nodeTable
	sorted *spill.Array[sortedNode]
	parts  []mergePart
}

// sortedNode has a name of its own, beside those that come before and after it: reading them costs little then.
type sortedNode struct {
	name       textRef
	id, record int32
}

type mergePart struct {
	namedNode // the first
	at, end   int
}

func (m *merger) add(part []namedNode) {
	start := m.sorted.Len()
	for i, n := range part {
		m.sorted.Append(sortedNode{m.t.keep(n.name), n.id, n.record})
		if i%nodeBlock == 0 && m.t.trim() != nil {
			return
		}
	}
	if len(part) > 0 {
		m.parts = append(m.parts, mergePart{namedNode: part[0], at: start, end: m.sorted.Len()})
	}
}

func (m *merger) all(yield func(namedNode) bool) {
	heap.Init(m)
	for len(m.parts) > 0 {
		if !yield(m.parts[0].namedNode) {
			return
		}
		m.advance()
	}
}

// advance goes on to the next name.
func (m *merger) advance() {
	p := &m.parts[0]
	if p.at++; p.at == p.end {
		heap.Pop(m)
		return
	}
	n := m.sorted.Get(p.at)
	p.namedNode = namedNode{m.t.string(n.name), n.id, n.record}
	heap.Fix(m, 0)
}

func (m *merger) Len() int           { return len(m.parts) }
func (m *merger) Less(i, j int) bool { return m.parts[i].name < m.parts[j].name }
func (m *merger) Swap(i, j int)      { m.parts[i], m.parts[j] = m.parts[j], m.parts[i] }
func (m *merger) Push(x any)         { m.parts = append(m.parts, x.(mergePart)) }

func (m *merger) Pop() any {
	last := m.parts[len(m.parts)-1]
	m.parts = m.parts[:len(m.parts)-1]
	return last
}
