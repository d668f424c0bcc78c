package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
)

// Format is a kind of image.
type Format uint8

// The formats of images. A raw image is the virtual disk's bytes and nothing else.
const (
	Raw Format = iota
	FixedVHD
	DynamicVHD
	FixedVHDX
	DynamicVHDX
	DifferencingVHDX
)

var formatNames = [...]string{"raw", "vhd-fixed", "vhd-dynamic", "vhdx-fixed", "vhdx-dynamic", "vhdx-differencing"}

func (f Format) String() string {
	if int(f) < len(formatNames) {
		return formatNames[f]
	}
	return fmt.Sprintf("format %d", uint8(f))
}

// ParseFormat returns the format of that name; "vhd" and "vhdx" alone mean the dynamic ones.
func ParseFormat(name string) (Format, error) {
	switch name {
	case "vhd":
		return DynamicVHD, nil
	case "vhdx":
		return DynamicVHDX, nil
	}
	for i, n := range formatNames {
		if n == name {
			return Format(i), nil
		}
	}
	return 0, invalid("image format %q is not known", name)
}

// Info says what an image is.
type Info struct {
	Format             Format
	Size               int64 // of the virtual disk, in bytes
	BlockSize          int64 // unit of allocation; zero where all is allocated in one piece
	SectorSize         int64 // logical
	PhysicalSectorSize int64
	ID                 guid.GUID // of the virtual disk: the VHD's unique id, the VHDX's page 83 data
	DataID             guid.GUID // VHDX: changes whenever the content does; a child knows its parent by it
	Parent             *Locator  // differencing images
	Replayed           bool      // the image was not closed, and its log had changes that were not in place yet
}

// Locator says where the parent of a differencing image is.
type Locator struct {
	Linkage  guid.GUID // the parent's DataID
	Relative string    // path from the image's directory, in the way of Windows: ..\base\parent.vhdx
	Absolute string    // \\?\C:\…\parent.vhdx
	Volume   string    // \\?\Volume{…}\…\parent.vhdx
}

// Options say what image to create. The zero value of a field but Size means a default.
type Options struct {
	Format             Format
	Size               int64     // bytes, a multiple of the sector size; zero for a differencing image: its parent's
	BlockSize          int64     // a power of two; default 2 MiB for VHD, 32 MiB for VHDX, as Windows has it
	SectorSize         int64     // VHDX: 512 (default) or 4096
	PhysicalSectorSize int64     // VHDX: 512 or 4096 (default)
	ID                 guid.GUID // default: taken from Rand
	Time               time.Time // VHD has it in its footer; default: 2000-01-01, the format's zero
	Rand               io.Reader // 16 bytes for each GUID; default: crypto/rand. Equal bytes make equal images.

	// Parent is the disk below a differencing image. The image reads from it but does not close it. Paths without
	// Linkage, which is the parent's own.
	Parent      *Disk
	ParentPaths Locator
}

// Disk is the virtual disk in an image. Reads may run at once; writes wait for each other and for reads.
type Disk struct {
	mu     sync.RWMutex
	info   Info
	body   body
	parent *Disk
	closes []io.Closer // what goes with the disk, in this order
}

// body is the part of a disk that differs by format. Ranges are inside of the disk.
type body interface {
	read(p []byte, off int64) error
	write(p []byte, off int64) error
	resize(size int64) error
	// next returns the first run from off up to end that may have other than zeros; n is zero if there is none.
	next(off, end int64) (start, n int64, err error)
	// flush brings all changes into the file; how tells what else.
	flush(how flushing) error
}

type flushing uint8

const (
	leave  flushing = iota // the file is closed next
	settle                 // the file is made durable, and goes on to be used
)

// Create makes an image in f, which is empty. It is complete with Sync, which also makes it durable, or with Close. The
// Disk does not close f.
func Create(f File, o Options) (*Disk, error) {
	d, err := create(f, o)
	if err != nil {
		return nil, fmt.Errorf("create %v image: %w", o.Format, err)
	}
	return d, nil
}

func create(f File, o Options) (*Disk, error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.SectorSize == 0 {
		o.SectorSize = 512
	}
	if o.Format != DifferencingVHDX && (o.Parent != nil || o.ParentPaths != Locator{}) {
		return nil, invalid("only a differencing image has a parent")
	}
	if o.Size < 0 || o.Size%o.SectorSize != 0 {
		return nil, invalid("size %d is not a multiple of the sector size, %d", o.Size, o.SectorSize)
	}
	switch o.Format {
	case Raw:
		return createRaw(f, o)
	case FixedVHD, DynamicVHD:
		return createVHD(f, o)
	case FixedVHDX, DynamicVHDX, DifferencingVHDX:
		return createVHDX(f, o)
	}
	return nil, invalid("%v is not known", o.Format)
}

// Size returns the size of the virtual disk in bytes.
func (d *Disk) Size() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.info.Size
}

// Info returns what the image is.
func (d *Disk) Info() Info {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.info
}

// ReadAt reads from the virtual disk, through its parents. It implements io.ReaderAt.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if off < 0 {
		return 0, invalid("read disk at offset %d", off)
	}
	n := min(int64(len(p)), max(d.info.Size-off, 0))
	if n > 0 {
		if err := d.body.read(p[:n], off); err != nil {
			return 0, fmt.Errorf("read disk at offset %d: %w", off, err)
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteAt writes to the virtual disk. It implements io.WriterAt. What is beyond the disk's end is refused as a whole.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off > d.info.Size || int64(len(p)) > d.info.Size-off {
		return 0, fmt.Errorf("write %d bytes at offset %d: disk has %d: %w", len(p), off, d.info.Size, errdefs.ErrOutOfRange)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := d.body.write(p, off); err != nil {
		return 0, fmt.Errorf("write disk at offset %d: %w", off, err)
	}
	return len(p), nil
}

// Resize grows the virtual disk; the new part is zero. A disk does not shrink: that is an error of class
// errdefs.ErrNotImplemented.
func (d *Disk) Resize(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case size < d.info.Size:
		return fmt.Errorf("resize disk from %d to %d bytes: disks do not shrink: %w", d.info.Size, size, errdefs.ErrNotImplemented)
	case size == d.info.Size:
		return nil
	case size%d.info.SectorSize != 0:
		return invalid("resize disk to %d bytes: not a multiple of the sector size, %d", size, d.info.SectorSize)
	}
	if err := d.body.resize(size); err != nil {
		return fmt.Errorf("resize disk from %d to %d bytes: %w", d.info.Size, size, err)
	}
	d.info.Size = size
	return nil
}

// Extents yields the runs of the disk that may have other bytes than zero, ascending and apart.
func (d *Disk) Extents() iter.Seq2[layer.Extent, error] {
	return func(yield func(layer.Extent, error) bool) {
		for off := int64(0); ; {
			start, n, err := d.next(off, d.Size())
			if err != nil {
				yield(layer.Extent{}, fmt.Errorf("find data of disk from offset %d: %w", off, err))
				return
			}
			if n == 0 || !yield(layer.Extent{Offset: start, Length: n}, nil) {
				return
			}
			off = start + n
		}
	}
}

// next returns the first run from off up to end that may have other than zeros, joined with those that touch it.
func (d *Disk) next(off, end int64) (start, n int64, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	end = min(end, d.info.Size)
	for off < end {
		at, more, err := d.body.next(off, end)
		if err != nil {
			return 0, 0, err
		}
		if more == 0 || n > 0 && at > start+n {
			break
		}
		if n == 0 {
			start = at
		}
		n += more
		off = start + n
	}
	return start, n, nil
}

// Sync brings everything that was written into the image and makes it durable.
func (d *Disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.body.flush(settle); err != nil {
		return fmt.Errorf("sync disk image: %w", err)
	}
	return nil
}

// Close brings everything that was written into the image and closes what Open and its like have opened, parents too. An
// image that existed before is durable then; one that was created is not unless Sync was called. The Disk cannot be used
// afterwards.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.body == nil {
		return nil
	}
	var errs []error
	if err := d.body.flush(leave); err != nil {
		errs = append(errs, err)
	}
	for _, c := range d.closes {
		errs = append(errs, c.Close())
	}
	d.body, d.closes, d.info.Size = nil, nil, 0
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close disk image: %w", err)
	}
	return nil
}

// newGUID returns id or, if that is zero, a version 4 GUID from r.
func newGUID(r io.Reader, id guid.GUID) (guid.GUID, error) {
	if id != (guid.GUID{}) {
		return id, nil
	}
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return guid.GUID{}, fmt.Errorf("make GUID: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return guid.FromArray(b), nil
}
