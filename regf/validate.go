package regf

import "fmt"

// Validate reads all of the hive, bins and cells included, and returns the first thing that is not as it must be: what
// [Hive.Walk] does not look at are the order and hashes of lists, cells that two things claim, parents, counts of security
// descriptors, bins, and the rules of layered keys.
func (h *Hive) Validate() error {
	if h.Dirty() {
		return fmt.Errorf("validate hive: sequence numbers %d and %d: logs not replayed: %w", h.Primary, h.Secondary, ErrCorrupt)
	}
	v := validator{h: h, cells: make([]byte, h.DataSize/64), claimed: make([]byte, h.DataSize/64), sks: map[uint32]uint32{}}
	if err := v.bins(); err != nil {
		return fmt.Errorf("validate hive: %w", err)
	}
	if err := v.key(h.root, noCell, 0, LayerMerge); err != nil {
		return fmt.Errorf("validate hive: %w", err)
	}
	for off, refs := range v.sks {
		sk, err := h.record(off, "sk", skSize, "security descriptor")
		if err != nil {
			return fmt.Errorf("validate hive: %w", err)
		}
		if got := le32(sk[12:]); got != refs {
			return fmt.Errorf("validate hive: %w", corrupt(off, "security descriptor of %d keys counts %d", refs, got))
		}
	}
	return nil
}

type validator struct {
	h              *Hive
	cells, claimed []byte            // a bit for every 8 bytes: an allocated cell starts there; something refers to it
	sks            map[uint32]uint32 // how many keys have this security descriptor
}

// bins walks the bins and their cells, and notes where cells are.
func (v validator) bins() error {
	for off := uint32(0); off < v.h.DataSize; {
		b, err := v.h.cells.bytes(off, binHeader)
		if err != nil {
			return err
		}
		size := le32(b[8:])
		if string(b[:4]) != "hbin" || le32(b[4:]) != off || size == 0 || size%binAlign != 0 || size > v.h.DataSize-off {
			return corrupt(off, "no hive bin, or one of %#x bytes at %#x", size, le32(b[4:]))
		}
		if err := v.bin(off+binHeader, off+size); err != nil {
			return err
		}
		off += size
	}
	return nil
}

func (v validator) bin(off, end uint32) error {
	for off < end {
		b, err := v.h.cells.bytes(off, 4)
		if err != nil {
			return err
		}
		size := int64(int32(le32(b))) //nolint:gosec // allocated cells have a negative size
		if size < 0 {
			v.cells[off/64] |= 1 << (off / 8 % 8)
			size = -size
		}
		if size < 8 || size%8 != 0 || size > int64(end-off) {
			return corrupt(off, "cell of %d bytes, %d before the end of its bin", size, end-off)
		}
		off += uint32(size) //nolint:gosec // checked above
	}
	return nil
}

// claim notes that a cell has a place in the hive; shared ones may have several.
func (v validator) claim(off uint32, what string) error {
	if off%8 != 0 || off >= v.h.DataSize || v.cells[off/64]&(1<<(off/8%8)) == 0 {
		return corrupt(off, "%s where no cell starts", what)
	}
	if v.claimed[off/64]&(1<<(off/8%8)) != 0 {
		return corrupt(off, "%s in a cell that something else has too", what)
	}
	v.claimed[off/64] |= 1 << (off / 8 % 8)
	return nil
}

func (v validator) key(off, parent uint32, depth int, above LayerSemantics) error {
	if err := v.claim(off, "key"); err != nil {
		return err
	}
	k, err := v.h.key(off)
	if err != nil {
		return err
	}
	if depth > MaxDepth {
		return corrupt(off, "key more than %d keys deep", MaxDepth)
	}
	if depth > 0 && le32(k.nk[16:]) != parent {
		return corrupt(off, "key says its parent is at %#x, not %#x", le32(k.nk[16:]), parent)
	}
	if err := v.layering(k, above); err != nil {
		return err
	}
	if class, err := k.classBytes(); err != nil {
		return err
	} else if len(class) > 0 {
		if err := v.claim(le32(k.nk[48:]), "class name"); err != nil {
			return err
		}
	}
	if _, err := k.Security(); err != nil {
		return err
	}
	if sk := le32(k.nk[44:]); sk != noCell {
		v.sks[sk]++
	}
	if err := v.values(k); err != nil {
		return err
	}
	return v.subkeys(k, depth)
}

// layering checks the rules of layered keys.
func (v validator) layering(k Key, above LayerSemantics) error {
	s := k.Semantics()
	switch {
	case s != LayerMerge && v.h.Header.Flags&HeaderLayered == 0:
		return corrupt(k.off, "key with layer semantics %d in a hive without layered keys", s)
	case s == LayerTombstone && (le32(k.nk[20:]) != 0 || le32(k.nk[36:]) != 0 || le16(k.nk[74:]) != 0):
		return corrupt(k.off, "tombstone with a class, subkeys or values")
	case above == LayerSupersedeTree && s != LayerSupersedeTree && s != LayerTombstone:
		return corrupt(k.off, "key with layer semantics %d below a superseding tree", s)
	}
	return nil
}

func (v validator) values(k Key) error {
	list, err := k.valueList()
	if err != nil || len(list) == 0 {
		return err
	}
	if err := v.claim(le32(k.nk[40:]), "list of values"); err != nil {
		return err
	}
	for raw, err := range k.rawValues() {
		if err != nil {
			return err
		}
		if err := v.claim(raw.off, "value"); err != nil {
			return err
		}
		if raw.tombstone() && (raw.size() != 0 || le32(raw.vk[12:]) != 0) {
			return corrupt(raw.off, "tombstone of a value with data")
		}
		if raw.tombstone() && v.h.Header.Flags&HeaderLayered == 0 {
			return corrupt(raw.off, "tombstone of a value in a hive without layered keys")
		}
		if raw.inline() || raw.size() == 0 {
			continue
		}
		if err := v.claim(le32(raw.vk[8:]), "data"); err != nil {
			return err
		}
		if _, _, err := v.h.data(raw); err != nil {
			return err
		}
	}
	return nil
}

func (v validator) subkeys(k Key, depth int) error {
	offs, _, err := k.subkeyOffsets()
	if err != nil {
		return err
	}
	if len(offs) > 0 {
		if err := v.claim(le32(k.nk[28:]), "list of subkeys"); err != nil {
			return err
		}
		if err := v.hashes(k); err != nil {
			return err
		}
	}
	var last Key
	for i, off := range offs {
		sub, err := v.h.key(off)
		if err != nil {
			return err
		}
		if i > 0 && compareNames(last.rawName(), sub.rawName()) >= 0 {
			return corrupt(off, "key %q listed after %q", sub.Name(), last.Name())
		}
		last = sub
		if err := v.key(off, k.off, depth+1, k.Semantics()); err != nil {
			return err
		}
	}
	return nil
}

// hashes checks the hashes of lists of kind lh.
func (v validator) hashes(k Key) error {
	list, count, _, err := v.h.list(le32(k.nk[28:]))
	if err != nil {
		return err
	}
	if string(list[:2]) != "ri" {
		return v.leafHashes(list, count)
	}
	for i := range count {
		off := le32(list[4+4*i:])
		if err := v.claim(off, "list of subkeys"); err != nil {
			return err
		}
		leaf, n, _, err := v.h.list(off)
		if err != nil {
			return err
		}
		if err := v.leafHashes(leaf, n); err != nil {
			return err
		}
	}
	return nil
}

func (v validator) leafHashes(leaf []byte, count uint32) error {
	if string(leaf[:2]) != "lh" {
		return nil
	}
	for i := range count {
		off := le32(leaf[4+8*i:])
		sub, err := v.h.key(off)
		if err != nil {
			return err
		}
		if got, want := le32(leaf[8+8*i:]), hashName(sub.rawName()); got != want {
			return corrupt(off, "key %q listed with hash %#x, not %#x", sub.Name(), got, want)
		}
	}
	return nil
}
