package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// LayerBlob is one layer of an image to unpack.
type LayerBlob struct {
	// DiffID and Digest are of the tar stream and of the blob. They are checked when the layer is read, unless they are
	// empty; what differs is an error of class errdefs.ErrDataLoss.
	DiffID, Digest digest.Digest

	// Size is the blob's, 0 if unknown. Small ones are decompressed ahead.
	Size int64

	// Open opens the blob, compressed or not. It is called twice at most, and by several goroutines at once for several
	// layers.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// TreeOptions says how an image is unpacked. The zero value is right for a plain tree made by root.
type TreeOptions struct {
	// Format is Directory, or, for a single layer, OverlayUpper.
	Format    Format
	Owner     OwnerPolicy
	UserXattr bool // as for ApplyOptions

	// UIDs, GIDs, Rootless and KeepDirlinks are as for ApplyOptions.
	UIDs, GIDs   []IDMap
	Rootless     bool
	KeepDirlinks bool

	Limits  layer.Limits // of each layer
	Writers int          // as for ApplyOptions

	// Mtree is where the manifest of the tree goes, as package mtree writes it, unless it is nil. It is of use only if there
	// is no error.
	Mtree io.Writer

	// Memory is how many bytes of memory the table of the tree's names may take; 0 means 16 MiB. What does not fit is kept in
	// files without names, beside the tree.
	Memory int

	// Progress is told when another part of a layer was read: layer's index, entries of it so far.
	Progress func(index int, entries int64)
}

// TreeStats says what UnpackTree did.
type TreeStats struct {
	Entries   int64 // of all layers, whiteouts included
	Bytes     int64 // content that was written, holes included
	Whiteouts int64 // that OverlayUpper made in the tree
	Root      bool  // a layer has an entry for the root directory itself
	Opaque    bool  // as for Stats

	// InOrder says that the layers had to be applied one after the other, because what one of them means depends on a
	// symbolic link below it, or the like.
	InOrder bool
}

// errNotFlat means that layers cannot be merged from the top.
var errNotFlat = errors.New("the layers depend on each other's symbolic links")

// spillFile makes a file without a name for what is not to be in memory.
type spillFile func() (*os.File, error)

// treeDir is what the tree is called until it is complete, in a directory of its own beside its place.
const treeDir = "tree"

// UnpackTree unpacks layers, base first, as the new directory dir, whose parent exists. The tree is what [Apply] makes of
// them one after the other in a directory of mode 0755 and of 1970-01-01. It is made in a private directory beside its place
// and gets its name when it is complete; otherwise nothing stays. What a killed call left, the next one for the same dir
// removes. Whoever may rename what is in dir's parent, as everybody may in a directory that all write to and that is not
// sticky, can exchange that directory, or the tree when it is complete. Entries that upper layers hide are read, but what they would do wrong on disk is not found out. If dir exists, the
// error is of class errdefs.ErrAlreadyExists.
func UnpackTree(ctx context.Context, dir string, layers []LayerBlob, opts TreeOptions) (TreeStats, error) {
	stats, err := unpackTree(ctx, dir, layers, opts)
	if err != nil {
		return stats, fmt.Errorf("unpack to %s: %w", dir, err)
	}
	return stats, nil
}

func unpackTree(ctx context.Context, dir string, layers []LayerBlob, opts TreeOptions) (stats TreeStats, err error) {
	if opts.Format == OverlayUpper && len(layers) != 1 {
		return stats, fmt.Errorf("%d layers as one overlay directory: %w", len(layers), errdefs.ErrInvalidArgument)
	}
	if opts.Rootless {
		opts.Owner = IgnoreOwner
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return stats, err
	}
	w, err := newWorkplace(ctx, dir)
	if err != nil {
		return stats, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if opts.Format == Directory {
		stats, err = w.fill(opts, func(root *inroot.Root) (TreeStats, error) { return flatten(ctx, root, layers, opts, w.spillFile) })
		if err == nil || !errors.Is(err, errNotFlat) {
			return stats, errors.Join(err, w.publish(err))
		}
	}
	stats, err = w.fill(opts, func(root *inroot.Root) (TreeStats, error) { return applyInOrder(ctx, root, layers, opts, w.spillFile) })
	return stats, errors.Join(err, w.publish(err))
}

// workplace is the private directory <parent>/.hcs-unpack-<name> in which the tree called name is made. A lock in it keeps
// others out.
type workplace struct {
	target    string
	overEmpty bool // an empty directory of the tree's name makes way
	parent    *inroot.Root
	name      string
	dir       string
	lock      *state.Lock
}

const (
	workPrefix = ".hcs-unpack-"
	lockDir    = ".lock" // where package state has its locks
	spillName  = "spill" // what spillFile may have called a file when it was killed
)

func newWorkplace(ctx context.Context, target string) (*workplace, error) {
	return openWorkplace(ctx, workplace{target: target})
}

func openWorkplace(ctx context.Context, w workplace) (*workplace, error) {
	parent, base := filepath.Split(w.target)
	if base == "" {
		return nil, fmt.Errorf("it is the root directory: %w", errdefs.ErrInvalidArgument)
	}
	root, err := inroot.Open(filepath.Clean(parent))
	if err != nil {
		return nil, err
	}
	w.parent, w.name = root, workPrefix+base
	w.dir = filepath.Join(parent, w.name)
	if err := w.enter(ctx); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &w, nil
}

// enter makes the private directory and takes its lock. Who has just left may have removed either, then it starts again.
func (w *workplace) enter(ctx context.Context) error {
	for attempts := 1; ; attempts++ {
		err := w.tryEnter(ctx)
		// os.MkdirAll says that a directory exists which goes while it looks.
		gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)
		if !gone || attempts == enterAttempts {
			return err
		}
	}
}

const enterAttempts = 1000

func (w *workplace) tryEnter(ctx context.Context) error {
	if err := w.checkFree(); err != nil {
		return err
	}
	if err := w.make(); err != nil {
		return err
	}
	locks, err := state.Open[struct{}](state.Config{Dir: w.dir, Kind: "tree", Durability: state.Volatile})
	if err != nil {
		return err
	}
	if w.lock, err = locks.Lock(ctx, treeDir); err != nil {
		return err
	}
	for _, step := range []func() error{w.checkFree, w.checkPrivate, w.discard} {
		if err := step(); err != nil {
			return errors.Join(err, w.leave())
		}
	}
	return nil
}

// leave lets the lock go and removes the private directory, unless somebody waits for the lock: then it is not empty.
func (w *workplace) leave() error {
	err := w.lock.Unlock()
	_ = w.parent.Remove(w.name + "/" + lockDir)
	_ = w.parent.Remove(w.name)
	return err
}

// make makes the private directory. What has its name and is not private was not made here, and is nothing to go through:
// somebody else could exchange the tree in it.
func (w *workplace) make() error {
	if err := w.parent.Mkdir(w.name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := w.checkPrivate()
	if errors.Is(err, fs.ErrNotExist) {
		return w.make() // another call has just removed it
	}
	return err
}

func (w *workplace) checkPrivate() error {
	st, err := w.parent.Lstat(w.name)
	switch {
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%s is not a directory: %w", w.dir, errdefs.ErrFailedPrecondition)
	case st.UID != uint32(os.Geteuid()) || st.Mode&0o077 != 0:
		return fmt.Errorf("%s is not this user's alone: %w", w.dir, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// checkFree returns an error if something has the tree's name.
func (w *workplace) checkFree() error {
	st, err := w.parent.Lstat(filepath.Base(w.target))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case w.overEmpty && st.IsDir():
		return w.checkEmpty()
	}
	return fmt.Errorf("it exists: %w", errdefs.ErrAlreadyExists)
}

func (w *workplace) checkEmpty() error {
	dir, err := w.parent.OpenDir(filepath.Base(w.target))
	if err != nil {
		return err
	}
	names, err := dir.Names()
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("it is not empty: %w", errdefs.ErrAlreadyExists)
	}
	return errors.Join(err, dir.Close())
}

// fill calls f with a fresh directory. Nobody else can enter it: its parent is private.
func (w *workplace) fill(opts TreeOptions, f func(*inroot.Root) (TreeStats, error)) (TreeStats, error) {
	if err := w.discard(); err != nil {
		return TreeStats{}, err
	}
	tree := filepath.Join(w.dir, treeDir)
	if err := os.Mkdir(tree, 0o700); err != nil {
		return TreeStats{}, err
	}
	if err := os.Chmod(tree, impliedMode); err != nil {
		return TreeStats{}, err
	}
	if err := os.Chtimes(tree, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
		return TreeStats{}, err
	}
	root, err := inroot.Open(tree)
	if err != nil {
		return TreeStats{}, err
	}
	if err := ownTop(root, opts); err != nil {
		return TreeStats{}, errors.Join(err, root.Close())
	}
	stats, err := f(root)
	return stats, errors.Join(err, root.Close())
}

// ownTop gives the new directory to whom root of the layers is on this machine. A layer that has an entry for it says more.
func ownTop(root *inroot.Root, opts TreeOptions) error {
	if opts.Rootless || len(opts.UIDs) == 0 && len(opts.GIDs) == 0 {
		return nil
	}
	m := newIDMapper(opts.UIDs, opts.GIDs, opts.Rootless)
	top := layer.Entry{Name: ".", Kind: layer.Dir}
	top.UID, top.GID = m.root()
	dir, err := root.OpenDir(".")
	if err != nil {
		return err
	}
	o := newOwnership(ApplyOptions{Owner: opts.Owner})
	return errors.Join(o.chowned(&top, dir.Self().Chown(top.UID, top.GID)), dir.Close())
}

func (w *workplace) discard() error {
	return errors.Join(w.parent.RemoveAll(w.name+"/"+treeDir), w.parent.RemoveAll(w.name+"/"+spillName))
}

// spillFile opens a file that goes when it is closed.
func (w *workplace) spillFile() (*os.File, error) { return sys.UnnamedFile(w.dir, spillName) }

// publish gives the tree its name, unless it failed to be made.
func (w *workplace) publish(failed error) error {
	if failed != nil {
		return nil
	}
	if err := w.checkFree(); err != nil {
		return err
	}
	return w.parent.Rename(w.name+"/"+treeDir, filepath.Base(w.target))
}

// close removes what is left of the tree, and the private directory.
func (w *workplace) close() error {
	return errors.Join(w.discard(), w.leave(), w.parent.Close())
}
