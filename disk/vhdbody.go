package disk

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// vhd is the body of a VHD image. A fixed one is the disk and a footer. A dynamic one has a copy of the footer, a header, the
// block allocation table, blocks with a bitmap of their sectors before each, and the footer.
type vhd struct {
	r io.ReaderAt
	w File

	footer   vhdFooter
	header   vhdHeader // dynamic
	bat      []uint32  // sectors; vhdUnused
	eof      int64     // where the footer is, and the next block goes
	new      bool
	unsynced bool // tables differ from the file's
	changed  bool // anything was written
}

func createVHD(f File, o Options) (*Disk, error) {
	if o.SectorSize != vhdSector || o.PhysicalSectorSize != 0 && o.PhysicalSectorSize != vhdSector {
		return nil, invalid("VHD has sectors of 512 bytes")
	}
	if o.Size == 0 || o.Size > maxVHDSize {
		return nil, invalid("VHD of %d bytes: it has some, and at most %d", o.Size, int64(maxVHDSize))
	}
	id, err := newGUID(o.Rand, o.ID)
	if err != nil {
		return nil, err
	}
	stamp := int64(0)
	if !o.Time.IsZero() {
		stamp = int64(o.Time.Sub(vhdEpoch) / time.Second)
	}
	if stamp < 0 || stamp > math.MaxUint32 {
		return nil, invalid("VHD cannot tell the time %v", o.Time)
	}
	v := &vhd{r: f, w: f, new: true, unsynced: true, changed: true}
	v.footer = vhdFooter{time: uint32(stamp), originalSize: o.Size, size: o.Size, id: id}
	if o.Format == FixedVHD {
		if o.BlockSize != 0 {
			return nil, invalid("a fixed VHD has no blocks")
		}
		v.footer.diskType, v.footer.dataOffset, v.eof = vhdFixed, math.MaxUint64, o.Size
		return v.disk(), nil
	}
	v.footer.diskType, v.footer.dataOffset = vhdDynamic, vhdFooterSize
	if o.BlockSize == 0 {
		o.BlockSize = 2 * mib
	}
	if o.BlockSize < minVHDBlock || o.BlockSize > maxVHDBlock || o.BlockSize&(o.BlockSize-1) != 0 {
		return nil, invalid("VHD with blocks of %d bytes", o.BlockSize)
	}
	n := (o.Size + o.BlockSize - 1) / o.BlockSize
	v.header = vhdHeader{table: vhdFooterSize + vhdHeaderSize, entries: uint32(n), block: o.BlockSize}
	v.bat = slices.Repeat([]uint32{vhdUnused}, int(n))
	v.eof = v.header.table + roundUp(4*n, vhdSector)
	return v.disk(), nil
}

func openVHD(r io.ReaderAt, size int64, w File) (*Disk, error) {
	footer, atEnd, err := readFooter(r, size)
	if err != nil {
		return nil, err
	}
	v := &vhd{r: r, w: w, footer: footer, eof: roundUp(size, vhdSector)}
	if atEnd {
		v.eof = size - vhdFooterSize
	}
	if footer.diskType == vhdFixed {
		if footer.size > v.eof {
			return nil, corrupt("VHD footer", v.eof, "disk of %d bytes in a file of %d", footer.size, size)
		}
		return v.disk(), nil
	}
	if v.header, err = readVHDHeader(r, int64(footer.dataOffset), footer.size); err != nil {
		return nil, err
	}
	if err := v.readBAT(); err != nil {
		return nil, err
	}
	v.eof = roundUp(v.eof, vhdSector)
	return v.disk(), nil
}

func (v *vhd) disk() *Disk {
	info := Info{Size: v.footer.size, SectorSize: vhdSector, PhysicalSectorSize: vhdSector, ID: v.footer.id, Format: FixedVHD}
	if v.bat != nil {
		info.Format, info.BlockSize = DynamicVHD, v.header.block
	}
	return &Disk{info: info, body: v}
}

// readBAT reads the table as far as the disk's size needs it, and refuses blocks that overlap or are not in the file.
func (v *vhd) readBAT() error {
	const structure = "VHD block allocation table"
	n := (v.footer.size + v.header.block - 1) / v.header.block
	b, err := readStructure(v.r, structure, v.header.table, int(4*n))
	if err != nil {
		return err
	}
	type use struct{ at, n, index int64 }
	uses := []use{{0, vhdFooterSize, -1}, {int64(v.footer.dataOffset), vhdHeaderSize, -1}, {v.header.table, roundUp(4*n, vhdSector), -1}}
	v.bat = make([]uint32, n)
	for i := range n {
		v.bat[i] = be.Uint32(b[4*i:])
		if v.bat[i] != vhdUnused {
			uses = append(uses, use{int64(v.bat[i]) * vhdSector, v.bitmapSize() + v.header.block, i})
		}
	}
	slices.SortFunc(uses, func(a, b use) int { return int(min(max(a.at-b.at, -1), 1)) })
	whole := v.eof
	for i, u := range uses {
		// The last block of some writers' images is cut off where the disk ends. New ones come behind what it would have.
		whole = max(whole, u.at+u.n)
		end := u.at + u.n
		if u.index == n-1 {
			end = u.at + v.bitmapSize() + v.footer.size - u.index*v.header.block
		}
		if i > 0 && uses[i-1].at+uses[i-1].n > u.at || end > v.eof {
			return corrupt(structure, v.header.table+4*max(u.index, 0), "block at %d overlaps, or is not in the file", u.at)
		}
	}
	v.eof = whole
	return nil
}

// bitmapSize is that of the sector bitmap before each block, in whole sectors.
func (v *vhd) bitmapSize() int64 { return roundUp(v.header.block/vhdSector/8, vhdSector) }

// each calls f for every block that the range touches, with where the block is, zero if it has no space.
func (v *vhd) each(p []byte, off int64, f func(p []byte, block, in int64) error) error {
	for len(p) > 0 {
		block, in := off/v.header.block, off%v.header.block
		n := min(int64(len(p)), v.header.block-in)
		if err := f(p[:n], block, in); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (v *vhd) read(p []byte, off int64) error {
	if v.bat == nil {
		return readZeroed(v.r, p, off)
	}
	return v.each(p, off, func(p []byte, block, in int64) error {
		if v.bat[block] == vhdUnused {
			clear(p)
			return nil
		}
		return v.readBlock(p, int64(v.bat[block])*vhdSector, in)
	})
}

// readBlock reads from a block at the offset at; sectors whose bit is not set were never written.
func (v *vhd) readBlock(p []byte, at, in int64) error {
	if err := readZeroed(v.r, p, at+v.bitmapSize()+in); err != nil {
		return err
	}
	first, last := in/vhdSector, (in+int64(len(p))-1)/vhdSector
	bitmap := make([]byte, last/8-first/8+1)
	if err := readZeroed(v.r, bitmap, at+first/8); err != nil {
		return err
	}
	for s := first; s <= last; s++ {
		if bitmap[s/8-first/8]&(0x80>>(s%8)) == 0 {
			clear(p[max(s*vhdSector-in, 0):min((s+1)*vhdSector-in, int64(len(p)))])
		}
	}
	return nil
}

func (v *vhd) write(p []byte, off int64) error {
	if v.w == nil {
		return errReadOnly
	}
	v.changed = true
	if v.bat == nil {
		_, err := v.w.WriteAt(p, off)
		return err
	}
	return v.each(p, off, v.writeBlock)
}

func (v *vhd) writeBlock(p []byte, block, in int64) error {
	if v.bat[block] == vhdUnused {
		if isZero(p) {
			return nil
		}
		return v.writeNew(p, block, in)
	}
	at := int64(v.bat[block]) * vhdSector
	if err := v.ownSectors(at, in, int64(len(p))); err != nil {
		return err
	}
	_, err := v.w.WriteAt(p, at+v.bitmapSize()+in)
	return err
}

// writeNew gives a block its space, with all sectors in use: that is what Windows writes too, and some readers expect.
func (v *vhd) writeNew(p []byte, block, in int64) error {
	if !v.unsynced && !v.new {
		if err := v.w.Truncate(v.eof); err != nil { // the block takes the footer's place; a copy is at the start
			return err
		}
	}
	at := v.eof
	bitmap := slices.Repeat([]byte{0xff}, int(v.bitmapSize()))
	if _, err := v.w.WriteAt(bitmap, at); err != nil {
		return err
	}
	if _, err := v.w.WriteAt(p, at+v.bitmapSize()+in); err != nil {
		return err
	}
	v.bat[block], v.eof, v.unsynced = uint32(at/vhdSector), at+v.bitmapSize()+v.header.block, true
	return nil
}

// ownSectors makes sectors ones that were written. Those that were not have been zero, whatever is in their place.
func (v *vhd) ownSectors(at, in, n int64) error {
	first, last := in/vhdSector, (in+n-1)/vhdSector
	bitmap := make([]byte, last/8-first/8+1)
	if err := readZeroed(v.r, bitmap, at+first/8); err != nil {
		return err
	}
	changed := false
	for s := first; s <= last; s++ {
		if c, bit := &bitmap[s/8-first/8], byte(0x80>>(s%8)); *c&bit == 0 {
			if err := writeZeros(v.w, at+v.bitmapSize()+s*vhdSector, vhdSector); err != nil {
				return err
			}
			*c, changed = *c|bit, true
		}
	}
	if !changed {
		return nil
	}
	_, err := v.w.WriteAt(bitmap, at+first/8)
	return err
}

func (v *vhd) next(off, end int64) (start, n int64, err error) {
	if v.bat == nil {
		return nextData(v.r, off, end)
	}
	for ; off < end; off = (off/v.header.block + 1) * v.header.block {
		block := off / v.header.block
		if v.bat[block] == vhdUnused {
			continue
		}
		base := int64(v.bat[block])*vhdSector + v.bitmapSize() - block*v.header.block
		start, n, err := nextData(v.r, base+off, base+min((block+1)*v.header.block, end))
		if n > 0 || err != nil {
			return start - base, n, err
		}
	}
	return 0, 0, nil
}

func (v *vhd) resize(size int64) error {
	switch {
	case v.w == nil:
		return errReadOnly
	case size > maxVHDSize:
		return invalid("VHD has at most %d bytes", int64(maxVHDSize))
	}
	if v.bat == nil {
		if err := v.moveFooter(size); err != nil {
			return err
		}
	} else if err := v.growBAT(size); err != nil {
		return err
	}
	v.footer.size, v.unsynced, v.changed = size, true, true
	return nil
}

// moveFooter gives a fixed image its new footer before the old one becomes zeros of the disk.
func (v *vhd) moveFooter(size int64) error {
	old := v.footer.size
	v.footer.size = size
	if _, err := v.w.WriteAt(v.footer.encode(), size); err != nil {
		return err
	}
	if err := v.w.Sync(); err != nil {
		return err
	}
	if err := writeZeros(v.w, old, min(v.eof+vhdFooterSize, size)-old); err != nil {
		return err
	}
	v.eof = size
	return nil
}

// growBAT makes the table long enough, at a new place behind all blocks if it must be longer.
func (v *vhd) growBAT(size int64) error {
	if in := v.footer.size % v.header.block; in != 0 && v.bat[len(v.bat)-1] != vhdUnused {
		at := int64(v.bat[len(v.bat)-1])*vhdSector + v.bitmapSize()
		if err := writeZeros(v.w, at+in, min(v.header.block-in, max(v.eof-at-in, 0))); err != nil {
			return err
		}
		v.eof = max(v.eof, at+v.header.block)
	}
	n := (size + v.header.block - 1) / v.header.block
	for int64(len(v.bat)) < n {
		v.bat = append(v.bat, vhdUnused)
	}
	if n > int64(v.header.entries) {
		v.header.entries, v.header.table = uint32(n), v.eof
		v.eof += roundUp(4*n, vhdSector)
	}
	return nil
}

// flush writes blocks' places last: until then an interrupted image is what it was, or one whose footer is at the start
// alone.
func (v *vhd) flush(how flushing) error {
	if v.w == nil || !v.changed {
		return nil
	}
	sync := func() error {
		if v.new && how == leave {
			return nil
		}
		return v.w.Sync()
	}
	if v.unsynced {
		if err := v.writeTables(sync); err != nil {
			return err
		}
	}
	if err := sync(); err != nil {
		return err
	}
	v.unsynced, v.new, v.changed = false, false, false
	return nil
}

func (v *vhd) writeTables(sync func() error) error {
	footer := v.footer.encode()
	type part struct {
		b  []byte
		at int64
	}
	parts := []part{{footer, v.eof}}
	if v.bat != nil {
		table := slices.Repeat([]byte{0xff}, int(roundUp(4*int64(len(v.bat)), vhdSector)))
		for i, e := range v.bat {
			be.PutUint32(table[4*i:], e)
		}
		parts = append(parts, part{table, v.header.table}, part{v.header.encode(), int64(v.footer.dataOffset)}, part{footer, 0})
	}
	if err := v.w.Truncate(v.eof); err != nil {
		return err
	}
	for i, p := range parts {
		if i == 1 { // the blocks are there before the table says so
			if err := sync(); err != nil {
				return err
			}
		}
		if _, err := v.w.WriteAt(p.b, p.at); err != nil {
			return fmt.Errorf("write VHD tables: %w", err)
		}
	}
	return nil
}
