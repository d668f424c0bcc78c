package regf

import (
	"fmt"
	"strings"
)

// Merge applies deltas, the lowest first, to a hive and returns the hive that a container with all these layers sees.
// The tree refers to the hives, which must not change until it is written.
//
// The rules are in docs/formats/layered-hive.md.
func Merge(base *Hive, deltas ...*Hive) (*Tree, error) {
	root, err := ref{base, base.root, layerFlatten}.load(0)
	if err != nil {
		return nil, fmt.Errorf("merge into hive: %w", err)
	}
	t := &Tree{FileName: base.FileName, Flags: base.Header.Flags, Written: base.Written, base: base.base, root: root}
	for i, d := range deltas {
		if err := t.merge(d); err != nil {
			return nil, fmt.Errorf("merge delta %d: %w", i+1, err)
		}
	}
	return t, nil
}

func (t *Tree) merge(delta *Hive) error {
	k, err := delta.Root()
	if err != nil {
		return err
	}
	if s := k.Semantics(); s == LayerTombstone || s == LayerSupersedeTree {
		return corrupt(k.off, "root that removes the hive below")
	}
	t.Written = max(t.Written, delta.Written)
	name := t.root.name
	m := merger{delta.budget()}
	err = m.key(t.root, ref{delta, delta.root, layerKeep})
	t.root.name = name
	return err
}

type merger struct{ budget *budget }

// key merges a key of a delta into the same key below.
func (m merger) key(n *Node, r ref) error {
	k, err := r.h.key(r.off)
	if err != nil {
		return err
	}
	if _, err := m.budget.take(k, n.depth); err != nil {
		return err
	}
	upper, err := r.load(n.depth)
	if err != nil {
		return err
	}
	n.overlay(upper)
	return m.children(n, upper.children)
}

// overlay gives a key what the key of a delta above it says, subkeys aside.
func (n *Node) overlay(upper *Node) {
	n.name = upper.name
	n.flags, n.control, n.access, n.handle = upper.flags, upper.control, upper.access, upper.handle
	if upper.security != nil {
		n.security = upper.security
	}
	if !upper.inherits {
		n.class = upper.class
	}
	if upper.semantics == LayerSupersedeLocal {
		n.modified, n.values = upper.modified, nil
	}
	n.modified = max(n.modified, upper.modified)
	n.overlayValues(upper.values)
}

// overlayValues keeps the places of values that are replaced, and adds new ones at the end.
func (n *Node) overlayValues(upper []Value) {
	if len(upper) == 0 {
		return
	}
	places := placesOf(n.values)
	gone := map[int]bool{}
	for _, v := range upper {
		name := foldName(v.Name)
		i, found := places[name]
		switch {
		case v.Tombstone && found:
			gone[i] = true
		case v.Tombstone:
		case found:
			n.values[i] = v
			delete(gone, i)
		default:
			places[name] = len(n.values)
			n.values = append(n.values, v)
		}
	}
	if len(gone) == 0 {
		return
	}
	kept := n.values[:0]
	for i, v := range n.values {
		if !gone[i] {
			kept = append(kept, v)
		}
	}
	n.values = kept
}

// placesOf returns the places of values by their names in upper case.
func placesOf(values []Value) map[string]int {
	m := make(map[string]int, len(values))
	for i, v := range values {
		m[foldName(v.Name)] = i
	}
	return m
}

// foldName returns the name in upper case.
func foldName(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for len(s) > 0 {
		r, n := nextRune(s)
		s = s[n:]
		if r < 0x10000 {
			r = rune(upcase(uint16(r))) //nolint:gosec // of the plane
		}
		writeWTF8(&b, r)
	}
	return b.String()
}

// children merges the subkeys of a key of a delta into those of the key below. Both are in order.
func (m merger) children(n *Node, upper []child) error {
	if len(upper) == 0 {
		return nil
	}
	lower := n.children
	merged := make([]child, 0, len(lower)+len(upper))
	for i := range upper {
		name, err := upper[i].name()
		if err != nil {
			return err
		}
		order := -1
		for len(lower) > 0 {
			at, err := lower[0].name()
			if err != nil {
				return err
			}
			if order = compareNames(at, name); order >= 0 {
				break
			}
			merged, lower = append(merged, lower[0]), lower[1:]
		}
		var below *child
		if len(lower) > 0 && order == 0 {
			below, lower = &lower[0], lower[1:]
		}
		if merged, err = m.child(merged, below, upper[i].src, n.depth+1); err != nil {
			return err
		}
	}
	merged = append(merged, lower...)
	n.children = merged
	return nil
}

// child appends what becomes of a subkey of a delta and of the one below it, which may be missing.
func (m merger) child(merged []child, below *child, upper ref, depth int) ([]child, error) {
	k, err := upper.h.key(upper.off)
	if err != nil {
		return nil, err
	}
	s := k.Semantics()
	if s == LayerTombstone {
		return merged, nil
	}
	if s == LayerSupersedeTree || below == nil {
		upper.layer = layerFlatten
		return append(merged, child{src: upper}), nil
	}
	if below.node == nil {
		node, err := below.src.load(depth)
		if err != nil {
			return nil, err
		}
		*below = child{node: node}
	}
	return append(merged, *below), m.key(below.node, upper)
}
