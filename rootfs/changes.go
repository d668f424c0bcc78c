package rootfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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
	root, err := inroot.Open(dir)
	if err != nil {
		return nil, err
	}
	changes, err := compareRoot(ctx, root, manifest)
	return changes, errors.Join(err, root.Close())
}

// compareRoot reads the manifest beside the tree, entry by entry, as its order is that of a walk. If it turns out to be in
// another one, as some program may write it, it is read into memory and sorted.
func compareRoot(ctx context.Context, root *inroot.Root, manifest io.Reader) ([]Change, error) {
	if seeker, ok := manifest.(io.ReadSeeker); ok {
		done, err := mtree.ReadDone(seeker)
		if err != nil {
			return nil, err
		}
		changes, err := newComparer(mtree.NewReader(manifest).Next, done).all(ctx, root)
		if !errors.Is(err, errUnordered) {
			return changes, err
		}
		if _, err := seeker.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read manifest again: %w", err)
		}
	}
	old, err := mtree.Read(manifest)
	if err != nil {
		return nil, err
	}
	return newComparer(inWalkOrder(old), old.Done).all(ctx, root)
}

// errUnordered means that a manifest is not in the order of a walk.
var errUnordered = errors.New("the manifest is not in the order of a walk")

func inWalkOrder(m *mtree.Manifest) func() (*mtree.Entry, error) {
	entries := slices.SortedFunc(maps.Values(m.Entries), func(a, b *mtree.Entry) int { return a.Place().Compare(b.Place()) })
	return func() (*mtree.Entry, error) {
		if len(entries) == 0 {
			return nil, io.EOF
		}
		e := entries[0]
		entries = entries[1:]
		return e, nil
	}
}

// tick is more than the kernel's clock for change times takes to go on: two changes within it may have the same time. Some
// file systems keep whole seconds, as ext4 does in inodes of 128 bytes; a few keep every other.
const (
	tick       = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

// comparer goes through a tree and its manifest side by side.
type comparer struct {
	read    func() (*mtree.Entry, error)
	trusted time.Time
	changes []Change

	next *mtree.Entry // that the walk has not come to; nil: there is none
	gone string       // the last directory that the tree does not have
	err  error        // of reading the manifest
}

func newComparer(read func() (*mtree.Entry, error), done time.Time) *comparer {
	return &comparer{read: read, trusted: done.Add(-tick)}
}

func (c *comparer) all(ctx context.Context, root *inroot.Root) ([]Change, error) {
	if err := c.advance(); err != nil {
		return nil, err
	}
	err := walk(ctx, root, c.object)
	for c.next != nil && err == nil {
		err = c.missing()
	}
	if c.err != nil {
		return nil, c.err // which the object at hand has no part in
	}
	return joinChanges(c.changes), err
}

// advance reads the next entry.
func (c *comparer) advance() error {
	e, err := c.read()
	switch {
	case err == io.EOF:
		e = nil
	case err != nil:
		c.err = err
	case c.next != nil && c.next.Place().Compare(e.Place()) >= 0:
		c.err = errUnordered
	}
	c.next = e
	return c.err
}

// missing notes that the tree does not have the next entry, unless its directory is missing, too.
func (c *comparer) missing() error {
	name := c.next.Name
	if name != "." && (c.gone == "" || !strings.HasPrefix(name, c.gone+"/")) {
		c.changes = append(c.changes, Change{name, Deleted})
		if c.next.Type == mtree.Dir {
			c.gone = name
		}
	}
	return c.advance()
}

// joinChanges sorts the changes. What is gone and came again, as something that stands elsewhere in a manifest, was modified.
func joinChanges(changes []Change) []Change {
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind)) })
	joined := changes[:0]
	for _, x := range changes {
		if last := len(joined) - 1; last >= 0 && joined[last].Name == x.Name {
			joined[last].Kind = Modified
			continue
		}
		joined = append(joined, x)
	}
	return joined
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
	here := mtree.Place{Name: o.name, Dir: o.st.IsDir()}
	for c.next != nil && c.next.Place().Compare(here) < 0 {
		if err := c.missing(); err != nil {
			return err
		}
	}
	if c.next == nil || c.next.Place() != here {
		c.changes = append(c.changes, Change{o.name, Added})
		return nil
	}
	same, err := c.same(c.next, o)
	if err != nil {
		return err
	}
	if !same {
		c.changes = append(c.changes, Change{o.name, Modified})
	}
	return c.advance()
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
	case is.Type != mtree.Dir && has(mtree.KeyNlink) && is.Nlink != was.Nlink,
		has(mtree.KeyDevice) && (is.Major != was.Major || is.Minor != was.Minor):
		return false, nil
	}
	is, err := o.describe()
	if err != nil {
		return false, err
	}
	return is.Link == was.Link && maps.Equal(is.Xattrs, was.Xattrs) &&
		(!has(mtree.KeySHA256) || is.SHA256 == was.SHA256), nil
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
