package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// Diff reads the upper directory of an overlay mount as a layer. It walks that directory alone, so the cost is that of the
// change. The mount may be gone; if it is there and in use, what changes meanwhile may be in the layer or not.
//
// emit gets the entries in the order of a walk, names ascending. A file's content is an io.ReaderAt, too, and only valid
// during the call; everything else has none. An error of emit ends the walk and is returned.
//
// Every directory that the upper directory has is an entry, also one that overlayfs copied up for the sake of something
// below it; so the first entry is ".". Sockets are left out. Of the extended attributes those that Apply leaves out are
// missing here too. A directory with a redirect, or a file with its content elsewhere (redirect_dir=on and metacopy=on,
// which sys.MountOverlay turns off), is an error of class errdefs.ErrFailedPrecondition, and a name that starts with
// ".wh." one of class errdefs.ErrInvalidArgument, as no layer can express it.
func Diff(ctx context.Context, upper string, emit func(*layer.Entry, io.Reader) error) error {
	marks := overlayTrusted
	if os.Geteuid() != 0 {
		marks = overlayUser
	}
	return diff(ctx, upper, marks, emit)
}

// Diff reads what was written into a scratch layer, as the function Diff does.
func (s *Store) Diff(ctx context.Context, scratch *Scratch, emit func(*layer.Entry, io.Reader) error) error {
	return diff(ctx, scratch.Upper(), overlayMarks(UserXattrs(s.cfg.UserXattr)), emit)
}

// overlayMarks is what the names of overlayfs's attributes begin with.
func overlayMarks(user UserXattrs) string {
	if user {
		return overlayUser
	}
	return overlayTrusted
}

func diff(ctx context.Context, upper, marks string, emit func(*layer.Entry, io.Reader) error) error {
	root, err := inroot.Open(upper)
	if err != nil {
		return fmt.Errorf("diff scratch layer: %w", err)
	}
	defer func() { _ = root.Close() }() // read only
	d := differ{ctx: ctx, marks: marks, links: make(map[objectID]string)}
	d.emit = func(e *layer.Entry, content io.Reader) error {
		d.failed = emit(e, content)
		return d.failed
	}
	if err := d.root(root); err != nil {
		if _, ok := errors.AsType[*layer.EntryError](err); ok || ctx.Err() != nil {
			return fmt.Errorf("diff scratch layer: %w", err)
		}
		return fmt.Errorf("diff scratch layer: %w", &layer.EntryError{Op: "diff", Name: d.name, Err: err})
	}
	return nil
}

// differ walks an upper directory.
type differ struct {
	ctx   context.Context // of the one call that the differ is for
	marks string          // prefix of overlayfs's attributes
	emit  func(*layer.Entry, io.Reader) error
	links map[objectID]string // the first name of objects with several
	name  string              // of the current entry, for errors

	failed error // of emit
}

func (d *differ) root(root *inroot.Root) error {
	dir, err := root.OpenDir(".")
	if err != nil {
		return err
	}
	return errors.Join(d.dir(dir, "."), dir.Close())
}

// dir emits a directory and everything below it.
func (d *differ) dir(dir *inroot.Dir, name string) error {
	d.name = name
	attrs, err := dir.Self().Xattrs()
	if err != nil {
		return err
	}
	if err := checkMarks(d.marks, attrs); err != nil {
		return err
	}
	e := newEntry(name, layer.Dir, dir.Stat(), attrs)
	if err := d.emit(e, nil); err != nil {
		return err
	}
	if attrs[d.marks+"opaque"] == "y" {
		if err := d.emit(&layer.Entry{Name: name, Kind: layer.Opaque, ModTime: time.Unix(0, 0)}, nil); err != nil {
			return err
		}
	}
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, last := range names {
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		err := d.object(dir, last, path.Join(name, last))
		if err != nil && (d.failed != nil || nothingThere(err) != nil) { // else it has gone meanwhile
			return err
		}
	}
	return nil
}

// object emits last in dir, which may be anything.
func (d *differ) object(dir *inroot.Dir, last, name string) error {
	d.name = name
	if strings.HasPrefix(last, ".wh.") {
		return fmt.Errorf("a layer would take it for a whiteout: %w", errdefs.ErrInvalidArgument)
	}
	st, err := dir.Lstat(last)
	switch {
	case err != nil:
		return err
	case st.IsWhiteout():
		return d.whiteout(name)
	case st.IsDir():
		return inDir(dir, last, func(sub *inroot.Dir) error { return d.dir(sub, name) })
	case st.Type() == sys.ModeSocket:
		return nil // means nothing without the process that listens
	}
	if first, known := d.links[idOf(&st)]; known {
		e := newEntry(name, layer.Hardlink, &st, nil)
		e.Link = first
		return d.emit(e, nil)
	}
	if st.Nlink > 1 {
		d.links[idOf(&st)] = name
	}
	if st.IsRegular() {
		return d.file(dir, last, name)
	}
	return d.node(dir, last, name, &st)
}

func (d *differ) whiteout(name string) error {
	return d.emit(&layer.Entry{Name: name, Kind: layer.Whiteout, ModTime: time.Unix(0, 0)}, nil)
}

// node emits what is neither a file nor a directory.
func (d *differ) node(dir *inroot.Dir, last, name string, st *sys.Stat) error {
	attrs, err := dir.Xattrs(last)
	if err != nil {
		return err
	}
	e := newEntry(name, layer.Symlink, st, attrs)
	switch st.Type() {
	case sys.ModeSymlink:
		if e.Link, err = dir.Readlink(last); err != nil {
			return err
		}
	case sys.ModeChar:
		e.Kind, e.Major, e.Minor = layer.CharDevice, st.Major, st.Minor
	case sys.ModeBlock:
		e.Kind, e.Major, e.Minor = layer.BlockDevice, st.Major, st.Minor
	case sys.ModeFIFO:
		e.Kind = layer.Fifo
	default:
		return fmt.Errorf("object of unknown type %#o: %w", st.Type(), errdefs.ErrInvalidArgument)
	}
	return d.emit(e, nil)
}

// file emits a regular file, or the whiteout that it stands for: an empty file with an attribute, as containers make them
// that run overlayfs themselves (Linux 6.7).
func (d *differ) file(dir *inroot.Dir, last, name string) error {
	file, err := dir.Open(last)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read only
	fd := int(file.Fd())
	st, err := sys.StatFD(fd) // its size now
	if err != nil {
		return err
	}
	attrs, err := inroot.Borrow(fd).Xattrs()
	if err != nil {
		return err
	}
	if _, is := attrs[d.marks+"whiteout"]; is && st.Size == 0 {
		return d.whiteout(name)
	}
	if err := checkMarks(d.marks, attrs); err != nil {
		return err
	}
	e := newEntry(name, layer.File, &st, attrs)
	e.Size = st.Size
	if e.Data, err = extents(fd, &st); err != nil {
		return err
	}
	return d.emit(e, io.NewSectionReader(file, 0, st.Size))
}

// checkMarks refuses what is not all there.
func checkMarks(marks string, attrs map[string]string) error {
	for _, mark := range []string{"redirect", "metacopy"} {
		if _, is := attrs[marks+mark]; is {
			return fmt.Errorf("overlayfs keeps part of it in another layer (%s%s): %w",
				marks, mark, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

func newEntry(name string, kind layer.Kind, st *sys.Stat, attrs map[string]string) *layer.Entry {
	e := &layer.Entry{
		Name: name, Kind: kind, Mode: st.Mode & sys.ModePerm, UID: st.UID, GID: st.GID, ModTime: st.MTime,
	}
	for attr, value := range attrs {
		if isHostXattr(attr) {
			continue
		}
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string, len(attrs))
		}
		e.Xattrs[attr] = value
	}
	return e
}

// maxExtents bounds the map of a sparse file; a header can hold some forty thousand.
const maxExtents = 8192

// extents returns where a file has data, or nil if everywhere.
func extents(fd int, st *sys.Stat) ([]layer.Extent, error) {
	if st.Blocks*512 >= st.Size {
		return nil, nil
	}
	data := []layer.Extent{}
	for offset, gap := int64(0), int64(4096); ; {
		start, end, err := sys.NextData(fd, offset, st.Size)
		if err != nil {
			return nil, fmt.Errorf("find holes: %w", err)
		}
		if start >= st.Size {
			break
		}
		data = appendExtent(data, layer.Extent{Offset: start, Length: end - start}, 0)
		for ; len(data) > maxExtents; gap *= 2 {
			data = closeGaps(data, gap)
		}
		offset = end
	}
	if len(data) == 1 && data[0].Length == st.Size {
		return nil, nil
	}
	return data, nil
}

// closeGaps takes holes up to the given size for data.
func closeGaps(data []layer.Extent, gap int64) []layer.Extent {
	closed := data[:0]
	for _, x := range data {
		closed = appendExtent(closed, x, gap)
	}
	return closed
}

func appendExtent(data []layer.Extent, x layer.Extent, gap int64) []layer.Extent {
	if n := len(data); n > 0 && x.Offset-data[n-1].Offset-data[n-1].Length <= gap {
		data[n-1].Length = x.Offset + x.Length - data[n-1].Offset
		return data
	}
	return append(data, x)
}
