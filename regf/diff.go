package regf

import (
	"bytes"
	"fmt"
)

// Diff returns the delta that makes the lower hive into the upper one: [Merge] of lower and it has the content of upper.
// The tree refers to the hives, which must not change until it is written.
//
// What a delta cannot say is the order of values of a key that is in both.
func Diff(lower, upper *Hive) (*Tree, error) {
	d := differ{lower.budget(), upper.budget()}
	root, err := d.key(ref{lower, lower.root, layerFlatten}, ref{upper, upper.root, layerFlatten}, 0)
	if err != nil {
		return nil, fmt.Errorf("diff hives: %w", err)
	}
	old, err := ref{lower, lower.root, layerFlatten}.load(0)
	if err != nil {
		return nil, fmt.Errorf("diff hives: %w", err)
	}
	old.name = root.name // a root's means nothing
	return &Tree{
		FileName: upper.FileName, Flags: upper.Header.Flags | HeaderLayered, Written: upper.Written, base: upper.base, root: root,
		same: root.semantics == LayerMerge && root.inherits && len(root.values)+len(root.children) == 0 && sameHead(old, root),
	}, nil
}

// Same reports of a delta, as [Diff] returned it, that it changes nothing.
func (t *Tree) Same() bool { return t.same }

type differ struct{ lower, upper *budget }

// key returns the delta of a key that is in both hives, or nil where there is no difference.
func (d differ) key(lower, upper ref, depth int) (*Node, error) {
	old, err := d.load(d.lower, lower, depth)
	if err != nil {
		return nil, err
	}
	now, err := d.load(d.upper, upper, depth)
	if err != nil {
		return nil, err
	}
	n := *now
	var kept int
	n.values, kept = diffValues(old.values, now.values)
	children, shared, err := d.children(old, now)
	if err != nil {
		return nil, err
	}
	n.children = children
	n.inherits = bytes.Equal(old.class, now.class)
	switch {
	case depth > 0 && shared == 0 && kept == 0 && len(old.children) > 0 && len(now.children) > 0:
		n.supersede(now)
	case now.modified < old.modified: // a merged key has the latest time of all layers
		n.semantics, n.values = LayerSupersedeLocal, now.values
	case depth > 0 && len(n.values) == 0 && len(n.children) == 0 && n.inherits && sameHead(old, now):
		return nil, nil
	}
	if n.inherits {
		n.class = nil
	}
	return &n, nil
}

func (d differ) load(b *budget, r ref, depth int) (*Node, error) {
	k, err := r.h.key(r.off)
	if err != nil {
		return nil, err
	}
	if _, err := b.take(k, depth); err != nil {
		return nil, err
	}
	return r.load(depth)
}

// supersede makes the node the whole of now, as of a key that was deleted and made anew.
func (n *Node) supersede(now *Node) {
	n.semantics, n.inherits, n.values = LayerSupersedeTree, false, now.values
	n.children = make([]child, len(now.children))
	for i, c := range now.children {
		c.src.layer = layerSupersede
		n.children[i] = c
	}
}

func sameHead(a, b *Node) bool {
	return a.name == b.name && a.modified == b.modified && a.flags == b.flags && a.control == b.control && a.handle == b.handle &&
		bytes.Equal(a.security, b.security)
}

func sameValue(a, b Value) bool {
	return a.Name == b.Name && a.Type == b.Type && bytes.Equal(a.Data, b.Data)
}

// diffValues returns the values that differ and tombstones for those that are gone, and how many names are in both.
func diffValues(old, now []Value) (diff []Value, shared int) {
	places := placesOf(old)
	kept := make([]bool, len(old))
	for _, v := range now {
		i, found := places[foldName(v.Name)]
		if found {
			shared++
			kept[i] = true
		}
		if !found || !sameValue(old[i], v) {
			diff = append(diff, v)
		}
	}
	for i, v := range old {
		if !kept[i] {
			diff = append(diff, Value{Name: v.Name, Tombstone: true})
		}
	}
	return diff, shared
}

// children returns the deltas of the subkeys, which are in order, and how many names are in both.
func (d differ) children(old, now *Node) (diff []child, shared int, err error) {
	lower, upper := old.children, now.children
	for len(lower) > 0 || len(upper) > 0 {
		order, err := compareHeads(lower, upper)
		if err != nil {
			return nil, 0, err
		}
		switch {
		case order < 0:
			gone, err := tombstoneOf(lower[0].src, old.depth+1)
			if err != nil {
				return nil, 0, err
			}
			diff, lower = append(diff, child{node: gone}), lower[1:]
		case order > 0:
			diff, upper = append(diff, upper[0]), upper[1:]
		default:
			n, err := d.key(lower[0].src, upper[0].src, old.depth+1)
			if err != nil {
				return nil, 0, err
			}
			if n != nil {
				diff = append(diff, child{node: n})
			}
			shared++
			lower, upper = lower[1:], upper[1:]
		}
	}
	return diff, shared, nil
}

// compareHeads compares the first names of two lists; the end of a list comes after all names.
func compareHeads(a, b []child) (int, error) {
	if len(a) == 0 {
		return 1, nil
	}
	if len(b) == 0 {
		return -1, nil
	}
	na, err := a[0].name()
	if err != nil {
		return 0, err
	}
	nb, err := b[0].name()
	return compareNames(na, nb), err
}

func tombstoneOf(r ref, depth int) (*Node, error) {
	k, err := r.h.key(r.off)
	if err != nil {
		return nil, err
	}
	sd, err := k.Security()
	n := &Node{name: k.Name(), modified: k.Modified(), semantics: LayerTombstone, security: sd, depth: depth}
	return n, err
}
