package rootfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/mtree"
	"github.com/hostcompute/hcs/internal/sys"
)

// ChangeKind says what happened to an object.
type ChangeKind uint8

// What can happen to an object.
const (
	Added ChangeKind = iota
	Modified
	Deleted
)

// String returns the kind in lower case.
func (k ChangeKind) String() string { return [...]string{"added", "modified", "deleted"}[k] }

// Change is an object that is not as the manifest says.
type Change struct {
	Name string // clean and relative; "." is the root
	Kind ChangeKind
}

// ChangeOptions says how a tree was unpacked; see TreeOptions.
type ChangeOptions struct {
	Format     Format
	UserXattr  bool
	UIDs, GIDs []IDMap
	Rootless   bool
}

// Changes compares the tree in dir with the manifest that was made when it was unpacked, by UnpackTree or another program,
// and returns the differences, names ascending. Below a directory that is gone, only the directory is in the list.
//
// An object whose inode and change time are those in a manifest of UnpackTree has not changed and is not looked at further.
// What else has the right size is read and hashed. Sockets are as good as absent.
func Changes(ctx context.Context, dir string, manifest io.Reader, _ ChangeOptions) ([]Change, error) {
	changes, err := changesOf(ctx, dir, manifest)
	if err != nil {
		return nil, fmt.Errorf("compare %s with its manifest: %w", dir, err)
	}
	return changes, nil
}

func changesOf(ctx context.Context, dir string, manifest io.Reader) ([]Change, error) {
	old, err := mtree.Read(manifest)
	if err != nil {
		return nil, err
	}
	root, err := inroot.Open(dir)
	if err != nil {
		return nil, err
	}
	c := comparer{old: old.Entries, trusted: old.Done.Add(-tick), replaced: make(map[string]bool)}
	if err := errors.Join(walk(ctx, root, c.object), root.Close()); err != nil {
		return nil, err
	}
	c.deletions()
	slices.SortFunc(c.changes, func(a, b Change) int { return cmp.Compare(a.Name, b.Name) })
	return c.changes, nil
}

// tick is more than the kernel's clock for change times takes to go on: two changes within it may have the same time. Some
// file systems keep whole seconds, as ext4 does in inodes of 128 bytes; a few keep every other.
const (
	tick       = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

type comparer struct {
	old     map[string]*mtree.Entry // those that were not met
	trusted time.Time
	changes []Change

	replaced map[string]bool // directories that became something else
}

// settled reports whether a change after the manifest was made would have shown in the change time.
func (c *comparer) settled(changed time.Time) bool {
	if changed.Nanosecond() == 0 {
		changed = changed.Add(coarseTick)
	}
	return changed.Before(c.trusted)
}

func (c *comparer) object(o *object) error {
	if o.st.Type() == sys.ModeSocket {
		return nil
	}
	was, known := c.old[o.name]
	if !known {
		c.changes = append(c.changes, Change{o.name, Added})
		return nil
	}
	delete(c.old, o.name)
	same, err := c.same(was, o)
	if err != nil {
		return err
	}
	if was.Type == mtree.Dir && !o.st.IsDir() {
		c.replaced[o.name] = true
	}
	if !same {
		c.changes = append(c.changes, Change{o.name, Modified})
	}
	return nil
}

// same compares what costs nothing first.
func (c *comparer) same(was *mtree.Entry, o *object) (bool, error) {
	if was.Inode == o.st.Ino && was.Changed.Equal(o.st.CTime) && c.settled(was.Changed) {
		return true, nil
	}
	is := manifestEntry(o.name, &o.st)
	has := was.Keys.Has
	switch {
	case is.Type != was.Type,
		has(mtree.KeyMode) && is.Mode != was.Mode,
		has(mtree.KeyUID) && is.UID != was.UID,
		has(mtree.KeyGID) && is.GID != was.GID,
		has(mtree.KeyTime) && is.Seconds != was.Seconds,
		is.Type != mtree.Dir && has(mtree.KeySize) && is.Size != was.Size:
		return false, nil
	case is.Type != mtree.Dir && has(mtree.KeyNlink) && is.Nlink != was.Nlink:
		return false, nil
	}
	is, err := o.describe()
	if err != nil {
		return false, err
	}
	return is.Link == was.Link && maps.Equal(is.Xattrs, was.Xattrs) &&
		(!has(mtree.KeySHA256) || is.SHA256 == was.SHA256), nil
}

// deletions adds what was not met, but not what went with its directory.
func (c *comparer) deletions() {
	for name := range c.old {
		if _, too := c.old[path.Dir(name)]; too || name == "." {
			continue
		}
		c.changes = append(c.changes, Change{name, Deleted})
	}
	c.changes = slices.DeleteFunc(c.changes, func(x Change) bool {
		return x.Kind == Deleted && c.replaced[path.Dir(x.Name)]
	})
}

// EmitChanges reads the changed objects of the tree in dir as the entries of a layer, in the order of their names. Owners are
// mapped back, and what UnpackTree keeps in extended attributes for rootless trees is put in its place again. In an
// OverlayUpper tree overlayfs's marks become whiteouts and opaque directories. Of extended attributes those that UnpackTree
// leaves out are missing. Names of one changed file are hard links.
//
// emit gets a file's content as an io.ReaderAt that is only valid during the call. An error of emit ends the walk and is
// returned. A change of something that is gone meanwhile is an error; names that begin with ".wh." are errors of class
// errdefs.ErrInvalidArgument, as no layer can express them.
func EmitChanges(ctx context.Context, dir string, changes []Change, opts ChangeOptions, emit Emit) error {
	root, err := inroot.Open(dir)
	if err != nil {
		return fmt.Errorf("read changes in %s: %w", dir, err)
	}
	x := newEmitter(root, opts, emit)
	err = x.all(ctx, slices.SortedFunc(slices.Values(changes), func(a, b Change) int { return strings.Compare(a.Name, b.Name) }))
	if err := errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("read changes in %s: %w", dir, err)
	}
	return nil
}
