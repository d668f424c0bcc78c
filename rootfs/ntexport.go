package rootfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// ExportNT reads the Windows layer in dir as it was imported: the same entries in the same order. emit gets the content of
// files, which is an io.ReaderAt and valid during the call, and of streams. An error of emit ends the walk and is returned.
func ExportNT(ctx context.Context, dir string, emit Emit) error {
	_, err := exportNT(ctx, dir, emit)
	return err
}

// WriteNT writes the tar stream that the Windows layer in dir was imported from, byte for byte: its diffID is unchanged.
func WriteNT(ctx context.Context, dir string, w io.Writer) error {
	out := layer.NewWriter(w)
	trailer, err := exportNT(ctx, dir, out.Write)
	if err != nil {
		return err
	}
	return out.CloseWith(trailer)
}

func exportNT(ctx context.Context, dir string, emit Emit) (trailer layer.Trailer, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export layer %s: %w", dir, err)
		}
	}()
	root, err := inroot.Open(dir)
	if err != nil {
		return trailer, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	record, err := readNTRecord(root)
	if err != nil {
		return trailer, err
	}
	replaced, err := replacedIn(root)
	if err != nil {
		return trailer, err
	}
	file, err := root.Open(ntEntries)
	if err != nil {
		return trailer, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	x := &ntExporter{
		root: root, names: newNTNames([]*inroot.Root{root}), emit: emit, whole: record.Whole, replaced: replaced,
		r: layer.ReadOptions{Limits: noLimits(), Encoding: layer.NT, Hollow: true}.NewReader(&unpackedHeaders{r: s2.NewReader(file), want: record.Headers}),
	}
	return x.all(ctx)
}

// unpackedHeaders gives what is damaged its class.
type unpackedHeaders struct {
	r    io.Reader
	n    int64
	want int64 // bytes that there should be
}

func (u *unpackedHeaders) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.n += int64(n)
	if err == io.EOF && u.n != u.want {
		err = fmt.Errorf("%s has %d bytes, not %d: %w", ntEntries, u.n, u.want, errdefs.ErrDataLoss)
	} else if errors.Is(err, s2.ErrCorrupt) || errors.Is(err, s2.ErrCRC) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s is damaged: %w: %w", ntEntries, err, errdefs.ErrDataLoss)
	}
	return n, err
}

// noLimits is for a stream that was judged when it came.
func noLimits() layer.Limits {
	return layer.Limits{
		Bytes: -1, EntryBytes: -1, Entries: -1, HeaderBytes: -1, Depth: -1, NameBytes: -1, Xattrs: -1, XattrBytes: 1 << 30, Ratio: -1,
	}
}

type ntExporter struct {
	root  *inroot.Root
	names *ntNames
	emit  Emit
	r     *layer.Reader
	whole bool

	replaced ntReplaced
}

func (x *ntExporter) all(ctx context.Context) (layer.Trailer, error) {
	for e, err := range x.r.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = x.entry(e)
		}
		if err != nil {
			return layer.Trailer{}, err
		}
	}
	return x.r.Trailer()
}

func (x *ntExporter) entry(e *layer.Entry) error {
	if x.whole {
		if err := wholeAgain(x.root, e); err != nil {
			return &layer.EntryError{Op: "export", Name: e.Name, Err: err}
		}
	}
	switch e.Kind {
	case layer.Stream:
		return x.emit(e, x.r)
	case layer.File:
	default:
		return x.emit(e, nil)
	}
	name, err := x.names.spell(e.Name)
	if err != nil {
		return err
	}
	file, err := openContent(x.root, x.replaced.where(name))
	if err != nil {
		return &layer.EntryError{Op: "export", Name: e.Name, Err: err}
	}
	if st, err := file.Stat(); err != nil || st.Size() != e.Size {
		err = errors.Join(err, file.Close(), fmt.Errorf("its size is no longer %d: %w", e.Size, errdefs.ErrDataLoss))
		return &layer.EntryError{Op: "export", Name: e.Name, Err: err}
	}
	return errors.Join(x.emit(e, file), file.Close())
}

// openContent opens a file and no link to one.
func openContent(root *inroot.Root, name string) (*os.File, error) {
	parent, last, err := root.OpenParent(name)
	if err != nil {
		return nil, err
	}
	file, err := parent.Open(last)
	return file, errors.Join(err, parent.Close())
}

// OpenNT returns the entry of a file, directory or link, by its name in Windows layers, from the first of the layer
// directories that has it, and the file's content, which is nil for everything else. The caller closes it. Where a layer
// removes the name, or none has it, the error is of class errdefs.ErrNotFound. A symbolic link in a layer whose metadata is in
// attributes user.* is what Linux sees.
func OpenNT(dirs []string, name string) (e *layer.Entry, content *os.File, err error) {
	roots, err := openRoots(dirs)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, closeRoots(roots)) }()
	spelled, err := newNTNames(roots).spell(name)
	if err != nil {
		return nil, nil, err
	}
	for _, root := range roots {
		e, gone, err := ntInfo(root, spelled)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("open %s: %w", name, err)
		case gone:
			return nil, nil, fmt.Errorf("open %s: a layer removes it: %w", name, errdefs.ErrNotFound)
		}
		if e.Kind == layer.File {
			content, err = openContent(root, spelled)
		}
		return e, content, err
	}
	return nil, nil, fmt.Errorf("open %s: %w: %w", name, fs.ErrNotExist, errdefs.ErrNotFound)
}

// ReadNT gives emit what OpenNT opens, and then its alternate streams. Content is valid during the call.
func ReadNT(dirs []string, name string, emit Emit) (err error) {
	e, content, err := OpenNT(dirs, name)
	if err != nil {
		return err
	}
	if content == nil {
		err = emit(e, nil)
	} else {
		err = errors.Join(emit(e, content), content.Close())
	}
	if err != nil || len(e.NT.Streams) == 0 {
		return err
	}
	return readNTStreams(dirs, name, emit)
}

// readNTStreams gives emit the alternate streams of what OpenNT opens.
func readNTStreams(dirs []string, name string, emit Emit) (err error) {
	roots, err := openRoots(dirs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRoots(roots)) }()
	spelled, err := newNTNames(roots).spell(name)
	if err != nil {
		return err
	}
	for _, root := range roots {
		e, _, err := ntInfo(root, spelled)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || len(e.NT.Streams) == 0 {
			return err
		}
		return emitStreams(root, e, emit)
	}
	return nil
}

func emitStreams(root *inroot.Root, e *layer.Entry, emit Emit) error {
	record, err := readNTRecord(root)
	if err != nil {
		return err
	}
	dir, last, err := root.OpenParent(e.Name)
	if err != nil {
		return err
	}
	attrs, err := dir.Xattrs(last)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	return alternateStreams([]byte(attrs[ntAttrName(record.UserXattr)]), spillsOf(root), func(s ntfs.Stream, content io.Reader) error {
		return emit(&layer.Entry{
			Name: e.Name, Kind: layer.Stream, Stream: s.Name, Size: s.Size,
			ModTime: e.ModTime, AccessTime: e.AccessTime, ChangeTime: e.ChangeTime, NT: new(ntfs.Meta),
		}, content)
	})
}

// ntInfo returns the entry that an object of a layer directory is, or says that it is a whiteout.
func ntInfo(root *inroot.Root, name string) (e *layer.Entry, gone bool, err error) {
	record, err := readNTRecord(root)
	if err != nil {
		return nil, false, err
	}
	return ntObject(root, ntAttrName(record.UserXattr), name)
}

// ntObject is ntInfo where the metadata's attribute is known.
func ntObject(root *inroot.Root, attr, name string) (e *layer.Entry, gone bool, err error) {
	dir, last, err := root.OpenParent(name)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	st, err := dir.Lstat(last)
	if err != nil || st.IsWhiteout() {
		return nil, err == nil, err
	}
	attrs, err := dir.Xattrs(last)
	if err != nil {
		return nil, false, err
	}
	e = ntEntry(name, &st)
	value, has := attrs[attr]
	if !has && st.IsSymlink() && attr == ntUserXattr {
		return e, false, plainLink(e, dir, last)
	}
	return e, false, parseNTMeta([]byte(value), e, spillsOf(root))
}

// plainLink completes the entry of a symbolic link that could not be given any metadata, with what Linux sees.
func plainLink(e *layer.Entry, dir *inroot.Dir, last string) error {
	target, err := dir.Readlink(last)
	if err != nil {
		return err
	}
	e.Link, e.ChangeTime = strings.ReplaceAll(target, "/", `\`), e.ModTime
	e.NT = &ntfs.Meta{Attributes: ntfs.AttrReparse, CreationTime: e.ModTime}
	e.NT.Reparse, err = ntfs.NewLink(ntfs.TagSymlink, e.Link).Append(nil)
	return err
}

// ntEntry returns the entry of an object but for Windows' metadata.
func ntEntry(name string, st *sys.Stat) *layer.Entry {
	e := &layer.Entry{Name: name, ModTime: st.MTime, AccessTime: st.ATime}
	switch st.Type() {
	case sys.ModeDir:
		e.Kind = layer.Dir
	case sys.ModeSymlink:
		e.Kind = layer.Symlink
	default:
		e.Kind, e.Size = layer.File, st.Size
	}
	return e
}

// maxChecked is how much metadata is held against its digest before it is read: more of it is content of streams, which
// nobody wants to read twice.
const maxChecked = 1 << 20

// checkSpilled returns what is in a file that is called by its digest, and closes the file unless it is large.
func checkSpilled(file *os.File, name string, sum [sha256.Size]byte) (io.ReadCloser, error) {
	st, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if st.Size() > maxChecked {
		return file, nil
	}
	b, err := io.ReadAll(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != sum {
		return nil, fmt.Errorf("%s is damaged: %w", name, errdefs.ErrDataLoss)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// spillsOf opens what the layers in roots have beside their trees.
func spillsOf(roots ...*inroot.Root) spills {
	return func(sum [sha256.Size]byte) (io.ReadCloser, error) {
		name := ntSpill + "/" + hex.EncodeToString(sum[:])
		for _, root := range roots {
			file, err := root.Open(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			return checkSpilled(file, name, sum)
		}
		return nil, fmt.Errorf("find Windows metadata: no layer has %s: %w", name, errdefs.ErrDataLoss)
	}
}
