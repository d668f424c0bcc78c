package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// Format says what a layer becomes on disk.
type Format int

const (
	// Directory is a plain tree. The layer is applied on top of what is there: whiteouts remove things at once.
	Directory Format = iota
	// OverlayUpper is a tree for overlayfs to stack. It holds this layer alone: whiteouts become character devices 0:0, and
	// opaque directories are marked with an extended attribute.
	OverlayUpper
)

// OwnerPolicy says what happens where only root may do what the layer says.
type OwnerPolicy int

const (
	// KeepOwner applies owners and all extended attributes, and fails where that is not permitted.
	KeepOwner OwnerPolicy = iota
	// IgnoreOwner leaves objects to their creator, and leaves out attributes that he may not set and device nodes that he may
	// not make, where that is not permitted.
	IgnoreOwner
	// MapOwner is for root of a user namespace: owners are applied as it maps them, which fails for those it has no ids for,
	// and what only the machine's root may make, device nodes and attributes trusted.*, is left out.
	MapOwner
)

// ApplyOptions says how a layer is applied. The zero value is right for a plain tree.
type ApplyOptions struct {
	Format Format
	Owner  OwnerPolicy

	// UserXattr makes OverlayUpper use user.overlay.* for its marks, for mounts with sys.Overlay.UserXattr.
	UserXattr bool

	// UIDs and GIDs say which ids of this machine the layer's ids are. None means the same ones; otherwise an id that none of
	// them maps is an error of class errdefs.ErrFailedPrecondition.
	UIDs, GIDs []IDMap

	// Rootless leaves every object to this process's user: owners are kept in the extended attribute
	// user.rootlesscontainers, and device nodes become empty files. It implies IgnoreOwner and no mapping.
	Rootless bool

	// KeepDirlinks leaves a symbolic link to a directory, and that directory, as they are where the layer has a directory in
	// the link's place.
	KeepDirlinks bool

	// Writers is how many goroutines write files; 0 means one per CPU, at most 8.
	Writers int

	spill spillFile // for what is too much for memory; nil: in the system's temporary directory

	aside *aside // see there
	touch bool   // directories that are there get the times that filling them gives
}

// Stats says what Apply did.
type Stats struct {
	Entries int64 // whiteouts included
	Bytes   int64 // content of files, holes included

	Whiteouts int64 // that OverlayUpper made in the tree
	Root      bool  // the layer has an entry for the root directory itself
	Opaque    bool  // the layer's root hides all lower layers, which OverlayUpper cannot mark in the tree
}

// Apply unpacks the layer that r reads into the tree below root, which should not change otherwise meanwhile. When it
// fails, the tree is left half done; errors are of type *layer.EntryError where an entry is to blame.
//
// The result is what GNU tar makes of the layer with --extract --preserve-permissions, with these differences: whiteouts
// count; a later entry replaces an earlier one of the same name and is never written through it; the metadata of hard link
// entries is left aside, as are the extended attributes security.selinux, security.ima, security.evm, system.nfs4_acl,
// trusted.overlay.* and user.overlay.*; directories that have no entry keep their times, or, if they are missing, are made
// with mode 0755, owned by this process's user, of 1970-01-01. A character device 0:0, overlayfs's whiteout, is refused in OverlayUpper
// and left out in Directory.
func Apply(ctx context.Context, root *inroot.Root, r *layer.Reader, opts ApplyOptions) (Stats, error) {
	return apply(ctx, root, r, opts)
}

// entryReader is what apply reads: a layer.Reader, or one whose entries are changed on the way.
type entryReader interface {
	io.Reader
	Next() (*layer.Entry, error)
	WriteDataAt(w io.WriterAt) (int64, error)
}

func apply(ctx context.Context, root *inroot.Root, r entryReader, opts ApplyOptions) (Stats, error) {
	a, err := newApplier(root, opts)
	if err != nil {
		return Stats{}, fmt.Errorf("apply layer: %w", err)
	}
	err = a.entries(ctx, r)
	if err == nil {
		err = a.settle()
	}
	if waitErr := a.writers.wait(); err == nil {
		err = waitErr
	}
	if err == nil {
		err = a.finish()
	}
	return a.stats, errors.Join(err, a.dirs.close(), a.format.close())
}

// applier applies one layer. One goroutine makes, replaces and removes names, in the layer's order; the writers see files
// that exist already, by descriptor. So nothing about names, links, replaced objects or cached directories depends on how
// the goroutines run.
type applier struct {
	root    *inroot.Root
	opts    ApplyOptions
	format  format
	dirs    *dirCache
	meta    map[objectID]*dirMeta // what directories are to look like in the end
	linked  []*dirMeta            // those of which the names may lead through symbolic links
	writers *writers
	aside   *aside // nil: everything in order
	owner   ownership
	ids     idMapper
	stats   Stats
}

// format is what differs between a plain tree and one for overlayfs.
type format interface {
	// made notes that the layer brings last in dir.
	made(dir *dirHandle, last string) error
	// device says what becomes of a character device 0:0: skipped, or an error.
	whiteoutDevice() error
	// fresh is told of each directory that is made: it may have the number of one that was removed.
	fresh(id objectID)
	// replacedByDir is called for a new directory in the place of something else.
	replacedByDir(dir *dirHandle) error
	whiteout(e *layer.Entry) error
	opaque(e *layer.Entry) error
	// finish runs when all entries are there, before directories get their times.
	finish() error
	close() error
}

func newApplier(root *inroot.Root, opts ApplyOptions) (*applier, error) {
	if opts.Rootless {
		opts.Owner = IgnoreOwner
	}
	top, err := root.OpenDir(".")
	if err != nil {
		return nil, err
	}
	a := &applier{
		root:  root,
		opts:  opts,
		dirs:  newDirCache(top),
		meta:  make(map[objectID]*dirMeta),
		aside: opts.aside,
		owner: newOwnership(opts),
		ids:   newIDMapper(opts.UIDs, opts.GIDs, opts.Rootless),
	}
	a.noteExisting(a.dirs.root)
	switch opts.Format {
	case Directory:
		a.format = &plainTree{applier: a, brought: newNameSet(opts.spill)}
	case OverlayUpper:
		a.format = newOverlayTree(a)
	default:
		return nil, errors.Join(fmt.Errorf("unknown format %d: %w", opts.Format, errdefs.ErrInvalidArgument), a.dirs.close())
	}
	if err := a.owner.probe(top, opts.Format); err != nil {
		return nil, errors.Join(err, a.dirs.close(), a.format.close())
	}
	a.writers = newWriters(opts.Writers, a.finishFile)
	if a.aside != nil {
		a.aside.applier = a
	}
	return a, nil
}

// entries applies all entries in order.
func (a *applier) entries(ctx context.Context, r entryReader) error {
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("apply layer: %w", context.Cause(ctx))
		}
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		a.stats.Entries++
		if err := a.dirs.sweep(); err != nil {
			return entryError(e.Name, err)
		}
		err = a.ids.toHost(e)
		if err == nil {
			err = a.entry(e, r)
		}
		if err != nil {
			return entryError(e.Name, err)
		}
		if a.writers.failed.Load() {
			return nil // wait returns why
		}
	}
}

func (a *applier) entry(e *layer.Entry, r entryReader) error {
	switch e.Kind {
	case layer.Whiteout:
		return a.format.whiteout(e)
	case layer.Opaque:
		return a.format.opaque(e)
	case layer.Dir:
		return a.dir(e)
	}
	if e.Name == "." {
		return fmt.Errorf("the root is a %v, not a directory: %w", e.Kind, errdefs.ErrInvalidArgument)
	}
	if e.Kind == layer.CharDevice && e.Major == 0 && e.Minor == 0 {
		return a.format.whiteoutDevice()
	}
	parent, last, err := a.parent(e.Name)
	if err != nil {
		return err
	}
	if err := a.object(e, r, parent, last); err != nil {
		return err
	}
	return a.format.made(parent, last)
}

// object makes what is no directory.
func (a *applier) object(e *layer.Entry, r entryReader, parent *dirHandle, last string) error {
	switch e.Kind {
	case layer.File:
		return a.file(e, r, parent, last)
	case layer.Hardlink:
		return a.hardlink(e, parent, last)
	case layer.Symlink:
		return a.node(e, parent, last, func() error { return parent.Symlink(e.Link, last) })
	case layer.CharDevice:
		return a.device(e, parent, last, sys.ModeChar)
	case layer.BlockDevice:
		return a.device(e, parent, last, sys.ModeBlock)
	case layer.Fifo:
		return a.node(e, parent, last, func() error { return parent.Mknod(last, sys.ModeFIFO|0o600, 0, 0) })
	}
	return fmt.Errorf("unknown %v: %w", e.Kind, errdefs.ErrInvalidArgument)
}

// file makes a regular file. A small one is read now and written aside; a large one would only wait for a buffer there.
func (a *applier) file(e *layer.Entry, r entryReader, parent *dirHandle, last string) error {
	if e.Size <= smallFile && e.Data == nil {
		fresh, err := a.fresh(parent, last)
		if err != nil {
			return err
		}
		if fresh {
			a.stats.Bytes += e.Size
			parent.hold()
			return a.writers.small(job{dir: parent, name: last, entry: e, chown: a.owner.mustChown(e, parent.Dir)}, r)
		}
	}
	var file *inroot.File
	err := a.claim(parent, last)
	if err == nil {
		file, err = a.newFile(e, parent, last)
	}
	if err != nil {
		return err
	}
	a.stats.Bytes += e.Size
	j := job{file: file, entry: e, chown: a.owner.mustChown(e, parent.Dir)}
	if e.Size <= smallFile && e.Data == nil {
		return a.writers.small(j, r)
	}
	_, err = r.WriteDataAt(file)
	if err == nil && e.Data != nil {
		err = file.Truncate(e.Size)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if a.opts.Format == OverlayUpper {
		file.StartWriteback() // a store will wait for it in the end; for small files the calls cost what they spare
	}
	return a.finishFile(&j)
}

// newFile makes an empty file.
func (a *applier) newFile(e *layer.Entry, parent *dirHandle, last string) (file *inroot.File, err error) {
	err = a.replacing(parent, last, func() error {
		var err error
		file, err = parent.Create(last, a.owner.createMode(e))
		return err
	})
	return file, err
}

// finishFile gives a written file its metadata and closes it. Owner, mode, attributes and times come in this order as each
// may change those before it.
func (a *applier) finishFile(j *job) error {
	if err := a.create(j); err != nil {
		return err
	}
	err := j.write()
	if err == nil && j.chown {
		err = a.owner.chowned(j.entry, j.file.Chown(j.entry.UID, j.entry.GID))
	}
	if err == nil {
		err = a.owner.setUserXattrs(j.entry, j.file.SetXattr)
	}
	if err == nil && a.owner.mustChmod(j.entry) {
		err = j.file.Chmod(j.entry.Mode)
	}
	if err == nil {
		err = a.owner.setXattrs(j.entry, j.file.SetXattr)
	}
	if err == nil {
		err = j.file.SetTimes(times(j.entry))
	}
	return errors.Join(err, j.file.Close())
}

// hardlink makes another name of an object of the tree. Nothing else happens to the object.
func (a *applier) hardlink(e *layer.Entry, parent *dirHandle, last string) error {
	if fresh, err := a.fresh(parent, last); err != nil {
		return err
	} else if fresh {
		a.aside.links = append(a.aside.links, asideLink{e.Name, e.Link})
		return nil
	}
	if err := a.claim(parent, last); err != nil {
		return err
	}
	return a.linkNow(e, parent, last)
}

func (a *applier) linkNow(e *layer.Entry, parent *dirHandle, last string) error {
	targetDir, target, err := a.existing(e.Link)
	if err == nil {
		var st sys.Stat
		if st, err = targetDir.Lstat(target); err == nil && a.opts.Format == OverlayUpper && st.IsWhiteout() {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return fmt.Errorf("find the hard link's target %q: %w", e.Link, err)
	}
	if targetDir.id == parent.id && target == last {
		return nil
	}
	// Looking up the target may have closed the parent's handle, and replacing may close the target's.
	return a.replacing(parent, last, func() error { return targetDir.Link(target, parent.Dir, last) })
}

// device makes a device node.
func (a *applier) device(e *layer.Entry, parent *dirHandle, last string, kind uint32) error {
	denied := false
	err := a.node(e, parent, last, func() error {
		err := parent.Mknod(last, kind|0o600, e.Major, e.Minor)
		denied = errors.Is(err, sys.ErrNotPermitted)
		return err
	})
	if denied && a.opts.Owner != KeepOwner {
		return nil
	}
	if os.Geteuid() != 0 && denied {
		return deviceDenied(err)
	}
	return err
}

func deviceDenied(err error) error {
	return fmt.Errorf("make a device node, for which CAP_MKNOD is needed: %w: %w", err, errdefs.ErrPermissionDenied)
}

// node makes what needs no descriptor and gives it its metadata.
func (a *applier) node(e *layer.Entry, parent *dirHandle, last string, create func() error) error {
	if err := a.claim(parent, last); err != nil {
		return err
	}
	if err := a.replacing(parent, last, create); err != nil {
		return err
	}
	if a.owner.mustChown(e, parent.Dir) {
		if err := a.owner.chowned(e, parent.Chown(last, e.UID, e.GID)); err != nil {
			return err
		}
	}
	set := func(attr, value string) error { return parent.SetXattr(last, attr, value) }
	if err := a.owner.setUserXattrs(e, set); err != nil {
		return err
	}
	if e.Kind != layer.Symlink {
		if err := parent.Chmod(last, e.Mode); err != nil {
			return err
		}
	}
	if err := a.owner.setXattrs(e, set); err != nil {
		return err
	}
	atime, mtime := times(e)
	return parent.SetTimes(last, atime, mtime)
}

// replacing creates last in parent, after removing what has the name.
func (a *applier) replacing(parent *dirHandle, last string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := a.remove(parent, last); err != nil {
		return err
	}
	return create()
}

// remove removes last, whatever it is, from parent.
func (a *applier) remove(parent *dirHandle, last string) error {
	st, err := parent.Lstat(last)
	if err != nil {
		return err
	}
	if err := a.goneSoon(&st); err != nil {
		return err
	}
	return parent.RemoveAll(last)
}

// finish does what waits for the last entry.
func (a *applier) finish() error {
	if err := a.format.finish(); err != nil {
		return err
	}
	// Who is not root may no longer reach what lies below a directory that has its final mode.
	if a.owner.uid != 0 {
		if err := a.settleNames(); err != nil {
			return err
		}
	}
	ids := slices.Collect(maps.Keys(a.meta))
	slices.SortFunc(ids, func(x, y objectID) int { return strings.Compare(a.meta[y].name, a.meta[x].name) })
	for _, id := range ids {
		if err := a.finishDir(id, a.meta[id]); err != nil {
			return entryError(a.meta[id].name, err)
		}
	}
	return nil
}

func entryError(name string, err error) error {
	if e, ok := errors.AsType[*layer.EntryError](err); ok {
		return e
	}
	return &layer.EntryError{Op: "apply", Name: name, Err: err}
}
