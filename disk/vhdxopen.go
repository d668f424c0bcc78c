package disk

import (
	"fmt"
	"io"
	"math/bits"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"
)

// openVHDX reads the tables. With a File the log is replayed into it, else into what is read of it.
func openVHDX(r io.ReaderAt, size int64, w File, o OpenOptions) (*Disk, error) {
	v, err := readVHDX(r, size, w)
	if err != nil {
		return nil, err
	}
	v.rand = o.Rand
	d := &Disk{body: v, info: v.info(v.r != r)}
	if !v.differencing {
		return d, nil
	}
	if o.Parent == nil {
		return nil, fmt.Errorf("image has a parent, and nobody to open it: %w", errdefs.ErrFailedPrecondition)
	}
	parent, err := o.Parent(*v.locator)
	if err != nil {
		return nil, fmt.Errorf("open parent: %w", err)
	}
	if err := v.adopt(parent); err != nil {
		return nil, joinClose(err, parent)
	}
	d.parent, d.closes = parent, []io.Closer{parent}
	return d, nil
}

// adopt checks that the parent is the one that the image was made for.
func (v *vhdx) adopt(parent *Disk) error {
	p := parent.Info()
	switch {
	case p.DataID != v.locator.Linkage:
		return fmt.Errorf("parent is another one, or has changed: its data id is %v, the image wants %v: %w", p.DataID,
			v.locator.Linkage, errdefs.ErrFailedPrecondition)
	case p.SectorSize != v.sector:
		return fmt.Errorf("parent has sectors of %d bytes, the image of %d: %w", p.SectorSize, v.sector, errdefs.ErrFailedPrecondition)
	}
	v.parent = parent
	return nil
}

func (v *vhdx) info(replayed bool) Info {
	format := DynamicVHDX
	switch {
	case v.differencing:
		format = DifferencingVHDX
	case v.allocated:
		format = FixedVHDX
	}
	return Info{
		Format: format, Size: v.size, BlockSize: v.block, SectorSize: v.sector, PhysicalSectorSize: v.physical,
		ID: v.page83, DataID: v.header.dataWrite, Parent: v.locator, Replayed: replayed,
	}
}

func readVHDX(r io.ReaderAt, size int64, w File) (*vhdx, error) {
	b, err := readStructure(r, "VHDX file type identifier", 0, 8)
	if err != nil {
		return nil, err
	}
	if string(b) != vhdxSignature {
		return nil, corrupt("VHDX file type identifier", 0, "signature %q", b)
	}
	if size > maxImage {
		return nil, unsupported("VHDX file", 0, "%d bytes", size)
	}
	v := &vhdx{r: r, w: w}
	if v.header, v.second, err = readHeader(r); err != nil {
		return nil, err
	}
	if size, err = v.replay(size); err != nil {
		return nil, err
	}
	if err := v.readTables(size); err != nil {
		return nil, err
	}
	v.eof = roundUp(size, mib)
	return v, nil
}

// replay finishes what the log says was begun, and returns the size of the file then.
func (v *vhdx) replay(fileSize int64) (int64, error) {
	changes, size, err := pendingChanges(v.r, &v.header, fileSize)
	if err != nil || v.header.log == (guid.GUID{}) {
		return size, err
	}
	if v.w == nil {
		v.r = &replayed{v.r, changes, size}
		return size, nil
	}
	if size > fileSize {
		if err := v.w.Truncate(size); err != nil {
			return 0, fmt.Errorf("replay VHDX log: %w", err)
		}
	}
	if err := apply(v.w, changes, fileSize); err != nil {
		return 0, fmt.Errorf("replay VHDX log: %w", err)
	}
	if err := v.w.Sync(); err != nil {
		return 0, fmt.Errorf("replay VHDX log: %w", err)
	}
	h := v.header
	h.log = guid.GUID{}
	return size, v.putHeader(h)
}

func (v *vhdx) readTables(size int64) error {
	var err error
	if v.regions, err = readRegions(v.r); err != nil {
		return err
	}
	var metadata region
	for _, r := range v.regions {
		switch r.id {
		case regionBAT:
			v.bat = r
		case regionMetadata:
			metadata = r
		}
	}
	if v.bat.length == 0 || metadata.length == 0 {
		return corrupt("VHDX region table", regionOffset1, "no region for the metadata or for the block allocation table")
	}
	if v.geometry, v.sizeAt, err = readMetadata(v.r, metadata); err != nil {
		return err
	}
	if need := 8 * v.batEntries(); need > int64(v.bat.length) {
		return corrupt("VHDX block allocation table", v.bat.offset, "%d bytes for a disk that needs %d", v.bat.length, need)
	}
	v.tables = newPages(v.r)
	return v.checkLayout(size)
}

// occupied has a bit for every MiB of a file that something is in.
type occupied struct {
	bits []uint64
	size int64
}

// take marks n bytes at off, and reports whether they are inside of the file and were free.
func (o *occupied) take(off, n int64) bool {
	if off < 0 || n < 0 || off > o.size || n > o.size-off {
		return false
	}
	for i := off / mib; i < (off+n+mib-1)/mib; i++ {
		if o.bits[i/64]>>(i%64)&1 != 0 {
			return false
		}
		o.bits[i/64] |= 1 << (i % 64)
	}
	return true
}

// checkLayout refuses what overlaps or lies outside of the file: all readers and writers rely on it.
func (v *vhdx) checkLayout(size int64) error {
	o := occupied{make([]uint64, size/mib/64+1), size}
	if !o.take(0, min(vhdxHeaderArea, size)) || !o.take(v.header.logOffset, int64(v.header.logLength)) {
		return corrupt("VHDX header", headerOffset1, "log of %d bytes at %d overlaps, or is not in the file of %d",
			v.header.logLength, v.header.logOffset, size)
	}
	for _, r := range v.regions {
		if !o.take(r.offset, int64(r.length)) {
			return corrupt("VHDX region table", regionOffset1, "region %v of %d bytes at %d overlaps, or is not in the file of %d",
				r.id, r.length, r.offset, size)
		}
	}
	entries, step := v.batEntries(), int64(vhdxStructure/8)
	for first := int64(0); first < entries; first += step {
		b := make([]byte, 8*min(step, entries-first))
		if err := readZeroed(v.r, b, v.bat.offset+8*first); err != nil {
			return fmt.Errorf("read VHDX block allocation table: %w", err)
		}
		if err := v.checkEntries(&o, b, first); err != nil {
			return err
		}
	}
	return nil
}

func (v *vhdx) checkEntries(o *occupied, b []byte, first int64) error {
	for i := int64(0); i < int64(len(b)/8); i++ {
		e := batEntry(le.Uint64(b[8*i:]))
		if e.state() == blockNotPresent {
			continue
		}
		index := first + i
		bad := func(format string, args ...any) error {
			return corrupt("VHDX block allocation table", v.bat.offset+8*index, "entry %d: %w", index, fmt.Errorf(format, args...))
		}
		n := v.block
		switch isBitmap := index%(v.ratio+1) == v.ratio; {
		case isBitmap && e.state() != bitmapPresent, e.state() == 4, e.state() == 5, e.state() == blockPartial && !v.differencing:
			return bad("state %d", e.state())
		case isBitmap && !v.differencing:
			continue // 2.5.1.2: of no meaning there
		case isBitmap:
			n = mib
		case !e.present():
			continue
		}
		if !o.take(e.offset(), n) {
			return bad("block at %d overlaps, or is not in the file of %d bytes", e.offset(), o.size)
		}
	}
	return nil
}

// createVHDX makes the tables of a new image. Nothing of it is in the file before the tables are too many for memory.
func createVHDX(f File, o Options) (*Disk, error) {
	v := &vhdx{r: f, w: f, rand: o.Rand, parent: o.Parent, state: vhdxNew, second: true}
	var err error
	if v.geometry, err = geometryOf(o); err != nil {
		return nil, err
	}
	v.header = vhdxHeader{version: 1, logLength: mib, logOffset: mib}
	for _, id := range []*guid.GUID{&v.header.fileWrite, &v.header.dataWrite, &v.page83} {
		if *id, err = newGUID(o.Rand, *id); err != nil {
			return nil, err
		}
	}
	v.tables = newPages(f)
	if err := v.lay(); err != nil {
		return nil, err
	}
	return &Disk{body: v, info: v.info(false), parent: o.Parent}, nil
}

func geometryOf(o Options) (geometry, error) {
	g := geometry{
		size: o.Size, block: o.BlockSize, sector: o.SectorSize, physical: o.PhysicalSectorSize, page83: o.ID,
		allocated: o.Format == FixedVHDX, differencing: o.Format == DifferencingVHDX,
	}
	if g.block == 0 {
		g.block = 32 * mib
	}
	if g.physical == 0 {
		g.physical = 4096
	}
	if g.differencing {
		if o.Parent == nil {
			return geometry{}, invalid("a differencing image needs a parent")
		}
		p := o.Parent.Info()
		if p.DataID == (guid.GUID{}) {
			return geometry{}, invalid("the parent of a differencing VHDX is a VHDX, not %v", p.Format)
		}
		if g.size == 0 {
			g.size = p.Size
		}
		if g.size < p.Size || g.sector != p.SectorSize {
			return geometry{}, invalid("parent has %d bytes in sectors of %d, the image %d in %d", p.Size, p.SectorSize, g.size, g.sector)
		}
		locator := o.ParentPaths
		locator.Linkage = p.DataID
		g.locator = &locator
	}
	if g.size == 0 {
		return geometry{}, invalid("a disk of no size")
	}
	if bits.OnesCount64(uint64(g.block)) != 1 {
		return geometry{}, invalid("block size %d is no power of two", g.block)
	}
	if err := g.check(0); err != nil {
		return geometry{}, err
	}
	g.derive()
	return g, nil
}

// lay puts log, metadata and block allocation table, one after the other, behind the header section, as Windows does.
func (v *vhdx) lay() error {
	metadata, err := encodeMetadata(&v.geometry)
	if err != nil {
		return err
	}
	v.eof = 2 * mib
	at := v.allocate(int64(len(metadata)))
	v.bat = region{regionBAT, 0, uint32(roundUp(8*v.batEntries(), mib)), true}
	v.bat.offset = v.allocate(int64(v.bat.length))
	v.regions = []region{v.bat, {regionMetadata, at, uint32(v.bat.offset - at), true}}

	put := func(b []byte, off int64) {
		for i := 0; i < len(b); i += vhdxPage {
			copy(v.tables.fresh(off+int64(i)), b[i:])
		}
	}
	put(append([]byte(vhdxSignature), encodeUTF16(creator)...), 0)
	table := encodeRegions(v.regions)
	put(table, regionOffset1)
	put(table, regionOffset2)
	put(metadata, at)
	items, err := readItems(&replayed{ReaderAt: emptyFile{}, changes: []change{{at, int64(len(metadata)), metadata}}, size: v.eof}, v.regions[1])
	if err != nil {
		return err
	}
	for _, it := range items {
		if it.id == itemDiskSize {
			v.sizeAt = it.at
		}
	}
	if !v.allocated {
		return nil
	}
	for block := range v.blocks() {
		if err := v.setEntry(v.batIndex(block), entryOf(blockFull, v.allocate(v.block))); err != nil {
			return err
		}
	}
	return nil
}

const vhdxSignature = "vhdxfile" // 2.2.1

type emptyFile struct{}

func (emptyFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
