package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"
)

// maxChain bounds how many images may stand on each other.
const maxChain = 128

// OpenOptions say how to open an image.
type OpenOptions struct {
	// Parent opens the parent of a differencing image, which is closed with it. Without it such images are not opened. It is
	// the caller who knows which files an image, which may be anybody's, may name.
	Parent func(Locator) (*Disk, error)
	Rand   io.Reader // 16 bytes for each GUID that a change needs; default: crypto/rand
}

// Detect tells the format of an image of size bytes by its signature. What has none is raw. Anybody who can write to a raw
// disk can give it a signature: who knows that an image is raw must not ask.
func Detect(r io.ReaderAt, size int64) (Format, error) {
	var b [8]byte
	if err := readZeroed(r, b[:], 0); err != nil {
		return 0, fmt.Errorf("detect image format: %w", err)
	}
	switch string(b[:]) {
	case vhdxSignature:
		return DynamicVHDX, nil
	case vhdCookie:
		return DynamicVHD, nil
	}
	if size < vhdFooterSize {
		return Raw, nil
	}
	if err := readZeroed(r, b[:], size-vhdFooterSize); err != nil {
		return 0, fmt.Errorf("detect image format: %w", err)
	}
	if string(b[:]) == vhdCookie {
		return FixedVHD, nil
	}
	return Raw, nil
}

// Open opens an image of size bytes to be read. A log that must be replayed first is replayed in memory.
func Open(r io.ReaderAt, size int64, o OpenOptions) (*Disk, error) { return open(r, size, nil, o) }

// OpenToWrite opens an image of size bytes to be read and written. The Disk does not close f.
func OpenToWrite(f File, size int64, o OpenOptions) (*Disk, error) { return open(f, size, f, o) }

func open(r io.ReaderAt, size int64, w File, o OpenOptions) (*Disk, error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	format, err := Detect(r, size)
	if err != nil {
		return nil, err
	}
	var d *Disk
	switch format {
	case Raw:
		d = openRaw(r, size, w)
	case DynamicVHDX:
		d, err = openVHDX(r, size, w, o)
	default:
		d, err = openVHD(r, size, w)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	return d, nil
}

// ReadInfo returns what an image is, without its parents.
func ReadInfo(r io.ReaderAt, size int64) (Info, error) {
	format, err := Detect(r, size)
	if err != nil {
		return Info{}, err
	}
	if format != DynamicVHDX {
		d, err := Open(r, size, OpenOptions{})
		if err != nil {
			return Info{}, err
		}
		return d.Info(), nil
	}
	v, err := readVHDX(r, size, nil)
	if err != nil {
		return Info{}, fmt.Errorf("read disk image: %w", err)
	}
	return v.info(v.r != r), nil
}

// Access says what an opened file is for.
type Access uint8

// What a file is opened for.
const (
	ReadOnly Access = iota
	ReadWrite
)

// FileOptions say how to open the file of an image.
type FileOptions struct {
	Access Access
	// Within is a directory: parents are only opened at or below it. Default: the image's own directory. Symbolic links do
	// not lead out of it.
	Within string
	Rand   io.Reader // as in OpenOptions
}

// OpenFile opens an image and its parents, which are only read. Parents are looked for at their relative path, and under
// their name in the image's directory, and must have the identity that the image wants. Paths like C:\… are of no meaning
// here.
func OpenFile(name string, o FileOptions) (*Disk, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	within := o.Within
	if within == "" {
		within = filepath.Dir(name)
	}
	if within, err = filepath.Abs(within); err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	flag := os.O_RDONLY
	if o.Access == ReadWrite {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(name, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	c := chain{within: within, rand: o.Rand}
	dir, err := filepath.Rel(within, filepath.Dir(name))
	if err != nil {
		return nil, joinClose(fmt.Errorf("open disk image %s: %w", name, err), f)
	}
	d, err := c.open(f, filepath.ToSlash(dir), o.Access)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// chain is a differencing image and its parents, as they are being opened.
type chain struct {
	within string
	rand   io.Reader
	files  []fs.FileInfo
}

// open opens the image in f, which it takes over; dir is its directory relative to within.
func (c *chain) open(f *os.File, dir string, access Access) (*Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, joinClose(err, f)
	}
	for _, other := range c.files {
		if os.SameFile(other, info) {
			return nil, joinClose(invalid("the image is its own parent, over %d others", len(c.files)-1), f)
		}
	}
	if c.files = append(c.files, info); len(c.files) > maxChain {
		return nil, joinClose(invalid("more than %d images on each other", maxChain), f)
	}
	size := info.Size()
	if !info.Mode().IsRegular() { // of a device Stat does not tell the size
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, joinClose(err, f)
		}
	}
	o := OpenOptions{Rand: c.rand, Parent: func(l Locator) (*Disk, error) { return c.parent(l, dir) }}
	var d *Disk
	if access == ReadWrite {
		d, err = OpenToWrite(f, size, o)
	} else {
		d, err = Open(f, size, o)
	}
	if err != nil {
		return nil, joinClose(err, f)
	}
	d.closes = append([]io.Closer{f}, d.closes...)
	return d, nil
}

// parent opens the first of the places that has an image of the right identity.
func (c *chain) parent(l Locator, dir string) (*Disk, error) {
	root, err := os.OpenRoot(c.within)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // nothing was written
	var errs []error
	for _, name := range candidates(l, dir) {
		f, err := root.Open(filepath.FromSlash(name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := isLinked(f, l.Linkage); err != nil {
			errs = append(errs, joinClose(fmt.Errorf("%s: %w", name, err), f))
			continue
		}
		d, err := c.open(f, path.Dir(name), ReadOnly)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return d, nil
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("the image names no file: %w", errdefs.ErrNotFound)
	}
	err = errors.Join(errs...)
	if errors.Is(err, errdefs.ErrFailedPrecondition) {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
}

// isLinked tells whether f is the parent that is looked for. A parent that is no regular file is not waited for.
func isLinked(f *os.File, linkage guid.GUID) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return invalid("not a file")
	}
	b, err := readStructure(f, "VHDX file type identifier", 0, 8)
	if err != nil {
		return err
	}
	if string(b) != vhdxSignature {
		return corrupt("VHDX file type identifier", 0, "signature %q", b)
	}
	h, _, err := readHeader(f)
	if err != nil {
		return err
	}
	if h.dataWrite != linkage {
		return fmt.Errorf("parent is another one, or has changed: its data id is %v, the image wants %v: %w", h.dataWrite, linkage,
			errdefs.ErrFailedPrecondition)
	}
	return nil
}

// candidates are the places of a parent, slash separated and relative to within.
func candidates(l Locator, dir string) []string {
	var names []string
	for _, p := range []string{l.Relative, l.Volume, l.Absolute} {
		slashed := strings.ReplaceAll(p, `\`, "/")
		if p == "" {
			continue
		}
		if p == l.Relative {
			names = append(names, path.Join(dir, slashed))
		}
		names = append(names, path.Join(dir, path.Base(slashed)))
	}
	return names
}

// CreateFile makes the image name, which must not exist. For a differencing image Parent is what stands in the file
// parent, whose paths it gets. It is gone again if it cannot be made.
func CreateFile(name string, o Options) (*Disk, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("create disk image: %w", err)
	}
	d, err := Create(f, o)
	if err != nil {
		return nil, errors.Join(joinClose(fmt.Errorf("%s: %w", name, err), f), os.Remove(name))
	}
	d.closes = append(d.closes, f)
	return d, nil
}

// CreateChild makes the differencing image name over the image parent, at the path from the one's directory to the
// other's. The parent is opened with the options, and closed with the child.
func CreateChild(name, parent string, o Options, access FileOptions) (*Disk, error) {
	rel, err := relative(name, parent)
	if err != nil {
		return nil, fmt.Errorf("create disk image %s: %w", name, err)
	}
	access.Access = ReadOnly
	p, err := OpenFile(parent, access)
	if err != nil {
		return nil, fmt.Errorf("create disk image %s: open parent: %w", name, err)
	}
	o.Format, o.Parent = DifferencingVHDX, p
	if o.ParentPaths.Relative == "" {
		o.ParentPaths.Relative = rel
	}
	d, err := CreateFile(name, o)
	if err != nil {
		return nil, joinClose(err, p)
	}
	d.closes = append(d.closes, p)
	return d, nil
}

// relative returns the path of a parent from its child's directory, in the way of Windows.
func relative(name, parent string) (string, error) {
	from, err1 := filepath.Abs(filepath.Dir(name))
	to, err2 := filepath.Abs(parent)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(from, to)
	if err != nil {
		return "", err
	}
	rel = strings.ReplaceAll(filepath.ToSlash(rel), "/", `\`)
	if !strings.HasPrefix(rel, `..\`) {
		rel = `.\` + rel
	}
	return rel, nil
}

func joinClose(err error, c io.Closer) error { return errors.Join(err, c.Close()) }
