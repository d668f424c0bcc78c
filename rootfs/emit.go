package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// Emit takes one entry of a layer and, if it is a file, its content.
type Emit = func(*layer.Entry, io.Reader) error

// emitter reads objects of a tree as entries.
type emitter struct {
	root  *inroot.Root
	opts  ChangeOptions
	ids   idMapper
	marks string // prefix of overlayfs's attributes, if they mean anything
	emit  Emit
	links map[objectID]string // the first name of files with several

	adopt func(*layer.Entry) // if not nil, changes what the file system says of an object
}

func newEmitter(root *inroot.Root, opts ChangeOptions, emit Emit) *emitter {
	x := &emitter{
		root: root, opts: opts, ids: newIDMapper(opts.UIDs, opts.GIDs, opts.Rootless), emit: emit,
		links: make(map[objectID]string),
	}
	if opts.Format == OverlayUpper {
		x.marks = overlayTrusted
		if opts.UserXattr {
			x.marks = overlayUser
		}
	}
	return x
}

func (x *emitter) all(ctx context.Context, changes []Change) error {
	for _, c := range changes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := x.change(c); err != nil {
			if _, ok := errors.AsType[*layer.EntryError](err); ok {
				return err
			}
			return &layer.EntryError{Op: "read changed", Name: c.Name, Err: err}
		}
	}
	return nil
}

func (x *emitter) change(c Change) error {
	if c.Name == "." {
		if c.Kind == Deleted {
			return fmt.Errorf("the root is gone: %w", errdefs.ErrInvalidArgument)
		}
		top, err := x.root.OpenDir(".")
		if err != nil {
			return err
		}
		return errors.Join(x.dir(top, "."), top.Close())
	}
	parent, last := cut(c.Name)
	if strings.HasPrefix(last, ".wh.") {
		return fmt.Errorf("a layer would take it for a whiteout: %w", errdefs.ErrInvalidArgument)
	}
	if c.Kind == Deleted {
		return x.whiteout(c.Name)
	}
	return x.below(parent, func(dir *inroot.Dir) error { return x.object(dir, last, c.Name) })
}

func (x *emitter) whiteout(name string) error {
	return x.emit(&layer.Entry{Name: name, Kind: layer.Whiteout, ModTime: time.Unix(0, 0)}, nil)
}

// below calls f with the directory called name. No symbolic link leads to it: the name is that of a walk.
func (x *emitter) below(name string, f func(*inroot.Dir) error) error {
	if name == "." {
		top, err := x.root.OpenDir(".")
		if err != nil {
			return err
		}
		return errors.Join(f(top), top.Close())
	}
	parent, last := cut(name)
	if d, err := x.root.OpenDir(name); err == nil {
		return errors.Join(f(d), d.Close())
	}
	// Something on the way may not be entered as it is.
	return x.below(parent, func(dir *inroot.Dir) error {
		st, err := dir.Lstat(last)
		if err != nil {
			return err
		}
		return withAccess(dir, last, &st, 0o500, func() error { return inDir(dir, last, f) })
	})
}

func (x *emitter) object(dir *inroot.Dir, last, name string) error {
	st, err := dir.Lstat(last)
	switch {
	case err != nil:
		return err
	case x.marks != "" && st.IsWhiteout():
		return x.whiteout(name)
	case st.IsDir():
		return withAccess(dir, last, &st, 0o500, func() error {
			return inDir(dir, last, func(sub *inroot.Dir) error { return x.dirAs(sub, name, &st) })
		})
	case st.Type() == sys.ModeSocket:
		return nil
	}
	if first, known := x.links[idOf(&st)]; known {
		e := newEntry(name, layer.Hardlink, &st, nil)
		e.Link = first
		return x.send(e, nil)
	}
	if st.Nlink > 1 {
		x.links[idOf(&st)] = name
	}
	if st.IsRegular() {
		return x.file(&object{name: name, st: st, dir: dir, last: last})
	}
	return x.node(dir, last, name, &st)
}

func (x *emitter) dir(d *inroot.Dir, name string) error { return x.dirAs(d, name, d.Stat()) }

// dirAs emits a directory that was as st says.
func (x *emitter) dirAs(d *inroot.Dir, name string, st *sys.Stat) error {
	attrs, err := d.Self().Xattrs()
	if err != nil {
		return err
	}
	if err := x.send(newEntry(name, layer.Dir, st, attrs), nil); err != nil {
		return err
	}
	if x.marks != "" && attrs[x.marks+"opaque"] == "y" {
		return x.emit(&layer.Entry{Name: name, Kind: layer.Opaque, ModTime: time.Unix(0, 0)}, nil)
	}
	return nil
}

func (x *emitter) file(o *object) error {
	return o.read(func(file *os.File) error {
		fd := int(file.Fd())
		st, err := sys.StatFD(fd)
		if err != nil {
			return err
		}
		st.Mode = o.st.Mode // which reading may have had to change
		attrs, err := inroot.Borrow(fd).Xattrs()
		if err != nil {
			return err
		}
		if x.marks != "" {
			if _, is := attrs[x.marks+"whiteout"]; is && st.Size == 0 {
				return x.whiteout(o.name)
			}
		}
		e := newEntry(o.name, layer.File, &st, attrs)
		e.Size = st.Size
		if e.Data, err = extents(fd, &st); err != nil {
			return err
		}
		return x.send(e, io.NewSectionReader(file, 0, st.Size))
	})
}

func (x *emitter) node(dir *inroot.Dir, last, name string, st *sys.Stat) error {
	attrs, err := dir.Xattrs(last)
	if err != nil {
		return err
	}
	e := newEntry(name, layer.Symlink, st, attrs)
	switch st.Type() {
	case sys.ModeSymlink:
		e.Link, err = dir.Readlink(last)
	case sys.ModeChar:
		e.Kind, e.Major, e.Minor = layer.CharDevice, st.Major, st.Minor
	case sys.ModeBlock:
		e.Kind, e.Major, e.Minor = layer.BlockDevice, st.Major, st.Minor
	case sys.ModeFIFO:
		e.Kind = layer.Fifo
	default:
		err = fmt.Errorf("object of unknown type %#o: %w", st.Type(), errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	return x.send(e, nil)
}

func (x *emitter) send(e *layer.Entry, content io.Reader) error {
	if x.adopt != nil {
		x.adopt(e)
	}
	if err := x.ids.toLayer(e); err != nil {
		return err
	}
	return x.emit(e, content)
}
