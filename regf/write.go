package regf

import (
	"fmt"
	"io"
	"slices"
)

// maxLeaf is how many subkeys a list has before it is divided; such a list just fills a hive bin of one page.
const maxLeaf = (binAlign - binHeader - 8) / 8

// A writer puts the cells of a hive one after another into bins.
type writer struct {
	buf      []byte // the file so far, with room for the base block
	binEnd   int    // end of the current bin in buf
	security map[string]int
	sks      []skCell
	sources  map[source]skOwner
	budgets  map[*Hive]*budget
	pending  []subkey // of the keys that are being written, a stack
}

type skCell struct{ off, refs uint32 }

// A source is a security cell of a hive that is copied from; skOwner is where it went.
type source struct {
	h   *Hive
	off uint32
}

type skOwner int

// A subkey is what a list says of one.
type subkey struct{ off, hash uint32 }

// WriteTo writes the tree as a hive of version 1.5. It makes the hive in memory first, as cells refer to each other.
func (t *Tree) WriteTo(out io.Writer) (int64, error) {
	hive, err := t.Bytes()
	if err != nil {
		return 0, err
	}
	n, err := out.Write(hive)
	if err != nil {
		return int64(n), fmt.Errorf("write hive: %w", err)
	}
	return int64(n), nil
}

// Bytes returns the tree as a hive of version 1.5.
func (t *Tree) Bytes() ([]byte, error) {
	w := &writer{security: map[string]int{}, sources: map[source]skOwner{}, budgets: map[*Hive]*budget{}}
	w.buf = make([]byte, headerSize, headerSize+t.root.estimate())
	root, err := w.node(t.root, noCell)
	if err != nil {
		return nil, fmt.Errorf("write hive: %w", err)
	}
	w.linkSecurity()
	w.closeBin()
	copy(w.buf, t.header(root, w.buf[headerSize:]))
	return w.buf, nil
}

// estimate guesses the size of the hive that the node becomes: that of the hives that it refers to, and a little.
func (n *Node) estimate() int {
	hives := map[*Hive]bool{}
	var visit func(n *Node)
	visit = func(n *Node) {
		for i := range n.children {
			if c := &n.children[i]; c.node != nil {
				visit(c.node)
			} else {
				hives[c.src.h] = true
			}
		}
	}
	visit(n)
	size := 2 * binAlign
	for h := range hives {
		size += int(h.DataSize) + int(h.DataSize)/64
	}
	return size
}

func (t *Tree) header(root uint32, bins []byte) []byte {
	b := make([]byte, headerSize)
	seq := uint32(1)
	if t.base != nil {
		copy(b[:4088], t.base)
		seq = le32(b[8:])
	}
	copy(b, "regf")
	put32(b[4:], seq)
	put32(b[8:], seq)
	put64(b[12:], uint64(t.Written))
	put32(b[20:], 1)
	put32(b[24:], 5)
	put32(b[28:], 0)
	put32(b[32:], 1)
	put32(b[36:], root)
	put32(b[40:], uint32(len(bins))) //nolint:gosec // alloc keeps it below maxDataSize
	put32(b[44:], 1)
	clear(b[48:112])
	name := utf16Bytes(t.FileName)
	copy(b[48:110], name[max(0, len(name)-62):]) // the end says more
	put32(b[144:], uint32(t.Flags))
	put32(b[508:], checksum(b))
	put64(bins[20:], uint64(t.Written))
	return b
}

// alloc makes a cell for n bytes and returns its offset. Cells do not cross bins.
func (w *writer) alloc(n int) (uint32, error) {
	size := (n + 4 + 7) &^ 7
	if size > w.binEnd-len(w.buf) {
		if len(w.buf)+size+2*binAlign > maxDataSize {
			return 0, fmt.Errorf("more than %d MiB of cells: %w", maxDataSize>>20, ErrInvalid)
		}
		w.closeBin()
		w.openBin(size)
	}
	start := len(w.buf)
	w.buf = append(w.buf, make([]byte, size)...)
	put32(w.buf[start:], uint32(-size))    //nolint:gosec // two's complement marks the cell as in use
	return uint32(start - headerSize), nil //nolint:gosec // checked above
}

func (w *writer) openBin(cell int) {
	start := len(w.buf)
	size := (cell + binHeader + binAlign - 1) &^ (binAlign - 1)
	w.binEnd = start + size
	w.buf = append(w.buf, make([]byte, binHeader)...)
	b := w.buf[start:]
	copy(b, "hbin")
	put32(b[4:], uint32(start-headerSize)) //nolint:gosec // alloc keeps it below maxDataSize
	put32(b[8:], uint32(size))             //nolint:gosec // likewise
}

// closeBin makes the rest of the bin a free cell.
func (w *writer) closeBin() {
	if rest := w.binEnd - len(w.buf); rest > 0 {
		off := len(w.buf)
		w.buf = append(w.buf, make([]byte, rest)...)
		put32(w.buf[off:], uint32(rest)) //nolint:gosec // below a page
	}
}

// at returns the content of the cell at off, up to the end of what was written.
func (w *writer) at(off uint32) []byte { return w.buf[headerSize+off+4:] }

// store makes a cell with the content.
func (w *writer) store(content []byte) (uint32, error) {
	off, err := w.alloc(len(content))
	if err == nil {
		copy(w.at(off), content)
	}
	return off, err
}

// node writes a loaded key with all below it, and returns its cell.
func (w *writer) node(n *Node, parent uint32) (uint32, error) {
	name := nameOf(n.name)
	off, err := w.alloc(nkSize + len(name.b))
	if err != nil {
		return 0, err
	}
	w.nodeHead(n, name, off, parent)
	sk, err := w.nodeSecurity(n)
	if err != nil {
		return 0, err
	}
	put32(w.at(off)[44:], sk)
	if len(n.class) > 0 {
		class, err := w.store(n.class)
		if err != nil {
			return 0, err
		}
		put32(w.at(off)[48:], class)
		put16(w.at(off)[74:], uint16(len(n.class))) //nolint:gosec // SetClass and the format bound it
	}
	if err := w.nodeValues(n, off); err != nil {
		return 0, fmt.Errorf("key %q: %w", n.name, err)
	}
	return off, w.nodeChildren(n, off)
}

func (w *writer) nodeHead(n *Node, name rawName, off, parent uint32) {
	b := w.at(off)
	flags := n.flags
	if !name.wide {
		flags |= keyLatinName
	}
	copy(b, "nk")
	put16(b[2:], uint16(flags))
	put64(b[4:], uint64(n.modified))
	b[12], b[13] = n.access, byte(n.semantics)
	if n.inherits {
		b[13] |= nkInheritsClass
	}
	put32(b[16:], parent)
	for _, at := range []int{28, 32, 40, 44, 48} {
		put32(b[at:], noCell)
	}
	if flags&KeyPredefined != 0 {
		put32(b[36:], n.handle)
	}
	put16(b[54:], n.control)
	put16(b[72:], uint16(len(name.b))) //nolint:gosec // names are short
	copy(b[nkSize:], name.b)
}

// nodeSecurity returns the one cell of all keys with this security descriptor.
func (w *writer) nodeSecurity(n *Node) (uint32, error) {
	if n.security == nil {
		return noCell, nil
	}
	i, err := w.securityCell(n.security)
	if err != nil {
		return 0, err
	}
	w.sks[i].refs++
	return w.sks[i].off, nil
}

func (w *writer) securityCell(sd []byte) (int, error) {
	if i, ok := w.security[string(sd)]; ok {
		return i, nil
	}
	off, err := w.alloc(skSize + len(sd))
	if err != nil {
		return 0, err
	}
	b := w.at(off)
	copy(b, "sk")
	put32(b[16:], uint32(len(sd))) //nolint:gosec // alloc bounds it
	copy(b[skSize:], sd)
	i := len(w.sks)
	w.security[string(sd)] = i
	w.sks = append(w.sks, skCell{off: off})
	return i, nil
}

// linkSecurity makes a ring of the security cells.
func (w *writer) linkSecurity() {
	for i, sk := range w.sks {
		b := w.at(sk.off)
		put32(b[4:], w.sks[(i+1)%len(w.sks)].off)
		put32(b[8:], w.sks[(i+len(w.sks)-1)%len(w.sks)].off)
		put32(b[12:], sk.refs)
	}
}

func (w *writer) nodeValues(n *Node, key uint32) error {
	if len(n.values) == 0 || n.flags&KeyPredefined != 0 {
		return nil
	}
	list := make([]byte, 4*len(n.values))
	var longestName, longestData int
	for i, v := range n.values {
		name := nameOf(v.Name)
		vk, err := w.alloc(vkSize + len(name.b))
		if err != nil {
			return err
		}
		put32(list[4*i:], vk)
		longestName = max(longestName, 2*name.units())
		longestData = max(longestData, len(v.Data))
		b := w.at(vk)
		copy(b, "vk")
		put16(b[2:], uint16(len(name.b))) //nolint:gosec // SetValue and the format bound it
		put32(b[12:], uint32(v.Type))
		put16(b[16:], valueFlags(v, name))
		copy(b[vkSize:], name.b)
		if v.Tombstone {
			put32(b[8:], noCell)
		} else if err := w.data(vk, v.Data); err != nil {
			return err
		}
	}
	return w.valueList(key, list, longestName, longestData)
}

func valueFlags(v Value, name rawName) (flags uint16) {
	if !name.wide {
		flags |= vkLatin
	}
	if v.Tombstone {
		flags |= vkTombstone
	}
	return flags
}

func (w *writer) valueList(key uint32, list []byte, longestName, longestData int) error {
	off, err := w.store(list)
	if err != nil {
		return err
	}
	b := w.at(key)
	put32(b[36:], uint32(len(list)/4)) //nolint:gosec // alloc bounds it
	put32(b[40:], off)
	put32(b[60:], uint32(longestName)) //nolint:gosec // names are short
	put32(b[64:], uint32(longestData)) //nolint:gosec // SetValue and the format bound it
	return nil
}

// data puts a value's data where it belongs by size: into the value's cell, one of its own, or several.
func (w *writer) data(vk uint32, data []byte) error {
	b := w.at(vk)
	put32(b[4:], uint32(len(data))) //nolint:gosec // SetValue and the format bound it
	if len(data) <= 4 {
		put32(b[4:], uint32(len(data))|inlineData) //nolint:gosec // likewise
		clear(b[8:12])
		copy(b[8:12], data)
		return nil
	}
	off, err := w.dataCells(data)
	if err != nil {
		return err
	}
	put32(w.at(vk)[8:], off)
	return nil
}

func (w *writer) dataCells(data []byte) (uint32, error) {
	if len(data) <= segmentSize {
		return w.store(data)
	}
	var list []byte
	for segment := range slices.Chunk(data, segmentSize) {
		// Windows leaves four bytes at the end of a segment's cell, and hivex and libregf take them off.
		off, err := w.alloc(len(segment) + 4)
		if err != nil {
			return 0, err
		}
		copy(w.at(off), segment)
		list = append(list, byte(off), byte(off>>8), byte(off>>16), byte(off>>24))
	}
	segments, err := w.store(list)
	if err != nil {
		return 0, err
	}
	db := make([]byte, 8)
	copy(db, "db")
	put16(db[2:], uint16(len(list)/4)) //nolint:gosec // SetValue and the format bound it
	put32(db[4:], segments)
	return w.store(db)
}

func (w *writer) nodeChildren(n *Node, key uint32) error {
	mark := len(w.pending)
	var longest [2]int
	for i := range n.children {
		c := &n.children[i]
		name, err := c.name()
		if err != nil {
			return err
		}
		var off uint32
		if c.node != nil {
			off, err = w.node(c.node, key)
		} else {
			off, err = w.copyKey(c.src, key, n.depth+1)
		}
		if err != nil {
			return err
		}
		w.push(off, name, &longest)
	}
	return w.subkeyLists(key, mark, longest)
}

// push remembers a subkey for its parent's list, and the longest name and class.
func (w *writer) push(off uint32, name rawName, longest *[2]int) {
	w.pending = append(w.pending, subkey{off, hashName(name)})
	longest[0] = max(longest[0], 2*name.units())
	longest[1] = max(longest[1], int(le16(w.at(off)[74:])))
}

// subkeyLists takes the subkeys above mark off the stack and writes the key's lists of them.
func (w *writer) subkeyLists(key uint32, mark int, longest [2]int) error {
	subkeys := w.pending[mark:]
	if len(subkeys) == 0 {
		return nil
	}
	var root []byte
	var list uint32
	for leaf := range slices.Chunk(subkeys, maxLeaf) {
		off, err := w.alloc(4 + 8*len(leaf))
		if err != nil {
			return err
		}
		b := w.at(off)
		copy(b, "lh")
		put16(b[2:], uint16(len(leaf))) //nolint:gosec // at most maxLeaf
		for i, s := range leaf {
			put32(b[4+8*i:], s.off)
			put32(b[8+8*i:], s.hash)
		}
		list = off
		root = append(root, byte(off), byte(off>>8), byte(off>>16), byte(off>>24))
	}
	if count := len(root) / 4; count > 1 {
		if count > 0xFFFF {
			return fmt.Errorf("key with %d subkeys: %w", len(subkeys), ErrInvalid)
		}
		var err error
		head := []byte{'r', 'i', byte(count), byte(count >> 8)}
		if list, err = w.store(append(head, root...)); err != nil {
			return err
		}
	}
	b := w.at(key)
	put32(b[20:], uint32(len(subkeys))) //nolint:gosec // at most 65535 lists
	put32(b[28:], list)
	put16(b[52:], uint16(longest[0])) //nolint:gosec // names are short
	put32(b[56:], uint32(longest[1])) //nolint:gosec // class names are short
	w.pending = w.pending[:mark]
	return nil
}
