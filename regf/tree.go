package regf

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
)

// A Tree is a hive to change and to write. One made by [Hive.Edit] loads the keys that are touched and refers to the hive
// for the rest, which must not change meanwhile. Only one goroutine may use it.
type Tree struct {
	// FileName, Flags and Written go to the base block.
	FileName string
	Flags    HeaderFlags
	Written  Filetime

	base []byte // the base block of the hive that was edited, for what has no name here
	root *Node
	same bool // of a delta: there was no difference
}

// layering says how the layered bits of keys that are copied from a hive come out.
type layering uint8

const (
	layerKeep      layering = iota
	layerFlatten            // as a hive that is no delta: without tombstones
	layerSupersede          // as parts of a superseding tree, without tombstones
)

// A ref is a key of a hive, with all below it.
type ref struct {
	h     *Hive
	off   uint32
	layer layering
}

// A child is a subkey: not loaded, or loaded.
type child struct {
	src  ref
	node *Node
}

// A Node is a key of a Tree.
type Node struct {
	name      string
	class     []byte // UTF-16, as a rule
	modified  Filetime
	flags     KeyFlags
	access    byte   // byte 12 of the cell
	control   uint16 // user flags and others, bytes 54 and 55
	handle    uint32 // of a KeyPredefined
	semantics LayerSemantics
	inherits  bool
	security  []byte
	values    []Value
	children  []child // in order of their names
	depth     int
}

// NewTree returns a tree with a root and nothing else. Without a security descriptor it has one that lets administrators
// and the system do all, and users read.
func NewTree(rootName string, security []byte) (*Tree, error) {
	if security == nil {
		security = minimalSecurity
	}
	if _, err := checkKeyName(rootName); err != nil {
		return nil, err
	}
	return &Tree{root: &Node{name: rootName, flags: KeyHiveEntry | KeyNoDelete, security: security}}, nil
}

// Edit returns the hive as a tree to change.
func (h *Hive) Edit() (*Tree, error) {
	t := &Tree{FileName: h.FileName, Flags: h.Header.Flags, Written: h.Written, base: h.base}
	var err error
	t.root, err = ref{h, h.root, layerKeep}.load(0)
	if err != nil {
		return nil, fmt.Errorf("edit hive: %w", err)
	}
	return t, nil
}

// Root returns the tree's uppermost key.
func (t *Tree) Root() *Node { return t.root }

// load makes a node of a key; its subkeys stay where they are.
func (r ref) load(depth int) (*Node, error) {
	k, err := r.h.key(r.off)
	if err != nil {
		return nil, err
	}
	if depth > MaxDepth {
		return nil, corrupt(k.off, "key more than %d keys deep", MaxDepth)
	}
	n := &Node{
		name: k.Name(), modified: k.Modified(), flags: k.Flags() &^ keyLatinName, depth: depth,
		access: k.nk[12], control: le16(k.nk[54:]), semantics: k.Semantics(), inherits: k.InheritsClass(),
	}
	if n.flags&KeyPredefined != 0 {
		n.handle = le32(k.nk[36:])
	}
	n.semantics, n.inherits = r.layer.apply(n.semantics, n.inherits)
	if n.class, err = k.classBytes(); err != nil {
		return nil, err
	}
	if n.security, err = k.Security(); err != nil {
		return nil, err
	}
	if err := r.loadValues(k, n); err != nil {
		return nil, err
	}
	return n, r.loadChildren(k, n)
}

func (l layering) apply(s LayerSemantics, inherits bool) (LayerSemantics, bool) {
	switch l {
	case layerFlatten:
		return LayerMerge, false
	case layerSupersede:
		return LayerSupersedeTree, false
	}
	return s, inherits
}

func (r ref) loadValues(k Key, n *Node) error {
	b := r.h.budget()
	for raw, err := range k.rawValues() {
		if err != nil {
			return err
		}
		if r.layer != layerKeep && raw.tombstone() {
			continue
		}
		v, cells, err := r.h.value(raw)
		if err != nil {
			return err
		}
		if err := b.spend(raw.off, uint32(len(raw.vk)), cells); err != nil { //nolint:gosec // a cell's size
			return err
		}
		n.values = append(n.values, v)
	}
	return nil
}

func (r ref) loadChildren(k Key, n *Node) error {
	offs, _, err := k.subkeyOffsets()
	if err != nil {
		return err
	}
	n.children = make([]child, 0, len(offs))
	sorted := true
	var last rawName
	for _, off := range offs {
		sub, err := r.h.key(off)
		if err != nil {
			return err
		}
		if r.layer != layerKeep && sub.Semantics() == LayerTombstone {
			continue
		}
		name := sub.rawName()
		sorted = sorted && (len(n.children) == 0 || compareNames(last, name) < 0)
		last = name
		n.children = append(n.children, child{src: ref{r.h, off, r.layer}})
	}
	if sorted {
		return nil
	}
	return n.sortChildren(k.off)
}

// sortChildren mends what a writer with other ideas of upper case left.
func (n *Node) sortChildren(off uint32) error {
	var failed error
	order := func(a, b child) int {
		na, err := a.name()
		nb, err2 := b.name()
		failed = errors.Join(failed, err, err2)
		return compareNames(na, nb)
	}
	slices.SortStableFunc(n.children, order)
	if failed != nil {
		return failed
	}
	for i := 1; i < len(n.children); i++ {
		if order(n.children[i-1], n.children[i]) == 0 {
			return corrupt(off, "key with two subkeys of one name")
		}
	}
	return nil
}

func (c *child) name() (rawName, error) {
	if c.node != nil {
		return nameOf(c.node.name), nil
	}
	k, err := c.src.h.key(c.src.off)
	if err != nil {
		return rawName{}, err
	}
	return k.rawName(), nil
}

func (n *Node) loadChild(i int) (*Node, error) {
	c := &n.children[i]
	if c.node == nil {
		node, err := c.src.load(n.depth + 1)
		if err != nil {
			return nil, err
		}
		*c = child{node: node}
	}
	return c.node, nil
}

// find returns the place of a subkey among the others, and whether it is there.
func (n *Node) find(name rawName) (int, bool, error) {
	var failed error
	i, found := sort.Find(len(n.children), func(i int) int {
		at, err := n.children[i].name()
		if err != nil {
			failed = err
		}
		return compareNames(name, at)
	})
	return i, found, failed
}

// Name returns the key's name.
func (n *Node) Name() string { return n.name }

// Class returns the key's class name.
func (n *Node) Class() string { return rawName{n.class[:len(n.class)&^1], true}.String() }

// SetClass sets the key's class name, of at most 32767 UTF-16 units.
func (n *Node) SetClass(class string) error {
	b := utf16Bytes(class)
	if len(b) > 0xFFFE {
		return fmt.Errorf("set class of key %q: %d bytes: %w", n.name, len(b), ErrInvalid)
	}
	n.class = b
	return nil
}

// Modified returns the time of the last change. No method of a Node sets it but SetModified.
func (n *Node) Modified() Filetime { return n.modified }

// SetModified sets the time of the last change.
func (n *Node) SetModified(t Filetime) { n.modified = t }

// Flags returns the key's flags.
func (n *Node) Flags() KeyFlags { return n.flags }

// SetFlags sets the key's flags.
func (n *Node) SetFlags(f KeyFlags) { n.flags = f &^ keyLatinName }

// Security returns the key's self-relative security descriptor.
func (n *Node) Security() []byte { return n.security }

// SetSecurity sets the key's self-relative security descriptor. The node keeps sd, which must not change any more.
func (n *Node) SetSecurity(sd []byte) { n.security = sd }

// Semantics returns what the key does, in a delta, to the key below.
func (n *Node) Semantics() LayerSemantics { return n.semantics }

// SetSemantics sets what the key does, in a delta, to the key below. A tombstone loses its class, values and subkeys.
func (n *Node) SetSemantics(s LayerSemantics) {
	n.semantics = s & nkSemantics
	if s == LayerTombstone {
		n.class, n.values, n.children, n.inherits = nil, nil, nil, false
	}
}

// InheritsClass reports whether the key of a delta has the class of the key below.
func (n *Node) InheritsClass() bool { return n.inherits }

// InheritClass makes the key of a delta have the class of the key below.
func (n *Node) InheritClass() { n.inherits, n.class = true, nil }

// Values returns the key's values, which must not be changed.
func (n *Node) Values() []Value { return n.values }

func (n *Node) findValue(name string) int {
	want := nameOf(name)
	return slices.IndexFunc(n.values, func(v Value) bool { return compareNames(nameOf(v.Name), want) == 0 })
}

// SetValue adds the value, or puts it in the place of the one of that name. The node keeps v.Data, which must not change
// any more.
func (n *Node) SetValue(v Value) error {
	if err := v.check(); err != nil {
		return fmt.Errorf("set value of key %q: %w", n.name, err)
	}
	if i := n.findValue(v.Name); i >= 0 {
		n.values[i] = v
	} else {
		n.values = append(n.values, v)
	}
	return nil
}

func (v Value) check() error {
	switch {
	case nameOf(v.Name).units() > maxValueName || uint64(len(v.Data)) > 0xFFFF*segmentSize:
		return fmt.Errorf("value %.40q with %d bytes of data: %w", v.Name, len(v.Data), ErrInvalid)
	case v.Tombstone && (v.Type != TypeNone || len(v.Data) > 0):
		return fmt.Errorf("tombstone of value %.40q with data: %w", v.Name, ErrInvalid)
	}
	return nil
}

// DeleteValue removes the value of that name, if it is there.
func (n *Node) DeleteValue(name string) {
	if i := n.findValue(name); i >= 0 {
		n.values = slices.Delete(n.values, i, i+1)
	}
}

// Subkeys returns the key's subkeys in order, loading them.
func (n *Node) Subkeys() iter.Seq2[*Node, error] {
	return func(yield func(*Node, error) bool) {
		for i := range n.children {
			sub, err := n.loadChild(i)
			if !yield(sub, err) || err != nil {
				return
			}
		}
	}
}

// Subkey returns the subkey of that name, whatever its case, or an error of class ErrNotExist.
func (n *Node) Subkey(name string) (*Node, error) {
	i, found, err := n.find(nameOf(name))
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("find key %q below %q: %w", name, n.name, ErrNotExist)
	}
	return n.loadChild(i)
}

// CreateSubkey returns the subkey of that name, and makes it with its parent's security descriptor if there is none.
func (n *Node) CreateSubkey(name string) (*Node, error) {
	raw, err := checkKeyName(name)
	if err != nil {
		return nil, err
	}
	i, found, err := n.find(raw)
	if err != nil {
		return nil, err
	}
	if found {
		return n.loadChild(i)
	}
	if n.depth >= MaxDepth {
		return nil, fmt.Errorf("create key %q: more than %d keys deep: %w", name, MaxDepth, ErrInvalid)
	}
	sub := &Node{name: name, security: bytes.Clone(n.security), modified: n.modified, depth: n.depth + 1}
	n.children = slices.Insert(n.children, i, child{node: sub})
	return sub, nil
}

// DeleteSubkey removes the subkey of that name with all below it, if it is there.
func (n *Node) DeleteSubkey(name string) error {
	i, found, err := n.find(nameOf(name))
	if err != nil {
		return err
	}
	if found {
		n.children = slices.Delete(n.children, i, i+1)
	}
	return nil
}

// Create returns the key at a path below n, making what is missing on the way.
func (n *Node) Create(path string) (*Node, error) {
	var err error
	for part := range strings.SplitSeq(path, `\`) {
		if part == "" {
			continue
		}
		if n, err = n.CreateSubkey(part); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Lookup returns the key at a path below n, or an error of class ErrNotExist.
func (n *Node) Lookup(path string) (*Node, error) {
	var err error
	for part := range strings.SplitSeq(path, `\`) {
		if part == "" {
			continue
		}
		if n, err = n.Subkey(part); err != nil {
			return nil, err
		}
	}
	return n, nil
}
