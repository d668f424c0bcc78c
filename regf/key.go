package regf

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// KeyFlags are the flags of a key.
type KeyFlags uint16

// The flags that have names.
const (
	KeyVolatile   KeyFlags = 1 << iota // bits 0 to 3 are the user's in Windows XP
	KeyHiveExit                        // another hive is mounted here
	KeyHiveEntry                       // the root of a hive
	KeyNoDelete                        // cannot be deleted
	KeySymLink                         // a link to the key that its value SymbolicLinkValue names
	keyLatinName                       // how the name is stored: no concern of callers
	KeyPredefined                      // has a predefined handle instead of values
)

// LayerSemantics say what a key of a delta does to the key below.
type LayerSemantics uint8

// Layer semantics, see docs/formats/layered-hive.md.
const (
	LayerMerge          LayerSemantics = iota // values and subkeys add to those below
	LayerTombstone                            // the key below is gone
	LayerSupersedeLocal                       // the values below are gone, the subkeys are not
	LayerSupersedeTree                        // all that is below is gone
)

const (
	nkSize          = 76
	nkSemantics     = 0x03 // of byte 13
	nkInheritsClass = 0x80 // of byte 13
	skSize          = 20
)

// A Key is a key of a Hive.
type Key struct {
	h   *Hive
	off uint32
	nk  []byte
}

func (h *Hive) key(off uint32) (Key, error) {
	nk, err := h.record(off, "nk", nkSize, "key")
	if err != nil {
		return Key{}, err
	}
	n := int(le16(nk[72:]))
	if n > len(nk)-nkSize || n%2 != 0 && KeyFlags(le16(nk[2:]))&keyLatinName == 0 {
		return Key{}, corrupt(off, "name of %d bytes in a key of %d", n, len(nk))
	}
	return Key{h, off, nk}, nil
}

// Root returns the hive's uppermost key. Its name means nothing.
func (h *Hive) Root() (Key, error) { return h.key(h.root) }

// Lookup returns the key at a path below the root, whose parts a backslash separates, or an error of class ErrNotExist.
func (h *Hive) Lookup(path string) (Key, error) {
	k, err := h.Root()
	for part := range strings.SplitSeq(path, `\`) {
		if err != nil {
			break
		}
		if part != "" {
			k, err = k.Subkey(part)
		}
	}
	if err != nil {
		return Key{}, fmt.Errorf("look up key %q: %w", path, err)
	}
	return k, nil
}

func (k Key) rawName() rawName {
	return rawName{k.nk[nkSize:][:le16(k.nk[72:])], k.Flags()&keyLatinName == 0}
}

// Offset returns the offset of the key's cell from the first hive bin, as errors name it.
func (k Key) Offset() uint32 { return k.off }

// Name returns the key's own name.
func (k Key) Name() string { return k.rawName().String() }

// Modified returns the time of the last change of the key or its values.
func (k Key) Modified() Filetime { return Filetime(le64(k.nk[4:])) }

// Flags returns the key's flags.
func (k Key) Flags() KeyFlags { return KeyFlags(le16(k.nk[2:])) }

// Semantics returns what the key does to the one below; LayerMerge in a hive that is no delta.
func (k Key) Semantics() LayerSemantics { return LayerSemantics(k.nk[13] & nkSemantics) }

// InheritsClass reports whether the class of a key of a delta is that of the key below.
func (k Key) InheritsClass() bool { return k.nk[13]&nkInheritsClass != 0 }

// NumSubkeys returns how many subkeys the key claims to have.
func (k Key) NumSubkeys() int { return int(le32(k.nk[20:])) }

func (k Key) classBytes() ([]byte, error) {
	size := le16(k.nk[74:])
	off := le32(k.nk[48:])
	if size == 0 || off == noCell {
		return nil, nil
	}
	b, err := k.h.cell(off, "class name")
	if err == nil && len(b) < int(size) {
		err = corrupt(off, "%d bytes for a class name of %d", len(b), size)
	}
	if err != nil {
		return nil, fmt.Errorf("read key at %#x: %w", k.off, err)
	}
	return b[:size:size], nil
}

// Class returns the key's class name, which most keys lack.
func (k Key) Class() (string, error) {
	b, err := k.classBytes()
	return rawName{b[:len(b)&^1], true}.String(), err
}

// Security returns the key's self-relative security descriptor, or nothing for a key without one.
func (k Key) Security() ([]byte, error) {
	off := le32(k.nk[44:])
	if off == noCell {
		return nil, nil
	}
	b, err := k.h.record(off, "sk", skSize, "security descriptor")
	if err == nil && uint64(le32(b[16:])) > uint64(len(b)-skSize) {
		err = corrupt(off, "%d bytes for a security descriptor of %d", len(b)-skSize, le32(b[16:]))
	}
	if err != nil {
		return nil, fmt.Errorf("read key at %#x: %w", k.off, err)
	}
	size := le32(b[16:])
	return b[skSize:][:size:size], nil
}

// listEntry is the size of a list's elements, by kind.
func listEntry(list []byte) uint32 {
	switch string(list[:2]) {
	case "li", "ri":
		return 4
	case "lf", "lh":
		return 8
	}
	return 0
}

func (h *Hive) list(off uint32) (list []byte, count, entry uint32, err error) {
	list, err = h.cell(off, "list of subkeys")
	if err != nil {
		return nil, 0, 0, err
	}
	entry, count = listEntry(list), uint32(le16(list[2:]))
	if entry == 0 || uint64(len(list)) < 4+uint64(entry)*uint64(count) {
		return nil, 0, 0, corrupt(off, "no list of subkeys, or one of %d in %d bytes", count, len(list))
	}
	return list, count, entry, nil
}

// subkeyOffsets returns the cells of the key's subkeys and how many bytes of cells list them.
func (k Key) subkeyOffsets() (offs []uint32, cells uint32, err error) {
	want := le32(k.nk[20:])
	if want == 0 {
		return nil, 0, nil
	}
	if want > k.h.DataSize/(nkSize+4) {
		return nil, 0, corrupt(k.off, "key with %d subkeys in a hive of %#x bytes", want, k.h.DataSize)
	}
	off := le32(k.nk[28:])
	list, count, entry, err := k.h.list(off)
	if err != nil {
		return nil, 0, fmt.Errorf("read key at %#x: %w", k.off, err)
	}
	cells = uint32(len(list)) //nolint:gosec // a cell's size
	if string(list[:2]) != "ri" {
		offs = appendEntries(nil, list, count, entry)
	} else if offs, cells, err = k.rootList(off, list, count, want); err != nil {
		return nil, 0, err
	}
	if uint32(len(offs)) != want { //nolint:gosec // at most 65535 times 65535
		return nil, 0, corrupt(off, "%d subkeys listed for a key at %#x with %d", len(offs), k.off, want)
	}
	return offs, cells, nil
}

// rootList reads a list of lists, which have at least one subkey each.
func (k Key) rootList(off uint32, root []byte, count, want uint32) (offs []uint32, cells uint32, err error) {
	cells = uint32(len(root)) //nolint:gosec // a cell's size
	for i := range count {
		leafOff := le32(root[4+4*i:])
		leaf, n, entry, err := k.h.list(leafOff)
		if err != nil {
			return nil, 0, fmt.Errorf("read list at %#x: %w", off, err)
		}
		if string(leaf[:2]) == "ri" || n == 0 {
			return nil, 0, corrupt(leafOff, "list of lists, or nothing, in the list of lists at %#x", off)
		}
		if n > want-uint32(len(offs)) { //nolint:gosec // at most want
			return nil, 0, corrupt(leafOff, "more subkeys listed than the %d of the key at %#x", want, k.off)
		}
		offs = appendEntries(offs, leaf, n, entry)
		cells += uint32(len(leaf)) //nolint:gosec // at most want leaves, in a hive below 2 GiB; overflow only shortens a walk's budget
	}
	return offs, cells, nil
}

func appendEntries(offs []uint32, list []byte, count, entry uint32) []uint32 {
	offs = slices.Grow(offs, int(count))
	for i := range count {
		offs = append(offs, le32(list[4+entry*i:]))
	}
	return offs
}

// Subkeys returns the key's subkeys in the order of their list, which is that of their names in upper case. The walk ends
// with the first error. Callers that descend by it bound the depth themselves, or use [Hive.Walk].
func (k Key) Subkeys() iter.Seq2[Key, error] {
	return func(yield func(Key, error) bool) {
		offs, _, err := k.subkeyOffsets()
		if err != nil {
			yield(Key{}, err)
			return
		}
		for _, off := range offs {
			sub, err := k.h.key(off)
			if !yield(sub, err) || err != nil {
				return
			}
		}
	}
}

// Subkey returns the subkey of that name, whatever its case, or an error of class ErrNotExist.
func (k Key) Subkey(name string) (Key, error) {
	offs, _, err := k.subkeyOffsets()
	if err != nil {
		return Key{}, err
	}
	want := nameOf(name)
	low, high := 0, len(offs)
	for low < high {
		mid := int(uint(low+high) / 2)
		sub, err := k.h.key(offs[mid])
		if err != nil {
			return Key{}, err
		}
		switch c := compareNames(sub.rawName(), want); {
		case c == 0:
			return sub, nil
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	// A writer whose idea of upper case is another than ours may have sorted otherwise.
	for _, off := range offs {
		if sub, err := k.h.key(off); err != nil || compareNames(sub.rawName(), want) == 0 {
			return sub, err
		}
	}
	return Key{}, fmt.Errorf("find key %q below %q: %w", name, k.Name(), ErrNotExist)
}
