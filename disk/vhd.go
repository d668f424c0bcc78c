package disk

import (
	"encoding/binary"
	"io"
	"math"
	"math/bits"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// The structures of a VHD file, after "Virtual Hard Disk Image Format Specification", Microsoft, 2006, which the names in
// comments refer to. All is big endian, the unique id's bytes are in the order that they are written in.

const (
	vhdCookie     = "conectix"
	vhdFooterSize = 512
	vhdHeaderSize = 1024
	vhdSector     = 512
	maxVHDSize    = 2040 << 30 // Windows makes and attaches no larger ones

	vhdFixed        = 2 // Disk Type
	vhdDynamic      = 3
	vhdDifferencing = 4

	vhdVersion  = 0x00010000
	vhdReserved = 2 // Features: this bit is always set

	minVHDBlock = 512 * kib
	maxVHDBlock = 256 * mib

	vhdUnused = math.MaxUint32 // Block Allocation Table: the block has no data
)

// The time that VHD counts from.
var vhdEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

var be = binary.BigEndian

// vhdFooter is the Hard Disk Footer.
type vhdFooter struct {
	dataOffset   uint64 // of the dynamic disk header; all ones for fixed disks
	time         uint32
	originalSize int64
	size         int64
	diskType     uint32
	id           guid.GUID
}

func (f *vhdFooter) encode() []byte {
	b := make([]byte, vhdFooterSize)
	copy(b, vhdCookie)
	be.PutUint32(b[8:], vhdReserved)
	be.PutUint32(b[12:], vhdVersion)
	be.PutUint64(b[16:], f.dataOffset)
	be.PutUint32(b[24:], f.time)
	// Of creators that they do not know some programs, qemu for one, believe the geometry and not the size, and round the
	// disk to cylinders. So this says what Windows says: its creator, version 10.0, and host.
	copy(b[28:], "win ")
	be.PutUint32(b[32:], 0x000a0000)
	copy(b[36:], "Wi2k")
	be.PutUint64(b[40:], uint64(f.originalSize))
	be.PutUint64(b[48:], uint64(f.size))
	be.PutUint32(b[56:], vhdGeometry(f.size))
	be.PutUint32(b[60:], f.diskType)
	id := f.id.ToArray()
	copy(b[68:], id[:])
	be.PutUint32(b[64:], vhdChecksum(b, 64))
	return b
}

// vhdChecksum is the complement of the sum of all bytes but those of the checksum itself, which is at the offset.
func vhdChecksum(b []byte, at int) uint32 {
	var sum uint32
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// vhdGeometry packs cylinders, heads and sectors a track, as the appendix "CHS Calculation" finds them: as few heads as
// leave at most 1024 cylinders, with longer tracks for larger disks.
func vhdGeometry(size int64) uint32 {
	total := min(size/vhdSector, 65535*16*255)
	if total >= 65535*16*63 {
		return chs(total/255/16, 16, 255)
	}
	tracks := total / 17
	heads := max((tracks+1023)/1024, 4)
	if heads <= 16 && tracks < heads*1024 {
		return chs(tracks/heads, heads, 17)
	}
	if tracks = total / 31; tracks < 16*1024 {
		return chs(tracks/16, 16, 31)
	}
	return chs(total/63/16, 16, 63)
}

func chs(cylinders, heads, sectors int64) uint32 {
	return uint32(cylinders)<<16 | uint32(heads)<<8 | uint32(sectors)
}

// readFooter reads the footer at the end of the file or, where that is damaged, its copy at the start.
func readFooter(r io.ReaderAt, size int64) (f vhdFooter, atEnd bool, err error) {
	f, err = readFooterAt(r, size-vhdFooterSize)
	if err == nil {
		return f, true, nil
	}
	if first, err2 := readFooterAt(r, 0); err2 == nil && first.diskType != vhdFixed {
		return first, false, nil
	}
	return vhdFooter{}, false, err
}

func readFooterAt(r io.ReaderAt, off int64) (vhdFooter, error) {
	const structure = "VHD footer"
	if off < 0 {
		return vhdFooter{}, corrupt(structure, 0, "file is too small")
	}
	b, err := readStructure(r, structure, off, vhdFooterSize)
	if err != nil {
		return vhdFooter{}, err
	}
	f := vhdFooter{
		dataOffset: be.Uint64(b[16:]), time: be.Uint32(b[24:]), originalSize: int64(be.Uint64(b[40:])),
		size: int64(be.Uint64(b[48:])), diskType: be.Uint32(b[60:]), id: guid.FromArray([16]byte(b[68:])),
	}
	switch sum := vhdChecksum(b, 64); {
	case string(b[:8]) != vhdCookie:
		return vhdFooter{}, corrupt(structure, off, "cookie %q", b[:8])
	case sum != be.Uint32(b[64:]):
		return vhdFooter{}, corrupt(structure, off, "checksum %#x, content has %#x", be.Uint32(b[64:]), sum)
	case be.Uint32(b[12:])>>16 != vhdVersion>>16:
		return vhdFooter{}, unsupported(structure, off, "version %#x", be.Uint32(b[12:]))
	case f.size < 0 || f.size%vhdSector != 0:
		return vhdFooter{}, corrupt(structure, off, "disk of %d bytes", f.size)
	case f.size > maxVHDSize:
		return vhdFooter{}, unsupported(structure, off, "disk of %d bytes", f.size)
	case f.diskType == vhdDifferencing:
		return vhdFooter{}, unsupported(structure, off, "differencing VHD")
	case f.diskType != vhdFixed && f.diskType != vhdDynamic:
		return vhdFooter{}, corrupt(structure, off, "disk type %d", f.diskType)
	}
	return f, nil
}

// vhdHeader is the Dynamic Disk Header.
type vhdHeader struct {
	table   int64 // offset of the block allocation table
	entries uint32
	block   int64
}

func (h *vhdHeader) encode() []byte {
	b := make([]byte, vhdHeaderSize)
	copy(b, "cxsparse")
	be.PutUint64(b[8:], math.MaxUint64)
	be.PutUint64(b[16:], uint64(h.table))
	be.PutUint32(b[24:], vhdVersion)
	be.PutUint32(b[28:], h.entries)
	be.PutUint32(b[32:], uint32(h.block))
	be.PutUint32(b[36:], vhdChecksum(b, 36))
	return b
}

func readVHDHeader(r io.ReaderAt, off, diskSize int64) (vhdHeader, error) {
	const structure = "VHD dynamic disk header"
	if off < vhdFooterSize || off > maxImage {
		return vhdHeader{}, corrupt("VHD footer", 0, "dynamic disk header at %d", off)
	}
	b, err := readStructure(r, structure, off, vhdHeaderSize)
	if err != nil {
		return vhdHeader{}, err
	}
	h := vhdHeader{table: int64(be.Uint64(b[16:])), entries: be.Uint32(b[28:]), block: int64(be.Uint32(b[32:]))}
	switch sum := vhdChecksum(b, 36); {
	case string(b[:8]) != "cxsparse":
		return vhdHeader{}, corrupt(structure, off, "cookie %q", b[:8])
	case sum != be.Uint32(b[36:]):
		return vhdHeader{}, corrupt(structure, off, "checksum %#x, content has %#x", be.Uint32(b[36:]), sum)
	case be.Uint32(b[24:])>>16 != vhdVersion>>16:
		return vhdHeader{}, unsupported(structure, off, "version %#x", be.Uint32(b[24:]))
	case bits.OnesCount64(uint64(h.block)) != 1 || h.block < minVHDBlock || h.block > maxVHDBlock:
		return vhdHeader{}, unsupported(structure, off, "blocks of %d bytes", h.block)
	case int64(h.entries) < (diskSize+h.block-1)/h.block:
		return vhdHeader{}, corrupt(structure, off, "%d blocks of %d bytes for a disk of %d", h.entries, h.block, diskSize)
	case h.table < vhdFooterSize || h.table%vhdSector != 0 || h.table > maxImage:
		return vhdHeader{}, corrupt(structure, off, "block allocation table at %d", h.table)
	}
	return h, nil
}
