package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/Microsoft/go-winio/pkg/guid"
)

const (
	metadataItems   = 64 * kib // where items begin, by their region (2.6.1.2)
	maxMetadataItem = mib      // 2.6.1.2: no item is longer

	metadataVirtualDisk = 2 // flags of a metadata table entry (2.6.1.2): the item is about the disk, not the file
	metadataRequired    = 4
)

// item is an entry of the metadata table and its content.
type item struct {
	id    guid.GUID
	flags uint32
	data  []byte
	at    int64 // in the file
}

// encodeMetadata lays the metadata region out, as long as it must be.
func encodeMetadata(g *geometry) ([]byte, error) {
	items, err := g.items()
	if err != nil {
		return nil, err
	}
	b := make([]byte, metadataItems)
	copy(b, "metadata")
	le.PutUint16(b[10:], uint16(len(items)))
	for i, it := range items {
		e := b[32+32*i:]
		putGUID(e, it.id)
		le.PutUint32(e[16:], uint32(len(b)))
		le.PutUint32(e[20:], uint32(len(it.data)))
		le.PutUint32(e[24:], it.flags)
		b = append(b, it.data...)
		b = append(b, zeros[:roundUp(int64(len(b)), 8)-int64(len(b))]...)
	}
	return b, nil
}

func (g *geometry) items() ([]item, error) {
	parameters := make([]byte, 8)
	le.PutUint32(parameters, uint32(g.block))
	if g.allocated {
		parameters[4] |= 1
	}
	if g.differencing {
		parameters[4] |= 2
	}
	page83 := make([]byte, 16)
	putGUID(page83, g.page83)
	disk := uint32(metadataVirtualDisk | metadataRequired)
	items := []item{
		{id: itemFileParameters, flags: metadataRequired, data: parameters},
		{id: itemDiskSize, flags: disk, data: le.AppendUint64(nil, uint64(g.size))},
		{id: itemPage83, flags: disk, data: page83},
		{id: itemLogicalSector, flags: disk, data: le.AppendUint32(nil, uint32(g.sector))},
		{id: itemPhysicalSector, flags: disk, data: le.AppendUint32(nil, uint32(g.physical))},
	}
	if g.locator == nil {
		return items, nil
	}
	locator, err := encodeLocator(g.locator)
	return append(items, item{id: itemParentLocator, flags: metadataRequired, data: locator}), err
}

// readItems reads the metadata table and the items that are known.
func readItems(r io.ReaderAt, at region) ([]item, error) {
	const structure = "VHDX metadata table"
	b, err := readStructure(r, structure, at.offset, metadataItems)
	if err != nil {
		return nil, err
	}
	if string(b[:8]) != "metadata" {
		return nil, corrupt(structure, at.offset, "signature %q", b[:8])
	}
	n := int(le.Uint16(b[10:]))
	if n > maxMetadata {
		return nil, corrupt(structure, at.offset, "%d entries", n)
	}
	var items []item
	for i := range n {
		entry := at.offset + 32 + 32*int64(i)
		it, err := readItem(r, at, b[32+32*i:], entry)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(items, func(o item) bool { return it.data != nil && o.id == it.id }) {
			return nil, corrupt(structure, entry, "item %v is there twice", it.id)
		}
		if it.data != nil {
			items = append(items, it)
		}
	}
	return items, nil
}

var itemSizes = map[guid.GUID]int{
	itemFileParameters: 8, itemDiskSize: 8, itemPage83: 16, itemLogicalSector: 4, itemPhysicalSector: 4, itemParentLocator: -1,
}

// readItem reads what the entry e, which is at the offset entry, stands for. Items that are not known and not required have
// no data.
func readItem(r io.ReaderAt, at region, e []byte, entry int64) (item, error) {
	const structure = "VHDX metadata table"
	offset, length := int64(le.Uint32(e[16:])), int64(le.Uint32(e[20:]))
	it := item{id: getGUID(e), flags: le.Uint32(e[24:]), at: at.offset + offset}
	size, known := itemSizes[it.id]
	switch {
	case !known && it.flags&metadataRequired != 0:
		return item{}, unsupported(structure, entry, "required item %v is not known", it.id)
	case !known:
		return item{}, nil
	case offset < metadataItems || length == 0 || length > maxMetadataItem || offset+length > int64(at.length):
		return item{}, corrupt(structure, entry, "item %v of %d bytes at %d of a region of %d", it.id, length, offset, at.length)
	case size >= 0 && length < int64(size):
		return item{}, corrupt(structure, entry, "item %v has %d bytes", it.id, length)
	}
	var err error
	it.data, err = readStructure(r, "VHDX metadata item", it.at, int(length))
	return it, err
}

// readMetadata returns what the metadata says, and where in the file the disk's size is.
func readMetadata(r io.ReaderAt, at region) (g geometry, sizeAt int64, err error) {
	items, err := readItems(r, at)
	if err != nil {
		return geometry{}, 0, err
	}
	missing := itemSizeNames()
	for _, it := range items {
		delete(missing, it.id)
		switch it.id {
		case itemFileParameters:
			g.block = int64(le.Uint32(it.data))
			g.allocated, g.differencing = it.data[4]&1 != 0, it.data[4]&2 != 0
		case itemDiskSize:
			g.size, sizeAt = int64(le.Uint64(it.data)), it.at
		case itemPage83:
			g.page83 = getGUID(it.data)
		case itemLogicalSector:
			g.sector = int64(le.Uint32(it.data))
		case itemPhysicalSector:
			g.physical = int64(le.Uint32(it.data))
		case itemParentLocator:
			if g.locator, err = decodeLocator(it.data, it.at); err != nil {
				return geometry{}, 0, err
			}
		}
	}
	for _, name := range missing {
		return geometry{}, 0, corrupt("VHDX metadata table", at.offset, "no %s", name)
	}
	if err := g.check(at.offset); err != nil {
		return geometry{}, 0, err
	}
	g.derive()
	return g, sizeAt, nil
}

func itemSizeNames() map[guid.GUID]string {
	return map[guid.GUID]string{
		itemFileParameters: "file parameters", itemDiskSize: "virtual disk size", itemPage83: "page 83 data",
		itemLogicalSector: "logical sector size", itemPhysicalSector: "physical sector size",
	}
}

// Keys of a parent locator (2.6.2.6.3).
const (
	keyLinkage  = "parent_linkage"
	keyLinkage2 = "parent_linkage2"
	keyRelative = "relative_path"
	keyAbsolute = "absolute_win32_path"
	keyVolume   = "volume_path"
)

// encodeLocator writes a parent locator item (2.6.2.6). Windows writes the linkage first, and so do we.
func encodeLocator(l *Locator) ([]byte, error) {
	pairs := [][2]string{{keyLinkage, "{" + l.Linkage.String() + "}"}}
	for _, p := range [][2]string{{keyRelative, l.Relative}, {keyVolume, l.Volume}, {keyAbsolute, l.Absolute}} {
		if p[1] != "" {
			pairs = append(pairs, p)
		}
	}
	if len(pairs) == 1 {
		return nil, invalid("a differencing image needs a path to its parent")
	}
	b := make([]byte, 20+12*len(pairs))
	putGUID(b, locatorVHDX)
	le.PutUint16(b[18:], uint16(len(pairs)))
	for i, p := range pairs {
		key, value := encodeUTF16(p[0]), encodeUTF16(p[1])
		if len(value) > 64*kib-2 {
			return nil, invalid("%s of %d bytes is too long", p[0], len(p[1]))
		}
		e := b[20+12*i:]
		le.PutUint32(e, uint32(len(b)))
		le.PutUint32(e[4:], uint32(len(b)+len(key)))
		le.PutUint16(e[8:], uint16(len(key)))
		le.PutUint16(e[10:], uint16(len(value)))
		b = append(append(b, key...), value...)
	}
	return b, nil
}

func decodeLocator(b []byte, at int64) (*Locator, error) {
	const structure = "VHDX parent locator"
	if len(b) < 20 {
		return nil, corrupt(structure, at, "%d bytes", len(b))
	}
	if id := getGUID(b); id != locatorVHDX {
		return nil, unsupported(structure, at, "type %v", id)
	}
	n := int(le.Uint16(b[18:]))
	if 20+12*n > len(b) {
		return nil, corrupt(structure, at, "%d entries in %d bytes", n, len(b))
	}
	found := map[string]string{}
	for i := range n {
		e := b[20+12*i:]
		key, ok1 := decodeUTF16(b, le.Uint32(e), le.Uint16(e[8:]))
		value, ok2 := decodeUTF16(b, le.Uint32(e[4:]), le.Uint16(e[10:]))
		if _, twice := found[key]; !ok1 || !ok2 || twice {
			return nil, corrupt(structure, at+20+12*int64(i), "entry %d of %d, key %q", i, n, key)
		}
		found[key] = value
	}
	linkage, err := parseLinkage(found)
	if err != nil {
		return nil, corrupt(structure, at, "%w", err)
	}
	return &Locator{
		Linkage: linkage, Relative: found[keyRelative], Absolute: found[keyAbsolute], Volume: found[keyVolume],
	}, nil
}

// parseLinkage takes parent_linkage; a value of parent_linkage2 counts only where the first is missing, as an interrupted
// change of parents can leave it.
func parseLinkage(found map[string]string) (guid.GUID, error) {
	value, ok := found[keyLinkage]
	if !ok {
		value, ok = found[keyLinkage2]
	}
	if !ok {
		return guid.GUID{}, fmt.Errorf("no %s", keyLinkage)
	}
	g, err := guid.FromString(strings.TrimSuffix(strings.TrimPrefix(value, "{"), "}"))
	if err != nil {
		return guid.GUID{}, fmt.Errorf("%s %q is not a GUID", keyLinkage, value)
	}
	return g, nil
}

func encodeUTF16(s string) []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, le, utf16.Encode([]rune(s))) // memory takes all
	return b.Bytes()
}

func decodeUTF16(b []byte, off uint32, n uint16) (string, bool) {
	end := int64(off) + int64(n)
	if n == 0 || n%2 != 0 || end > int64(len(b)) {
		return "", false
	}
	units := make([]uint16, n/2)
	for i := range units {
		units[i] = le.Uint16(b[int(off)+2*i:])
	}
	return string(utf16.Decode(units)), true
}
