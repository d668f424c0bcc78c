package disk

import (
	"io"
)

// plain is a disk whose bytes are those of the file: a raw image.
type plain struct {
	r    io.ReaderAt
	w    File // nil if the disk is only read
	size int64
	new  bool
}

func createRaw(f File, o Options) (*Disk, error) {
	if err := f.Truncate(o.Size); err != nil {
		return nil, err
	}
	d := openRaw(f, o.Size, f)
	d.body.(*plain).new = true
	d.info.SectorSize = o.SectorSize
	return d, nil
}

func openRaw(r io.ReaderAt, size int64, w File) *Disk {
	return &Disk{
		info: Info{Format: Raw, Size: size, SectorSize: 512, PhysicalSectorSize: 512},
		body: &plain{r: r, w: w, size: size},
	}
}

func (b *plain) read(p []byte, off int64) error { return readZeroed(b.r, p, off) }

func (b *plain) write(p []byte, off int64) error {
	if b.w == nil {
		return errReadOnly
	}
	_, err := b.w.WriteAt(p, off)
	return err
}

func (b *plain) resize(size int64) error {
	if b.w == nil {
		return errReadOnly
	}
	b.size = size
	return b.w.Truncate(size)
}

func (b *plain) next(off, end int64) (start, n int64, err error) { return nextData(b.r, off, end) }

func (b *plain) flush(how flushing) error {
	if b.w == nil || b.new && how == leave {
		return nil
	}
	return b.w.Sync()
}
