package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	"github.com/hostcompute/hcs/ntfs"
)

// ReadTransport reads a transport folder, whoever made it, and gives emit the layer's entries in the order that Windows'
// exporter has: names ascending, a directory before what is in it, and before that what is removed from it. Content is an
// io.Reader that is valid during the call. An error of emit ends the walk and is returned.
//
// Nothing in the folder is followed: a symbolic link is an error, as is everything else that no such folder has, two names
// that differ in case alone, and a file that is cut off. These are of class errdefs.ErrInvalidArgument and name the file.
func ReadTransport(ctx context.Context, dir string, emit Emit) error {
	if err := readTransport(ctx, dir, emit); err != nil {
		return fmt.Errorf("read transport folder %s: %w", dir, err)
	}
	return nil
}

func readTransport(ctx context.Context, dir string, emit Emit) (err error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	r := &transportReader{
		ctx: ctx, root: root, to: emit, order: layer.NewNTOrder(layer.ReadOptions{}), links: make(map[objectID]string),
	}
	return r.all()
}

// transportReader reads one folder.
type transportReader struct {
	ctx   context.Context // of the one call that the reader is for
	root  *inroot.Root
	to    Emit
	order *layer.NTOrder
	gone  *tombstones
	boot  map[string]string   // files of the boot configuration whose content is in a copy, by name in upper case
	links map[objectID]string // the first name of files with several
}

func (r *transportReader) all() error {
	if err := r.readTombstones(); err != nil {
		return err
	}
	top, err := r.root.OpenDir(".")
	if err != nil {
		return err
	}
	err = r.top(top)
	return errors.Join(err, top.Close())
}

// readTombstones reads the list of what the layer removes. ImportLayer's folders need not have one.
func (r *transportReader) readTombstones() error {
	st, err := r.root.Lstat(tombstonesFile)
	if errors.Is(err, fs.ErrNotExist) {
		r.gone = new(tombstones)
		return nil
	}
	if err == nil && !st.IsRegular() {
		err = notInTransport(&st)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", tombstonesFile, err)
	}
	b, err := r.root.ReadFile(tombstonesFile, maxTombstones)
	if err != nil {
		return fmt.Errorf("%s: %w", tombstonesFile, err)
	}
	r.gone, err = parseTombstones(b)
	return err
}

// notInTransport says what is wrong with an object that is neither file nor directory.
func notInTransport(st *sys.Stat) error {
	what := "neither file nor directory"
	if st.IsSymlink() {
		what = "a symbolic link"
	}
	return fmt.Errorf("it is %s, which no transport folder has: %w", what, errdefs.ErrInvalidArgument)
}

// top reads the folder itself.
func (r *transportReader) top(dir *inroot.Dir) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	if err := r.judgeTop(names); err != nil {
		return err
	}
	for _, part := range []layer.Part{layer.FilesPart, layer.HivesPart, layer.UtilityVMPart} {
		name := string(part)
		if !slices.Contains(names, name) {
			continue
		}
		if err := r.object(dir, name, name); err != nil {
			return transportError("read", name, err)
		}
		if part == layer.FilesPart {
			if err := r.lateTombstones(); err != nil {
				return err
			}
		}
	}
	if left := slices.Sorted(maps.Values(r.boot)); len(left) > 0 {
		return fmt.Errorf("%s is the copy of a file that is not there: %w", left[0], errdefs.ErrInvalidArgument)
	}
	return nil
}

// judgeTop refuses names that no transport folder has at its top, and finds the copies of the boot configuration.
func (r *transportReader) judgeTop(names []string) error {
	r.boot = make(map[string]string)
	for _, name := range names {
		switch name {
		case string(layer.FilesPart), string(layer.HivesPart), string(layer.UtilityVMPart), tombstonesFile:
			continue
		case string(layer.FilesPart) + sidecarSuffix, string(layer.HivesPart) + sidecarSuffix:
			if slices.Contains(names, strings.TrimSuffix(name, sidecarSuffix)) {
				continue
			}
		}
		kept := false
		for suffix, copied := range bootCopies {
			if name == copied {
				r.boot[ntfs.Upcase(utilityFiles+"/"+bootStore+suffix)] = name
				kept = true
			}
		}
		if !kept {
			return &layer.EntryError{Op: "read", Name: name, Err: fmt.Errorf("no transport folder has it at its top: %w", errdefs.ErrInvalidArgument)}
		}
	}
	if !slices.Contains(names, string(layer.FilesPart)) {
		return fmt.Errorf("it has no directory Files: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// lateTombstones gives what is removed from directories that the folder does not have.
func (r *transportReader) lateTombstones() error {
	for _, dir := range r.gone.dirs {
		if err := r.removals(dir); err != nil {
			return err
		}
	}
	return nil
}

func (r *transportReader) removals(dir string) error {
	for _, e := range r.gone.take(dir) {
		if err := r.emit(e, nil); err != nil {
			return err
		}
	}
	return nil
}

// emit judges an entry and passes it on.
func (r *transportReader) emit(e *layer.Entry, content io.Reader) error {
	if _, err := r.order.Place(e); err != nil { // what could be made up is there: it was walked through
		return err
	}
	return r.to(e, content)
}

func (r *transportReader) object(dir *inroot.Dir, last, name string) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	st, err := dir.Lstat(last)
	switch {
	case err != nil:
		return err
	case st.IsDir() && staged(name):
		return r.stagedDir(dir, last, name)
	case st.IsDir():
		return r.plainDir(dir, last, name)
	case !st.IsRegular():
		return notInTransport(&st)
	}
	if first, known := r.links[idOf(&st)]; known && staged(first) == staged(name) {
		return r.hardlink(dir, last, name, first)
	}
	if st.Nlink > 1 {
		r.links[idOf(&st)] = name
	}
	if staged(name) {
		return r.stagedFile(dir, last, name)
	}
	return r.plain(dir, last, name)
}

// stagedFile reads attributes and backup stream of what is a file in the folder.
func (r *transportReader) stagedFile(dir *inroot.Dir, last, name string) error {
	e := &layer.Entry{Name: name, Kind: layer.File, NT: new(ntfs.Meta)}
	return r.staged(dir, last, e)
}

// stagedDir reads a directory, its sidecar and what is in it.
func (r *transportReader) stagedDir(dir *inroot.Dir, last, name string) error {
	sub, err := dir.OpenDir(last)
	if err != nil {
		return err
	}
	e := &layer.Entry{Name: name, Kind: layer.Dir, NT: new(ntfs.Meta)}
	err = r.sidecar(dir, sub, last, e)
	if err == nil {
		err = r.removals(name)
	}
	if err == nil {
		err = r.contents(sub, e)
	}
	return errors.Join(err, sub.Close())
}

// sidecar reads a directory's metadata. Files and Hives may be without, as Windows' reader looks at the times of a hive.
func (r *transportReader) sidecar(dir, sub *inroot.Dir, last string, e *layer.Entry) error {
	st, err := dir.Lstat(last + sidecarSuffix)
	switch {
	case err == nil && !st.IsRegular():
		return notInTransport(&st)
	case err == nil:
		return r.staged(dir, last+sidecarSuffix, e)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if strings.Contains(e.Name, "/") {
		return fmt.Errorf("the directory has no %s%s: %w", last, sidecarSuffix, errdefs.ErrInvalidArgument)
	}
	st = *sub.Stat()
	if hive, err := r.root.Lstat("Hives/System_Delta"); err == nil {
		st = hive
	}
	e.NT.Attributes = ntfs.AttrDirectory
	e.ModTime, e.AccessTime, e.ChangeTime, e.NT.CreationTime = st.MTime, st.MTime, st.MTime, st.MTime
	return r.emit(e, nil)
}

// smallStaged is up to which size a file is read at once.
const smallStaged = 64 << 10

// staged reads a file of attributes and backup stream and emits what it is of.
func (r *transportReader) staged(dir *inroot.Dir, file string, e *layer.Entry) error {
	f, err := dir.Open(file)
	if err != nil {
		return err
	}
	return errors.Join(r.stagedFrom(f, e), f.Close())
}

func (r *transportReader) stagedFrom(f *os.File, e *layer.Entry) error {
	st, err := r.describe(f, e)
	if err != nil {
		return err
	}
	created, short := e.NT.CreationTime, e.NT.ShortName
	*e.NT = ntfs.Meta{CreationTime: created, ShortName: short}
	stream, err := takeAttributes(f, st.Size, e.NT)
	if err != nil {
		return err
	}
	if isDir := e.NT.Attributes&ntfs.AttrDirectory != 0; isDir != (e.Kind == layer.Dir) {
		return fmt.Errorf("its attributes %v are not those of a %v: %w", e.NT.Attributes, e.Kind, errdefs.ErrInvalidArgument)
	}
	return layer.ReadBackup(e, stream, r.emit)
}

// takeAttributes reads what comes before the backup stream, and returns that.
func takeAttributes(f *os.File, size int64, m *ntfs.Meta) (*io.SectionReader, error) {
	var from io.ReaderAt = f
	if size <= smallStaged {
		b := make([]byte, size)
		if _, err := io.ReadFull(f, b); err != nil {
			return nil, err
		}
		from = strings.NewReader(string(b))
	}
	var head [4]byte
	if size < int64(len(head)) {
		return nil, fmt.Errorf("the file has %d bytes, less than the attributes: %w", size, errdefs.ErrInvalidArgument)
	}
	if _, err := from.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	m.Attributes = ntfs.Attributes(binary.LittleEndian.Uint32(head[:]))
	return io.NewSectionReader(from, int64(len(head)), size-int64(len(head))), nil
}

// describe sets an entry's times and what is in the file's attribute.
func (r *transportReader) describe(f *os.File, e *layer.Entry) (sys.Stat, error) {
	fd := int(f.Fd())
	sys.KeepAccessTime(fd) // or reading would change what the next one reads
	st, err := sys.StatFD(fd)
	if err != nil {
		return st, err
	}
	attrs, err := inroot.Borrow(fd).Xattrs()
	if err != nil {
		return st, err
	}
	return st, describeBy(e, &st, attrs)
}

// describeBy sets an entry's metadata as it is kept beside the content.
func describeBy(e *layer.Entry, st *sys.Stat, attrs map[string]string) error {
	e.ModTime, e.AccessTime = st.MTime, st.ATime
	attr, ok := attrs[ntXattr]
	if !ok {
		attr, ok = attrs[ntUserXattr]
	}
	if ok {
		return parseNTMeta([]byte(attr), e, noSpilled)
	}
	e.ChangeTime, e.NT.CreationTime = e.ModTime, e.ModTime
	if !staged(e.Name) {
		e.AccessTime = e.ModTime // as Windows' reader has it
	}
	return nil
}

// noSpilled says that a folder has no metadata beside attributes.
func noSpilled([sha256.Size]byte) (io.ReadCloser, error) {
	return nil, fmt.Errorf("the attribute with Windows' metadata refers to another place: %w", errdefs.ErrDataLoss)
}

// contents reads what is in a directory that was emitted as e.
func (r *transportReader) contents(dir *inroot.Dir, e *layer.Entry) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	if e.Kind == layer.Symlink && len(names) > 0 {
		return fmt.Errorf("the directory leads elsewhere and has %q in it: %w", names[0], errdefs.ErrInvalidArgument)
	}
	folded := make(map[string]string, len(names))
	for _, last := range names {
		key := ntfs.Upcase(last)
		if other, ok := folded[key]; ok {
			return fmt.Errorf("%q and %q differ in case alone: %w", other, last, errdefs.ErrInvalidArgument)
		}
		folded[key] = last
	}
	for _, last := range names {
		name := e.Name + "/" + last
		if isSidecar(last) && staged(name) {
			err = checkSidecar(dir, last)
		} else {
			err = r.object(dir, last, name)
		}
		if err != nil {
			return transportError("read", name, err)
		}
	}
	return nil
}

// checkSidecar finds out whether a sidecar is that of a directory, with which it is read.
func checkSidecar(dir *inroot.Dir, last string) error {
	st, err := dir.Lstat(strings.TrimSuffix(last, sidecarSuffix))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() || !strings.HasSuffix(last, sidecarSuffix) {
		return fmt.Errorf("there is no directory that it tells of: %w", errdefs.ErrInvalidArgument)
	}
	return err
}

// plainDir reads a directory that has no sidecar, and what is in it.
func (r *transportReader) plainDir(dir *inroot.Dir, last, name string) error {
	sub, err := dir.OpenDir(last)
	if err != nil {
		return err
	}
	e := &layer.Entry{Name: name, Kind: layer.Dir, NT: &ntfs.Meta{Attributes: ntfs.AttrDirectory}}
	attrs, err := sub.Self().Xattrs()
	if err == nil {
		err = describeBy(e, sub.Stat(), attrs)
	}
	if err == nil {
		err = settleLink(e)
	}
	if err == nil {
		err = r.emit(e, nil)
	}
	if err == nil {
		err = r.contents(sub, e)
	}
	return errors.Join(err, sub.Close())
}

// plain reads a file that is there as it is.
func (r *transportReader) plain(dir *inroot.Dir, last, name string) error {
	f, err := dir.Open(last)
	if err != nil {
		return err
	}
	return errors.Join(r.plainFrom(f, name), f.Close())
}

func (r *transportReader) plainFrom(f *os.File, name string) (err error) {
	e := &layer.Entry{Name: name, Kind: layer.File, NT: &ntfs.Meta{Attributes: ntfs.AttrArchive}}
	st, err := r.describe(f, e)
	if err != nil {
		return err
	}
	e.Size = st.Size
	if key := ntfs.Upcase(name); r.boot[key] != "" {
		kept, size, err := openSized(r.root, r.boot[key])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, kept.Close()) }()
		f, e.Size = kept, size
		delete(r.boot, key)
	}
	if err := settleLink(e); err != nil {
		return err
	}
	return r.emit(e, io.NewSectionReader(f, 0, e.Size))
}

// settleLink makes a link of what an attribute says is one.
func settleLink(e *layer.Entry) error {
	if e.NT.Reparse == nil {
		return nil
	}
	link, err := ntfs.ParseLink(e.NT.Reparse)
	switch {
	case errors.Is(err, ntfs.ErrUnsupported):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	case e.Size > 0:
		return fmt.Errorf("a link has %d bytes of content: %w", e.Size, errdefs.ErrInvalidArgument)
	}
	e.Kind, e.Link = layer.Symlink, link.Target()
	return nil
}

// hardlink emits another name of a file, with what Windows' exporter tells of it.
func (r *transportReader) hardlink(dir *inroot.Dir, last, name, first string) error {
	f, err := dir.Open(last)
	if err != nil {
		return err
	}
	e := &layer.Entry{Name: name, Kind: layer.Hardlink, Link: first, NT: &ntfs.Meta{Attributes: ntfs.AttrArchive}}
	st, err := r.describe(f, e)
	if err == nil && staged(name) {
		_, err = takeAttributes(f, st.Size, e.NT)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	e.NT = &ntfs.Meta{Attributes: e.NT.Attributes, CreationTime: e.NT.CreationTime}
	return r.emit(e, nil)
}
