package regf

import "slices"

// copyKey copies a key of a hive with all below it, cell by cell and without making nodes, and returns its new cell.
func (w *writer) copyKey(r ref, parent uint32, depth int) (uint32, error) {
	b := w.budgets[r.h]
	if b == nil {
		b = r.h.budget()
		// Values of the same hive may stand at two places of a tree, so there is more to copy than the hive has; but not
		// without end.
		b.left *= 2
		w.budgets[r.h] = b
	}
	c := copier{w, r.h, r.layer, b}
	return c.key(r.off, parent, depth)
}

type copier struct {
	*writer
	h      *Hive
	layer  layering
	budget *budget
}

func (c *copier) key(from, parent uint32, depth int) (uint32, error) {
	k, err := c.h.key(from)
	if err != nil {
		return 0, err
	}
	subkeys, err := c.budget.take(k, depth)
	if err != nil {
		return 0, err
	}
	to, err := c.store(k.nk[:nkSize+int(le16(k.nk[72:]))])
	if err != nil {
		return 0, err
	}
	if err := c.head(k, to, parent); err != nil {
		return 0, err
	}
	if err := c.values(k, to); err != nil {
		return 0, err
	}
	return to, c.subkeys(k, subkeys, to, depth)
}

// head mends what in the copied cell depends on its place, and copies class and security.
func (c *copier) head(k Key, to, parent uint32) error {
	class, err := k.classBytes()
	if err != nil {
		return err
	}
	sk, err := c.securityOf(k)
	if err != nil {
		return err
	}
	classCell := uint32(noCell)
	if len(class) > 0 {
		if classCell, err = c.store(class); err != nil {
			return err
		}
	}
	semantics, inherits := c.layer.apply(k.Semantics(), k.InheritsClass())
	b := c.at(to)
	b[13] = b[13]&^(nkSemantics|nkInheritsClass) | byte(semantics)
	if inherits {
		b[13] |= nkInheritsClass
	}
	put32(b[16:], parent)
	put32(b[20:], 0)
	put32(b[24:], 0)
	put32(b[28:], noCell)
	put32(b[32:], noCell)
	if k.Flags()&KeyPredefined == 0 {
		put32(b[36:], 0)
	}
	put32(b[40:], noCell)
	put32(b[44:], sk)
	put32(b[48:], classCell)
	put16(b[52:], 0)
	clear(b[56:72])
	put16(b[74:], uint16(len(class))) //nolint:gosec // read from 16 bits
	return nil
}

func (c *copier) securityOf(k Key) (uint32, error) {
	from := le32(k.nk[44:])
	if from == noCell {
		return noCell, nil
	}
	i, ok := c.sources[source{c.h, from}]
	if !ok {
		sd, err := k.Security()
		if err != nil {
			return 0, err
		}
		n, err := c.securityCell(sd)
		if err != nil {
			return 0, err
		}
		i = skOwner(n)
		c.sources[source{c.h, from}] = i
	}
	c.sks[i].refs++
	return c.sks[i].off, nil
}

func (c *copier) values(k Key, to uint32) error {
	from, err := k.valueList()
	if err != nil || len(from) == 0 {
		return err
	}
	list := make([]byte, 0, len(from))
	var longestName, longestData int
	for ; len(from) > 0; from = from[4:] {
		v, err := c.h.rawValue(le32(from))
		if err != nil {
			return err
		}
		if v.tombstone() && c.layer != layerKeep {
			continue
		}
		off, err := c.value(v)
		if err != nil {
			return err
		}
		list = append(list, byte(off), byte(off>>8), byte(off>>16), byte(off>>24))
		longestName = max(longestName, 2*v.name().units())
		longestData = max(longestData, int(v.size()))
	}
	if len(list) == 0 {
		return nil
	}
	return c.valueList(to, list, longestName, longestData)
}

func (c *copier) value(v rawValue) (uint32, error) {
	data, cells, err := c.h.data(v)
	if err != nil {
		return 0, err
	}
	if err := c.budget.spend(v.off, uint32(len(v.vk)+4), cells); err != nil { //nolint:gosec // a cell's size
		return 0, err
	}
	to, err := c.store(v.vk[:vkSize+int(le16(v.vk[2:]))])
	if err != nil {
		return 0, err
	}
	if v.tombstone() {
		put32(c.at(to)[4:], 0)
		put32(c.at(to)[8:], noCell)
		return to, nil
	}
	return to, c.data(to, data)
}

func (c *copier) subkeys(k Key, from []uint32, to uint32, depth int) error {
	if len(from) == 0 {
		return nil
	}
	mark := len(c.pending)
	var longest [2]int
	var last rawName
	sorted := true
	for _, off := range from {
		sub, err := c.h.key(off)
		if err != nil {
			return err
		}
		if c.layer != layerKeep && sub.Semantics() == LayerTombstone {
			continue
		}
		written, err := c.key(off, to, depth+1)
		if err != nil {
			return err
		}
		name := sub.rawName()
		sorted = sorted && (last.b == nil || compareNames(last, name) < 0)
		last = name
		c.push(written, name, &longest)
	}
	if !sorted {
		if err := c.sortPending(k, mark); err != nil {
			return err
		}
	}
	return c.subkeyLists(to, mark, longest)
}

// sortPending mends what a writer with other ideas of upper case left.
func (c *copier) sortPending(k Key, mark int) error {
	order := func(a, b subkey) int { return compareNames(c.nameAt(a.off), c.nameAt(b.off)) }
	slices.SortStableFunc(c.pending[mark:], order)
	for i := mark + 1; i < len(c.pending); i++ {
		if order(c.pending[i-1], c.pending[i]) == 0 {
			return corrupt(k.off, "key with two subkeys of one name")
		}
	}
	return nil
}

func (w *writer) nameAt(off uint32) rawName {
	b := w.at(off)
	return rawName{b[nkSize:][:le16(b[72:])], KeyFlags(le16(b[2:]))&keyLatinName == 0}
}
