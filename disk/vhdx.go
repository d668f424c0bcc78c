package disk

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/bits"
	"slices"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// The structures of a VHDX file, by section of [MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format. All is little endian,
// GUIDs are in Windows' order.

const (
	vhdxPage       = 4 * kib // unit of the log and of headers
	vhdxStructure  = 64 * kib
	vhdxHeaderArea = mib // 2.2: the header section takes the first MiB

	headerOffset1 = 1 * vhdxStructure
	headerOffset2 = 2 * vhdxStructure
	regionOffset1 = 3 * vhdxStructure
	regionOffset2 = 4 * vhdxStructure

	maxRegions   = 2047      // 2.2.3.1
	maxMetadata  = 2047      // 2.6.1.1
	maxVHDXSize  = 64 << 40  // 2.6.2.4
	minVHDXBlock = mib       // 2.6.2.1
	maxVHDXBlock = 256 * mib // 2.6.2.1

	// maxImage bounds the file: the largest disk, and as much again for whatever else a writer puts there.
	maxImage = 2 * maxVHDXSize

	creator = "Hostcompute"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

func mustGUID(s string) guid.GUID {
	g, err := guid.FromString(s)
	if err != nil {
		panic(err)
	}
	return g
}

var (
	regionBAT      = mustGUID("2dc27766-f623-4200-9d64-115e9bfd4a08") // 2.2.3.2
	regionMetadata = mustGUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")

	itemFileParameters = mustGUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b") // 2.6.2
	itemDiskSize       = mustGUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
	itemPage83         = mustGUID("beca12ab-b2e6-4523-93ef-c309e000c746")
	itemLogicalSector  = mustGUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
	itemPhysicalSector = mustGUID("cda348c7-445d-4471-9cc9-e9885251c556")
	itemParentLocator  = mustGUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")

	locatorVHDX = mustGUID("b04aefb7-d19e-4a81-b789-25b8e9445913") // 2.6.2.6.3
)

func getGUID(b []byte) guid.GUID { return guid.FromWindowsArray([16]byte(b[:16])) }

func putGUID(b []byte, g guid.GUID) {
	a := g.ToWindowsArray()
	copy(b, a[:])
}

// checksum is CRC-32C over b with the four bytes at 4 taken as zero, as all structures here have it.
func checksum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:4])
	sum = crc32.Update(sum, castagnoli, zeros[:4])
	return crc32.Update(sum, castagnoli, b[8:])
}

// vhdxHeader is the header (2.2.2). There are two; the valid one with the higher sequence number counts.
type vhdxHeader struct {
	sequence            uint64
	fileWrite           guid.GUID
	dataWrite           guid.GUID
	log                 guid.GUID
	logVersion, version uint16
	logLength           uint32
	logOffset           int64
}

func (h *vhdxHeader) encode() []byte {
	b := make([]byte, vhdxPage)
	copy(b, "head")
	le.PutUint64(b[8:], h.sequence)
	putGUID(b[16:], h.fileWrite)
	putGUID(b[32:], h.dataWrite)
	putGUID(b[48:], h.log)
	le.PutUint16(b[64:], h.logVersion)
	le.PutUint16(b[66:], h.version)
	le.PutUint32(b[68:], h.logLength)
	le.PutUint64(b[72:], uint64(h.logOffset))
	le.PutUint32(b[4:], checksum(b))
	return b
}

// readHeader returns the header that counts, and whether it is the second one.
func readHeader(r io.ReaderAt) (h vhdxHeader, second bool, err error) {
	h1, err1 := readHeaderAt(r, headerOffset1)
	h2, err2 := readHeaderAt(r, headerOffset2)
	switch {
	case err1 != nil && err2 != nil:
		return vhdxHeader{}, false, err1
	case err1 != nil, err2 == nil && h2.sequence > h1.sequence:
		h, second = h2, true
	default:
		h = h1
	}
	at := int64(headerOffset1)
	if second {
		at = headerOffset2
	}
	return h, second, h.check(at)
}

func readHeaderAt(r io.ReaderAt, off int64) (vhdxHeader, error) {
	b, err := readStructure(r, "VHDX header", off, vhdxPage)
	if err != nil {
		return vhdxHeader{}, err
	}
	if string(b[:4]) != "head" {
		return vhdxHeader{}, corrupt("VHDX header", off, "signature %q", b[:4])
	}
	if sum := checksum(b); sum != le.Uint32(b[4:]) {
		return vhdxHeader{}, corrupt("VHDX header", off, "checksum %#x, content has %#x", le.Uint32(b[4:]), sum)
	}
	return vhdxHeader{
		sequence:   le.Uint64(b[8:]),
		fileWrite:  getGUID(b[16:]),
		dataWrite:  getGUID(b[32:]),
		log:        getGUID(b[48:]),
		logVersion: le.Uint16(b[64:]),
		version:    le.Uint16(b[66:]),
		logLength:  le.Uint32(b[68:]),
		logOffset:  int64(le.Uint64(b[72:])),
	}, nil
}

func (h *vhdxHeader) check(off int64) error {
	switch {
	case h.version != 1:
		return unsupported("VHDX header", off, "version %d", h.version)
	case h.logLength%mib != 0 || h.logOffset%mib != 0 || h.logLength > 0 && h.logOffset < vhdxHeaderArea:
		return corrupt("VHDX header", off, "log of %d bytes at %d is not made of whole megabytes", h.logLength, h.logOffset)
	case h.logOffset < 0 || h.logOffset > 1<<62:
		return corrupt("VHDX header", off, "log at %d", h.logOffset)
	}
	return nil
}

// region is an entry of the region table (2.2.3).
type region struct {
	id       guid.GUID
	offset   int64
	length   uint32
	required bool
}

func encodeRegions(regions []region) []byte {
	b := make([]byte, vhdxStructure)
	copy(b, "regi")
	le.PutUint32(b[8:], uint32(len(regions)))
	for i, r := range regions {
		e := b[16+32*i:]
		putGUID(e, r.id)
		le.PutUint64(e[16:], uint64(r.offset))
		le.PutUint32(e[24:], r.length)
		if r.required {
			e[28] = 1
		}
	}
	le.PutUint32(b[4:], checksum(b))
	return b
}

// readRegions returns the regions of the first of the two tables that is valid.
func readRegions(r io.ReaderAt) ([]region, error) {
	regions, err := readRegionsAt(r, regionOffset1)
	if err == nil {
		return regions, nil
	}
	if second, err2 := readRegionsAt(r, regionOffset2); err2 == nil {
		return second, nil
	}
	return nil, err
}

func readRegionsAt(r io.ReaderAt, off int64) ([]region, error) {
	const structure = "VHDX region table"
	b, err := readStructure(r, structure, off, vhdxStructure)
	if err != nil {
		return nil, err
	}
	if string(b[:4]) != "regi" {
		return nil, corrupt(structure, off, "signature %q", b[:4])
	}
	if sum := checksum(b); sum != le.Uint32(b[4:]) {
		return nil, corrupt(structure, off, "checksum %#x, content has %#x", le.Uint32(b[4:]), sum)
	}
	n := le.Uint32(b[8:])
	if n > maxRegions {
		return nil, corrupt(structure, off, "%d entries", n)
	}
	regions := make([]region, n)
	for i := range regions {
		at := 16 + 32*i
		e := b[at:]
		x := region{getGUID(e), int64(le.Uint64(e[16:])), le.Uint32(e[24:]), e[28]&1 != 0}
		if x.offset < vhdxHeaderArea || x.offset%mib != 0 || x.length == 0 || x.length%mib != 0 || x.offset > 1<<62 {
			return nil, corrupt(structure, off+int64(at), "region %v of %d bytes at %d", x.id, x.length, x.offset)
		}
		if x.required && x.id != regionBAT && x.id != regionMetadata {
			return nil, unsupported(structure, off+int64(at), "required region %v is not known", x.id)
		}
		if slices.ContainsFunc(regions[:i], func(o region) bool { return o.id == x.id }) {
			return nil, corrupt(structure, off+int64(at), "region %v is there twice", x.id)
		}
		regions[i] = x
	}
	return regions, nil
}

// geometry is what the metadata says of the virtual disk, and what follows from it.
type geometry struct {
	size         int64
	block        int64
	sector       int64
	physical     int64
	page83       guid.GUID
	differencing bool
	allocated    bool // LeaveBlockAllocated: the image is a fixed one
	locator      *Locator

	ratio      int64 // payload blocks for each sector bitmap block (2.5.1)
	blockShift int
}

func (g *geometry) derive() {
	g.ratio = (1 << 23) * g.sector / g.block
	g.blockShift = bits.TrailingZeros64(uint64(g.block))
}

func (g *geometry) blocks() int64 { return (g.size + g.block - 1) >> g.blockShift }

// batIndex returns the place of a payload block in the block allocation table: after every ratio of them there is a sector
// bitmap block (2.5).
func (g *geometry) batIndex(block int64) int64 { return block + block/g.ratio }

func (g *geometry) bitmapIndex(block int64) int64 { return (block/g.ratio+1)*(g.ratio+1) - 1 }

// batEntries returns how many entries the table needs (2.5).
func (g *geometry) batEntries() int64 {
	n := g.blocks()
	if g.differencing {
		return (n + g.ratio - 1) / g.ratio * (g.ratio + 1)
	}
	return n + max(n-1, 0)/g.ratio
}

func (g *geometry) check(off int64) error {
	const structure = "VHDX metadata"
	switch {
	case g.sector != 512 && g.sector != 4096:
		return corrupt(structure, off, "logical sectors of %d bytes", g.sector)
	case g.physical != 512 && g.physical != 4096:
		return corrupt(structure, off, "physical sectors of %d bytes", g.physical)
	case g.block < minVHDXBlock || g.block > maxVHDXBlock || g.block&(g.block-1) != 0:
		return corrupt(structure, off, "blocks of %d bytes", g.block)
	case g.size < 0 || g.size > maxVHDXSize || g.size%g.sector != 0:
		return corrupt(structure, off, "virtual disk of %d bytes with sectors of %d", g.size, g.sector)
	case g.differencing && g.allocated:
		return corrupt(structure, off, "image is both fixed and differencing")
	case g.differencing && g.locator == nil:
		return corrupt(structure, off, "differencing image without a parent locator")
	}
	return nil
}

// States of a block (2.5.1.1, 2.5.1.2).
const (
	blockNotPresent = 0
	blockUndefined  = 1
	blockZero       = 2
	blockUnmapped   = 3
	blockFull       = 6
	blockPartial    = 7
	bitmapPresent   = 6
)

// batEntry is an entry of the block allocation table: a state in 3 bits and, from bit 20 on, an offset in MiB (2.5.1).
type batEntry uint64

func entryOf(state int, offset int64) batEntry {
	return batEntry(uint64(offset)/mib<<20 | uint64(state))
}

func (e batEntry) state() int { return int(e & 7) }

// offset returns the block's offset, which 44 bits of MiB may put beyond what a file can have.
func (e batEntry) offset() int64 {
	if e>>20 >= 1<<42 {
		return 1 << 62
	}
	return int64(e>>20) * mib
}

func (e batEntry) present() bool { return e.state() == blockFull || e.state() == blockPartial }
