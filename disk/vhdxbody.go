package disk

import (
	"errors"
	"fmt"
	"io"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"
)

var errReadOnly = fmt.Errorf("disk was opened to be read: %w", errdefs.ErrPermissionDenied)

// vhdx is the body of a VHDX image.
type vhdx struct {
	r      io.ReaderAt // the file, with its log replayed
	w      File        // nil if the disk is only read
	parent *Disk       // of a differencing image
	rand   io.Reader

	geometry
	header  vhdxHeader
	second  bool // header is the second of the two
	regions []region
	bat     region
	sizeAt  int64 // where the disk's size is
	tables  *pages
	eof     int64 // where the next block goes; a multiple of MiB

	state  vhdxState
	logSeq uint64 // of the next entry
}

// vhdxState says how far the file on disk may be from the disk.
type vhdxState uint8

const (
	vhdxClosed vhdxState = iota // nothing was written; the first write changes the header
	vhdxNew                     // without a header yet: tables need no log
	vhdxOpen                    // tables change through the log
)

// entry returns an entry of the block allocation table.
func (v *vhdx) entry(index int64) (batEntry, error) {
	off := v.bat.offset + 8*index
	b, err := v.tables.page(off &^ (vhdxPage - 1))
	if err != nil {
		return 0, fmt.Errorf("read VHDX block allocation table: %w", err)
	}
	return batEntry(le.Uint64(b[off%vhdxPage:])), nil
}

func (v *vhdx) setEntry(index int64, e batEntry) error {
	if err := v.makeRoom(); err != nil {
		return err
	}
	off := v.bat.offset + 8*index
	b, err := v.tables.change(off &^ (vhdxPage - 1))
	if err != nil {
		return fmt.Errorf("read VHDX block allocation table: %w", err)
	}
	le.PutUint64(b[off%vhdxPage:], uint64(e))
	return nil
}

func (v *vhdx) read(p []byte, off int64) error {
	return v.eachBlock(p, off, v.readBlock)
}

// eachBlock calls f for every block that the range touches, with the part of p and the offset inside of the block.
func (v *vhdx) eachBlock(p []byte, off int64, f func(p []byte, block, in int64) error) error {
	for len(p) > 0 {
		block, in := off>>v.blockShift, off&(v.block-1)
		n := min(int64(len(p)), v.block-in)
		if err := f(p[:n], block, in); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (v *vhdx) readBlock(p []byte, block, in int64) error {
	e, err := v.entry(v.batIndex(block))
	if err != nil {
		return err
	}
	switch {
	case e.state() == blockFull:
		return readZeroed(v.r, p, e.offset()+in)
	case e.state() == blockPartial && v.parent != nil:
		return v.readPartial(p, block, in, e.offset())
	case e.state() == blockNotPresent && v.parent != nil:
		return v.readParent(p, block*v.block+in)
	}
	clear(p)
	return nil
}

// readParent reads from the parent, which may be smaller.
func (v *vhdx) readParent(p []byte, off int64) error {
	n, err := v.parent.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("parent: %w", err)
	}
	clear(p[n:])
	return nil
}

func (v *vhdx) readPartial(p []byte, block, in, at int64) error {
	for len(p) > 0 {
		n, own, err := v.sectorRun(block, in, int64(len(p)))
		if err != nil {
			return err
		}
		if own {
			err = readZeroed(v.r, p[:n], at+in)
		} else {
			err = v.readParent(p[:n], block*v.block+in)
		}
		if err != nil {
			return err
		}
		p, in = p[n:], in+n
	}
	return nil
}

// bitmapPage returns where the bit of a block's sector is: the page's offset and the bit's number in it (2.5.1.2).
func (v *vhdx) bitmapPage(block, in int64) (off, bit int64, err error) {
	index := v.bitmapIndex(block)
	e, err := v.entry(index)
	if err != nil {
		return 0, 0, err
	}
	if e.state() != bitmapPresent {
		return 0, 0, corrupt("VHDX block allocation table", v.bat.offset+8*index, "no sector bitmap for block %d, which needs it",
			block)
	}
	bit = (block%v.ratio*v.block + in) / v.sector
	return e.offset() + bit/8&^(vhdxPage-1), bit % (8 * vhdxPage), nil
}

// sectorRun tells how many of n bytes from in on are all this image's own, or all the parent's.
func (v *vhdx) sectorRun(block, in, n int64) (run int64, own bool, err error) {
	off, bit, err := v.bitmapPage(block, in)
	if err != nil {
		return 0, false, err
	}
	b, err := v.tables.page(off)
	if err != nil {
		return 0, false, fmt.Errorf("read VHDX sector bitmap: %w", err)
	}
	own = hasBit(b, bit)
	run = v.sector - in%v.sector
	for bit++; run < n && bit < 8*vhdxPage && hasBit(b, bit) == own; bit++ {
		run += v.sector
	}
	return min(run, n), own, nil
}

func hasBit(b []byte, bit int64) bool { return b[bit/8]>>(bit%8)&1 != 0 }

// setSectors marks whole sectors as this image's own.
func (v *vhdx) setSectors(block, in, n int64) error {
	for end := in + n; in < end; {
		if err := v.makeRoom(); err != nil {
			return err
		}
		off, bit, err := v.bitmapPage(block, in)
		if err != nil {
			return err
		}
		b, err := v.tables.change(off)
		if err != nil {
			return fmt.Errorf("read VHDX sector bitmap: %w", err)
		}
		for ; in < end && bit < 8*vhdxPage; in, bit = in+v.sector, bit+1 {
			b[bit/8] |= 1 << (bit % 8)
		}
	}
	return nil
}

func (v *vhdx) write(p []byte, off int64) error {
	if err := v.begin(); err != nil {
		return err
	}
	return v.eachBlock(p, off, v.writeBlock)
}

func (v *vhdx) writeBlock(p []byte, block, in int64) error {
	e, err := v.entry(v.batIndex(block))
	if err != nil {
		return err
	}
	whole := int64(len(p)) == v.block
	switch {
	case e.state() == blockFull:
		return v.put(p, e.offset()+in)
	case e.state() == blockPartial && v.parent != nil:
		return v.writeSectors(p, block, in, e.offset())
	case e.state() == blockNotPresent && v.parent != nil && !whole:
		return v.writePartial(p, block, in)
	case v.parent == nil && isZero(p): // and the block is zero already
		return nil
	}
	return v.writeNew(p, block, in)
}

func (v *vhdx) put(p []byte, at int64) error {
	_, err := v.w.WriteAt(p, at)
	return err
}

// allocate takes n bytes, rounded up to MiB, at the end of the file. They are zero: nothing was ever there.
func (v *vhdx) allocate(n int64) int64 {
	at := v.eof
	v.eof += roundUp(n, mib)
	return at
}

// writeNew gives a block without data its own space, in which what p leaves is zero.
func (v *vhdx) writeNew(p []byte, block, in int64) error {
	at := v.allocate(v.block)
	if err := v.put(p, at+in); err != nil {
		return err
	}
	return v.setEntry(v.batIndex(block), entryOf(blockFull, at))
}

// writePartial gives a block space of its own of which only the sectors in p are in use.
func (v *vhdx) writePartial(p []byte, block, in int64) error {
	index := v.bitmapIndex(block)
	e, err := v.entry(index)
	if err != nil {
		return err
	}
	if e.state() != bitmapPresent {
		if err := v.setEntry(index, entryOf(bitmapPresent, v.allocate(mib))); err != nil {
			return err
		}
	} else if err := v.clearSectors(block); err != nil {
		return err
	}
	at := v.allocate(v.block)
	if err := v.writeSectors(p, block, in, at); err != nil {
		return err
	}
	return v.setEntry(v.batIndex(block), entryOf(blockPartial, at))
}

// clearSectors takes back the bits of a block that has no data, and so may have any.
func (v *vhdx) clearSectors(block int64) error {
	for in := int64(0); in < v.block; {
		n, own, err := v.sectorRun(block, in, v.block-in)
		if err != nil {
			return err
		}
		if own {
			if err := v.clearRun(block, in, n); err != nil {
				return err
			}
		}
		in += n
	}
	return nil
}

// clearRun clears bits that are in one page.
func (v *vhdx) clearRun(block, in, n int64) error {
	if err := v.makeRoom(); err != nil {
		return err
	}
	off, bit, err := v.bitmapPage(block, in)
	if err != nil {
		return err
	}
	b, err := v.tables.change(off)
	if err != nil {
		return fmt.Errorf("read VHDX sector bitmap: %w", err)
	}
	for range n / v.sector {
		b[bit/8] &^= 1 << (bit % 8)
		bit++
	}
	return nil
}

// writeSectors writes to a partial block. A sector of which p has a part is first filled from the parent, or from what the
// block has.
func (v *vhdx) writeSectors(p []byte, block, in, at int64) error {
	start, end := in/v.sector*v.sector, roundUp(in+int64(len(p)), v.sector)
	if end-start != int64(len(p)) {
		full := make([]byte, end-start)
		for _, edge := range []int64{0, end - start - v.sector} {
			if err := v.readPartial(full[edge:edge+v.sector], block, start+edge, at); err != nil {
				return err
			}
		}
		copy(full[in-start:], p)
		p = full
	}
	if err := v.put(p, at+start); err != nil {
		return err
	}
	return v.setSectors(block, start, end-start)
}

// next reports blocks with data of their own, and whatever the parent has.
func (v *vhdx) next(off, end int64) (start, n int64, err error) {
	for off < end {
		block := off >> v.blockShift
		stop := min((block+1)*v.block, end)
		e, err := v.entry(v.batIndex(block))
		if err != nil {
			return 0, 0, err
		}
		switch {
		case e.state() == blockPartial:
			return off, stop - off, nil
		case e.state() == blockFull: // its own space may have holes, as far as the file system tells
			base := e.offset() - block*v.block
			start, n, err = nextData(v.r, base+off, base+stop)
			start -= base
		case e.state() == blockNotPresent && v.parent != nil:
			start, n, err = v.parent.next(off, stop)
		}
		if n > 0 || err != nil {
			return start, n, err
		}
		off = stop
	}
	return 0, 0, nil
}

func (v *vhdx) resize(size int64) error {
	if size > maxVHDXSize {
		return invalid("VHDX has at most %d bytes", int64(maxVHDXSize))
	}
	if err := v.begin(); err != nil {
		return err
	}
	if err := v.zeroTail(); err != nil {
		return err
	}
	grown := v.geometry
	grown.size = size
	if need := 8 * grown.batEntries(); need > int64(v.bat.length) {
		if err := v.moveBAT(need); err != nil {
			return err
		}
	}
	before := v.blocks()
	v.geometry = grown
	if v.allocated {
		for block := before; block < v.blocks(); block++ {
			if err := v.setEntry(v.batIndex(block), entryOf(blockFull, v.allocate(v.block))); err != nil {
				return err
			}
		}
	}
	return v.setSize(size)
}

// zeroTail makes zero what the last block has beyond the end of the disk, which was of no meaning until now.
func (v *vhdx) zeroTail() error {
	in := v.size & (v.block - 1)
	if in == 0 {
		return nil
	}
	e, err := v.entry(v.batIndex(v.size >> v.blockShift))
	if err != nil || !e.present() {
		return err
	}
	at := e.offset()
	n := min(v.block-in, max(v.eof-at-in, 0))
	return writeZeros(v.w, at+in, n)
}

// setSize changes the size in the metadata, whose eight bytes may lie in two pages.
func (v *vhdx) setSize(size int64) error {
	if err := v.makeRoom(); err != nil {
		return err
	}
	for i, c := range le.AppendUint64(nil, uint64(size)) {
		off := v.sizeAt + int64(i)
		b, err := v.tables.change(off &^ (vhdxPage - 1))
		if err != nil {
			return fmt.Errorf("read VHDX metadata: %w", err)
		}
		b[off%vhdxPage] = c
	}
	return nil
}

// moveBAT gives the block allocation table new space at the end of the file, for n bytes at least. The old one stays as it
// is until the region tables, which change with the log, tell of the new one.
func (v *vhdx) moveBAT(n int64) error {
	if err := v.commit(); err != nil {
		return err
	}
	moved := v.bat
	moved.length = uint32(roundUp(n, mib))
	moved.offset = v.allocate(int64(moved.length))
	if _, err := io.Copy(io.NewOffsetWriter(v.w, moved.offset), io.NewSectionReader(v.r, v.bat.offset, int64(v.bat.length))); err != nil {
		return fmt.Errorf("move VHDX block allocation table: %w", err)
	}
	for i := range v.regions {
		if v.regions[i].id == regionBAT {
			v.regions[i] = moved
		}
	}
	v.bat = moved
	table := encodeRegions(v.regions)
	for off := int64(0); off < vhdxStructure; off += vhdxPage {
		copy(v.tables.fresh(regionOffset1+off), table[off:])
		copy(v.tables.fresh(regionOffset2+off), table[off:])
	}
	return nil
}

// begin makes the file one that is being written: before the first change it gets new identities (2.2.2.1).
func (v *vhdx) begin() error {
	switch {
	case v.w == nil:
		return errReadOnly
	case v.state != vhdxClosed:
		return nil
	case v.header.logLength == 0:
		return unsupported("VHDX header", 0, "no log to write with")
	}
	h := v.header
	var err1, err2 error
	h.fileWrite, err1 = newGUID(v.rand, guid.GUID{})
	h.dataWrite, err2 = newGUID(v.rand, guid.GUID{})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := v.putHeader(h); err != nil {
		return err
	}
	v.state = vhdxOpen
	return nil
}

// putHeader writes the header that does not count, which makes it the one that does.
func (v *vhdx) putHeader(h vhdxHeader) error {
	h.sequence = v.header.sequence + 1
	at := int64(headerOffset2)
	if v.second {
		at = headerOffset1
	}
	if err := v.put(h.encode(), at); err != nil {
		return fmt.Errorf("write VHDX header: %w", err)
	}
	if v.state != vhdxNew {
		if err := v.w.Sync(); err != nil {
			return fmt.Errorf("write VHDX header: %w", err)
		}
	}
	v.header, v.second = h, !v.second
	return nil
}
