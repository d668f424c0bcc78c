package rootfs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/mtree"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// object is one object of a tree that is being walked.
type object struct {
	name string
	st   sys.Stat
	dir  *inroot.Dir // that holds it; nil for the root
	last string
	self *inroot.Dir // if it is a directory, open
}

// walk calls f with all objects in the order of a manifest: what is in a directory after it, directories last. A directory
// that may not be read, which is one's own, is made readable meanwhile.
func walk(ctx context.Context, root *inroot.Root, f func(*object) error) error {
	top, err := root.OpenDir(".")
	if err != nil {
		return err
	}
	w := walker{ctx, f}
	return errors.Join(w.dir(&object{name: ".", st: *top.Stat(), self: top}), top.Close())
}

type walker struct {
	ctx context.Context // of the one call that the walker is for
	f   func(*object) error
}

func (w *walker) dir(o *object) error {
	if err := w.f(o); err != nil {
		return objectError(o.name, err)
	}
	names, err := o.self.Names()
	if err != nil {
		return objectError(o.name, err)
	}
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	var dirs []*object
	for _, last := range names {
		sub := &object{name: path.Join(o.name, last), dir: o.self, last: last}
		if sub.st, err = o.self.Lstat(last); err != nil {
			return objectError(sub.name, err)
		}
		if sub.st.IsDir() {
			dirs = append(dirs, sub)
		} else if err := w.f(sub); err != nil {
			return objectError(sub.name, err)
		}
	}
	for _, sub := range dirs {
		err := withAccess(sub.dir, sub.last, &sub.st, 0o500, func() error {
			var err error
			if sub.self, err = sub.dir.OpenDir(sub.last); err != nil {
				return objectError(sub.name, err)
			}
			return errors.Join(w.dir(sub), sub.self.Close())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func objectError(name string, err error) error {
	if _, ok := errors.AsType[*layer.EntryError](err); ok {
		return err
	}
	return &layer.EntryError{Op: "look at", Name: name, Err: err}
}

// withAccess calls f while the process may use last, which it owns, in the ways of the given bits of a mode.
func withAccess(dir *inroot.Dir, last string, st *sys.Stat, bits uint32, f func() error) error {
	uid := os.Geteuid()
	if uid == 0 || st.Mode&bits == bits || st.UID != uint32(uid) {
		return f()
	}
	mode := st.Mode & sys.ModePerm
	if err := dir.Chmod(last, mode|bits); err != nil {
		return err
	}
	return errors.Join(f(), dir.Chmod(last, mode))
}

var manifestTypes = map[uint32]string{
	sys.ModeRegular: mtree.File, sys.ModeDir: mtree.Dir, sys.ModeSymlink: mtree.Link, sys.ModeChar: mtree.Char,
	sys.ModeBlock: mtree.Block, sys.ModeFIFO: mtree.Fifo, sys.ModeSocket: mtree.Socket,
}

func newManifest(to io.Writer) *mtree.Writer { return mtree.NewWriter(to) }

// manifestEntry is what the kernel's description of an object says in a manifest.
func manifestEntry(name string, st *sys.Stat) *mtree.Entry {
	return &mtree.Entry{
		Name: name, Type: manifestTypes[st.Type()], Mode: st.Mode & sys.ModePerm, UID: st.UID, GID: st.GID,
		Nlink: st.Nlink, Size: st.Size, Seconds: st.MTime.Unix(), Inode: st.Ino, Changed: st.CTime,
		Major: st.Major, Minor: st.Minor,
	}
}

// describe reads all that a manifest says of the object.
func (o *object) describe() (*mtree.Entry, error) {
	var err error
	e := manifestEntry(o.name, &o.st)
	switch o.st.Type() {
	case sys.ModeSymlink:
		e.Link, err = o.dir.Readlink(o.last)
	case sys.ModeDir:
		e.Xattrs, err = o.self.Self().Xattrs()
	case sys.ModeRegular:
		err = o.read(func(f *os.File) error {
			if e.Xattrs, err = inroot.Borrow(int(f.Fd())).Xattrs(); err != nil {
				return err
			}
			e.SHA256, err = sum(f)
			return err
		})
	}
	return e, err
}

// read calls f with the open file. Opening it for reading may have to change its mode for a moment, and so its change time.
func (o *object) read(f func(*os.File) error) error {
	return withAccess(o.dir, o.last, &o.st, 0o400, func() error {
		file, err := o.dir.Open(o.last)
		if err != nil {
			return err
		}
		return errors.Join(f(file), file.Close())
	})
}

func sum(r io.Reader) (s [sha256.Size]byte, err error) {
	h := sha256.New()
	buf := make([]byte, 64<<10)
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, buf); err != nil {
		return s, fmt.Errorf("read: %w", err)
	}
	h.Sum(s[:0])
	return s, nil
}
