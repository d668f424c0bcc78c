package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// Tree is a directory tree that somebody else may be changing, such as a running container's. Names are paths in it, with
// its root as "/": whatever symbolic links there are or come meanwhile, nothing outside of it is read or written. What others
// change at the same time may be seen or not. Its methods may be called at once.
type Tree struct {
	root   *inroot.Root
	hollow []string // directories whose content Read leaves out of those above them
	ids    []IDMap  // none: the machine's own
	end    func() error
}

// MapIDs has owners be those of whoever the tree belongs to: its ids from 0 on are those of this machine from first on. Write
// makes things as its root then, which is what a mount with mapped ids asks for.
func (t *Tree) MapIDs(first, size uint32) { t.ids = []IDMap{{Host: first, Size: size}} }

// OpenTree opens the tree below a directory, which must not be a symbolic link. The caller closes it.
func OpenTree(dir string) (*Tree, error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Tree{root: root, end: func() error { return nil }}, nil
}

// AdoptTree makes a tree of an open directory, which it closes. Read leaves out what is in the hollow directories, by their
// names in the tree.
func AdoptTree(fd int, hollow ...string) (*Tree, error) {
	root, err := inroot.Adopt(fd)
	if err != nil {
		return nil, err
	}
	return &Tree{root: root, hollow: hollow, end: func() error { return nil }}, nil
}

// OnClose has Close call f at the end.
func (t *Tree) OnClose(f func() error) {
	before := t.end
	t.end = func() error { return errors.Join(before(), f()) }
}

// Close closes the tree.
func (t *Tree) Close() error { return errors.Join(t.root.Close(), t.end()) }

// nobody is who somebody without an id in a user namespace is seen as there (/proc/sys/kernel/overflowuid).
const nobody = 65534

// adopt gives what belongs to somebody without an id in the map to nobody.
func (m IDMap) adopt(e *layer.Entry) {
	if e.UID-m.Host >= m.Size {
		e.UID = m.Host + min(nobody, m.Size-1)
	}
	if e.GID-m.Host >= m.Size {
		e.GID = m.Host + min(nobody, m.Size-1)
	}
}

// kinds are what objects of a tree are as entries. A socket is none.
var kinds = map[uint32]layer.Kind{
	sys.ModeRegular: layer.File, sys.ModeDir: layer.Dir, sys.ModeSymlink: layer.Symlink, sys.ModeChar: layer.CharDevice,
	sys.ModeBlock: layer.BlockDevice, sys.ModeFIFO: layer.Fifo,
}

// Lstat describes what has the name, without its extended attributes. A symbolic link is not followed.
func (t *Tree) Lstat(name string) (*layer.Entry, error) {
	name = cleanInTree(name)
	if name == "." {
		d, err := t.root.OpenDir(".")
		if err != nil {
			return nil, err
		}
		return newEntry(name, layer.Dir, d.Stat(), nil), d.Close()
	}
	d, last, err := t.root.OpenParent(name)
	if err != nil {
		return nil, err
	}
	e, err := describe(d, last, name)
	return e, errors.Join(err, d.Close())
}

func describe(d *inroot.Dir, last, name string) (*layer.Entry, error) {
	st, err := d.Lstat(last)
	if err != nil {
		return nil, err
	}
	kind, ok := kinds[st.Type()]
	if !ok {
		return nil, &fs.PathError{Op: "describe", Path: name, Err: fmt.Errorf("it is a socket: %w", errdefs.ErrNotImplemented)}
	}
	e := newEntry(name, kind, &st, nil)
	switch kind {
	case layer.File:
		e.Size = st.Size
	case layer.Symlink:
		e.Link, err = d.Readlink(last)
	case layer.CharDevice, layer.BlockDevice:
		e.Major, e.Minor = st.Major, st.Minor
	}
	return e, err
}

// Names returns the names of what is in a directory, in ascending order.
func (t *Tree) Names(dir string) ([]string, error) {
	d, err := t.root.OpenDir(cleanInTree(dir))
	if err != nil {
		return nil, err
	}
	names, err := d.Names()
	return names, errors.Join(err, d.Close())
}

// Follow returns what name leads to: a name without a symbolic link at its end, of which nothing need be there.
func (t *Tree) Follow(name string) (string, error) {
	name = cleanInTree(name)
	for range maxLinks {
		e, err := t.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil || e.Kind != layer.Symlink {
			return name, err
		}
		if !path.IsAbs(e.Link) {
			e.Link = path.Join(path.Dir(name), e.Link)
		}
		name = cleanInTree(e.Link)
	}
	return "", &fs.PathError{Op: "follow", Path: name, Err: sys.ErrTooManyLinks}
}

// cleanInTree makes a path a name as entries have them.
func cleanInTree(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

// Read emits what has the name, and all that is below it, as entries that are called as, and are below that: in the order of a
// walk, names ascending, as Diff's. Sockets, and what goes while it is walked, are left out.
func (t *Tree) Read(ctx context.Context, name, as string, emit Emit) error {
	name = cleanInTree(name)
	r := treeReader{ctx: ctx, hollow: t.hollowIDs()}
	r.x = newEmitter(t.root, ChangeOptions{UIDs: t.ids, GIDs: t.ids}, func(e *layer.Entry, content io.Reader) error {
		r.failed = emit(e, content)
		return r.failed
	})
	if len(t.ids) > 0 {
		r.x.adopt = t.ids[0].adopt
	}
	e, err := t.Lstat(name)
	switch {
	case err != nil:
	case e.Kind == layer.Dir:
		var d *inroot.Dir
		if d, err = t.root.OpenDir(name); err == nil {
			err = errors.Join(r.dir(d, as), d.Close())
		}
	default:
		err = t.inParent(name, func(d *inroot.Dir, last string) error { return r.x.object(d, last, as) })
	}
	if r.failed != nil {
		return r.failed
	}
	return err
}

func (t *Tree) inParent(name string, f func(d *inroot.Dir, last string) error) error {
	d, last, err := t.root.OpenParent(name)
	if err != nil {
		return err
	}
	return errors.Join(f(d, last), d.Close())
}

func (t *Tree) hollowIDs() map[objectID]bool {
	ids := make(map[objectID]bool)
	for _, name := range t.hollow {
		if st, err := t.root.Stat(name); err == nil {
			ids[idOf(&st)] = true
		}
	}
	return ids
}

// treeReader reads one part of a tree.
type treeReader struct {
	ctx    context.Context // of the one call that the reader is for
	x      *emitter
	hollow map[objectID]bool
	failed error // of emit
}

func (r *treeReader) dir(d *inroot.Dir, name string) error {
	if err := r.x.dir(d, name); err != nil {
		return err
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, last := range names {
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		err := r.object(d, last, path.Join(name, last))
		if err != nil && (r.failed != nil || nothingThere(err) != nil) {
			return err
		}
	}
	return nil
}

func (r *treeReader) object(d *inroot.Dir, last, name string) error {
	st, err := d.Lstat(last)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return r.x.object(d, last, name)
	}
	return withAccess(d, last, &st, 0o500, func() error {
		return inDir(d, last, func(sub *inroot.Dir) error {
			if r.hollow[idOf(sub.Stat())] {
				return r.x.dirAs(sub, name, &st)
			}
			return r.dir(sub, name)
		})
	})
}

// Write makes the source's entries below the directory dir, as Apply makes those of a layer on top of what is there, but that
// a directory is not replaced by something else, nor something else by a directory: that is an error of class
// errdefs.ErrFailedPrecondition. An entry "." is passed over, and whiteouts are errors of class errdefs.ErrInvalidArgument.
//
// When it fails, what was made stays.
func (t *Tree) Write(ctx context.Context, dir string, source EntrySource, owner OwnerPolicy) error {
	write := func() error {
		in := &treeInput{pulled: newPulled(source), root: t.root, dir: cleanInTree(dir)}
		_, err := apply(ctx, t.root, in, ApplyOptions{Owner: owner, UIDs: t.ids, GIDs: t.ids, touch: true})
		return errors.Join(err, in.end())
	}
	var err error
	if len(t.ids) == 0 {
		err = write()
	} else {
		err = sys.MakingFilesAs(t.ids[0].Host, write) // names are made by this goroutine alone: see applier
	}
	if e, ok := errors.AsType[*layer.EntryError](err); ok && e.Name != "" {
		if e.Op == "apply" {
			return &fs.PathError{Op: "write", Path: e.Name, Err: e.Err}
		}
		return &fs.PathError{Op: e.Op, Path: e.Name, Err: e.Err}
	}
	return err
}

// treeInput puts a source's entries in their place.
type treeInput struct {
	*pulled
	root *inroot.Root
	dir  string
}

func (in *treeInput) Next() (*layer.Entry, error) {
	for {
		e, err := in.pulled.Next()
		if err != nil {
			return nil, err
		}
		if e.Name == "." {
			continue
		}
		e.Name = path.Join(in.dir, e.Name)
		if e.Kind == layer.Hardlink {
			e.Link = path.Join(in.dir, e.Link)
		}
		if err := in.check(e); err != nil {
			return nil, &layer.EntryError{Op: "write", Name: e.Name, Err: err}
		}
		return e, nil
	}
}

func (in *treeInput) check(e *layer.Entry) error {
	if e.Kind == layer.Whiteout || e.Kind == layer.Opaque {
		return fmt.Errorf("its name is that of a whiteout: %w", errdefs.ErrInvalidArgument)
	}
	st, err := in.root.Lstat(e.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil: // a file on the way, for instance, which would be replaced
		return err
	case st.IsDir() && e.Kind != layer.Dir:
		return fmt.Errorf("there is a directory of that name: %w", errdefs.ErrFailedPrecondition)
	case !st.IsDir() && e.Kind == layer.Dir:
		return fmt.Errorf("there is something else than a directory of that name: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}
