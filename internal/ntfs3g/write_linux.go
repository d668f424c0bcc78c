package ntfs3g

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// What ntfs-3g keeps metadata in. https://github.com/tuxera/ntfs-3g/wiki/Using-Extended-Attributes
const (
	attrACL      = "system.ntfs_acl"
	attrAttrib   = "system.ntfs_attrib"
	attrTimes    = "system.ntfs_times"
	attrReparse  = "system.ntfs_reparse_data"
	attrEA       = "system.ntfs_ea"
	attrObjectID = "system.ntfs_object_id"
	attrDOSName  = "system.ntfs_dos_name"
	attrStreams  = "ntfs.streams.list"
)

// settable are the attributes that a file is given, and inherited those that a directory is for what will be made in it. The
// others follow from what an object is.
const (
	settable = ntfs.AttrReadonly | ntfs.AttrHidden | ntfs.AttrSystem | ntfs.AttrArchive | ntfs.AttrNormal | ntfs.AttrTemporary |
		ntfs.AttrOffline | ntfs.AttrNotIndexed
	inherited = ntfs.AttrCompressed
)

// pending is what is set once a file's streams are there, or a directory's children.
type pending struct {
	name   string // in the volume
	entry  layer.Entry
	number uint64
}

// Add puts an entry into the volume. Parents come before what is in them and streams right after their file, as a layer's
// Reader has it. Names are those in the volume; their case is that of directories that are there. Content is that of files
// and streams.
func (v *Volume) Add(e *layer.Entry, content io.Reader) error {
	if err := v.add(e, content); err != nil {
		return fmt.Errorf("add %s to NTFS volume: %w", e.Name, err)
	}
	return nil
}

func fold(name string) string { return ntfs.Upcase(name) }

func (v *Volume) add(e *layer.Entry, content io.Reader) error {
	if e.NT == nil && e.Kind != layer.Hardlink && e.Kind != layer.Stream {
		return fmt.Errorf("no Windows metadata: %w", errdefs.ErrInvalidArgument)
	}
	if e.Kind == layer.Stream {
		return v.addStream(e, content)
	}
	if err := v.finishLast(); err != nil {
		return err
	}
	name, err := v.place(e.Name)
	if err != nil {
		return err
	}
	if _, ok := v.dirs[fold(name)]; ok && e.Kind != layer.Dir {
		return v.taken(name)
	}
	switch e.Kind {
	case layer.File:
		err = v.write(name, os.O_EXCL, e, content)
	case layer.Dir:
		err = v.mkdir(name)
	case layer.Symlink:
		err = v.addLink(name, e)
	case layer.Hardlink:
		return v.link(name, e.Link)
	default:
		err = fmt.Errorf("a %v has no place in a volume: %w", e.Kind, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(v.at(name), &st); err != nil {
		return err
	}
	p := pending{name: name, entry: *e, number: st.Ino}
	if name == "" {
		p.number = rootRecord
	}
	if e.Kind == layer.Dir {
		v.dirs[fold(name)] = name
		v.pending = append(v.pending, p)
		return v.describe(&p)
	}
	if name != "" {
		v.names[fold(name)] = st.Ino
	}
	v.last = &p
	return nil
}

// place gives a name the case of its parent. What is below a link, or nothing, has no place, so that no path of ours leads
// through a link.
func (v *Volume) place(name string) (string, error) {
	if name == "." {
		return "", nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if err := ntfs.CheckName(part); err != nil {
			return "", fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	dir, base := path.Split(name)
	parent, ok := v.dirs[fold(strings.TrimSuffix(dir, "/"))]
	if !ok {
		return "", fmt.Errorf("no directory for it: %w", errdefs.ErrNotFound)
	}
	name = path.Join(parent, base)
	if _, ok := v.names[fold(name)]; ok {
		return "", v.taken(name)
	}
	return name, nil
}

// taken is the error of a name that something has, maybe in another case.
func (v *Volume) taken(name string) error {
	dir, base := path.Split(name)
	entries, err := os.ReadDir(v.at(strings.TrimSuffix(dir, "/")))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != base && fold(e.Name()) == fold(base) {
			return fmt.Errorf("name is taken by %q: %w", e.Name(), errdefs.ErrAlreadyExists)
		}
	}
	return fmt.Errorf("name is taken: %w", errdefs.ErrAlreadyExists)
}

func (v *Volume) mkdir(name string) error {
	if _, ok := v.dirs[fold(name)]; ok && name == "" {
		return nil
	} else if ok {
		return v.taken(name)
	}
	return os.Mkdir(v.at(name), 0o700)
}

// special are the reparse points without data that ntfs-3g makes of devices and the like, and in no other way.
var special = map[ntfs.ReparseTag]uint32{
	ntfs.TagAFUnix: sys.ModeSocket, ntfs.TagLXFIFO: sys.ModeFIFO, ntfs.TagLXCharDevice: sys.ModeChar, ntfs.TagLXBlockDevice: sys.ModeBlock,
}

// specialOf returns the mode of what has the reparse buffer b on a volume by itself.
func specialOf(b []byte) (mode uint32, ok bool) {
	r, err := ntfs.ParseReparse(b)
	if err != nil || len(r.Data) > 0 || r.Reserved != 0 {
		return 0, false
	}
	mode, ok = special[r.Tag]
	return mode, ok
}

// addLink makes what a reparse point is put on: a directory or a file, as its attributes say.
func (v *Volume) addLink(name string, e *layer.Entry) error {
	if mode, ok := specialOf(e.NT.Reparse); ok {
		return v.in(name, func(dir int, base string) error {
			if err := sys.MknodAt(dir, base, mode|0o600, 0, 0); err != nil {
				return fmt.Errorf("make special file %#o: %w", mode, err)
			}
			return nil
		})
	}
	if e.NT.Attributes&ntfs.AttrDirectory != 0 {
		return os.Mkdir(v.at(name), 0o700)
	}
	return v.write(name, os.O_EXCL, &layer.Entry{}, nil)
}

func (v *Volume) link(name, target string) error {
	dir, base := path.Split(target)
	parent, ok := v.dirs[fold(strings.TrimSuffix(dir, "/"))]
	if !ok {
		return fmt.Errorf("no directory for its target %s: %w", target, errdefs.ErrNotFound)
	}
	number, ok := v.names[fold(path.Join(parent, base))]
	if !ok {
		return fmt.Errorf("no target %s: %w", target, errdefs.ErrNotFound)
	}
	err := v.in(path.Join(parent, base), func(from int, old string) error {
		return v.in(name, func(to int, base string) error { return sys.LinkAt(from, old, to, base) })
	})
	if err != nil {
		return err
	}
	v.names[fold(name)] = number
	return v.setAttributes(name, v.given[number]&^ntfs.AttrSystem) // a new name makes it one to archive
}

func (v *Volume) setAttributes(name string, a ntfs.Attributes) error {
	return v.set(name, attrAttrib, le.AppendUint32(nil, uint32(a)))
}

// write makes a file, or a stream of one.
func (v *Volume) write(name string, flag int, e *layer.Entry, content io.Reader) (err error) {
	f, err := os.OpenFile(v.at(name), os.O_WRONLY|os.O_CREATE|flag, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if e.Size == 0 || content == nil {
		return nil
	}
	if e.Data != nil || e.NT != nil && e.NT.Attributes&ntfs.AttrSparse != 0 {
		return writeSparse(f, e.Size, content)
	}
	n, err := io.Copy(f, io.LimitReader(content, e.Size))
	if err == nil && n < e.Size {
		err = fmt.Errorf("content ends after %d of %d bytes: %w", n, e.Size, io.ErrUnexpectedEOF)
	}
	return err
}

// holeUnit is what NTFS makes holes of: 16 clusters of 4 KiB.
const holeUnit = 64 << 10

// writeSparse leaves holes where content has zeros. That the file was longer before it had content makes it a sparse one
// even without any.
func writeSparse(f *os.File, size int64, content io.Reader) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	unit := make([]byte, holeUnit)
	for at := int64(0); at < size; at += holeUnit {
		b := unit[:min(holeUnit, size-at)]
		if n, err := io.ReadFull(content, b); err != nil {
			return fmt.Errorf("content ends after %d of %d bytes: %w", at+int64(n), size, err)
		}
		if bytes.Count(b, []byte{0}) == len(b) {
			continue
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) addStream(e *layer.Entry, content io.Reader) error {
	if err := ntfs.CheckStreamName(e.Stream); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	var owner string
	switch {
	case v.last != nil && fold(v.last.entry.Name) == fold(e.Name):
		owner = v.last.name
	default:
		dir, ok := v.dirs[fold(strings.TrimPrefix(e.Name, "."))]
		if !ok {
			return fmt.Errorf("stream %s has no file: %w", e.Stream, errdefs.ErrNotFound)
		}
		owner = dir
	}
	if owner == "" { // the root directory
		return fmt.Errorf("stream %s of the root directory: %w", e.Stream, errdefs.ErrNotImplemented)
	}
	if v.last != nil && v.last.name == owner {
		if _, made := specialOf(v.last.entry.NT.Reparse); made {
			return fmt.Errorf("stream %s of a device or socket: %w", e.Stream, errdefs.ErrNotImplemented)
		}
	}
	if err := v.write(owner+":"+e.Stream, os.O_EXCL, e, content); err != nil {
		return fmt.Errorf("stream %s: %w", e.Stream, err)
	}
	return nil
}

// finishLast gives the last file what it gets after its streams.
func (v *Volume) finishLast() error {
	p := v.last
	if v.last = nil; p == nil {
		return nil
	}
	return errors.Join(v.describe(p), v.setTimes(p), v.setReparse(p))
}

// finish gives directories their times, those below first.
func (v *Volume) finish() error {
	if v.cmd == nil {
		return nil
	}
	errs := []error{v.finishLast()}
	for _, s := range v.system {
		errs = append(errs, v.setAttributes(s.name, v.given[s.number]))
	}
	v.system = nil
	for len(v.pending) > 0 {
		p := &v.pending[len(v.pending)-1]
		if err := errors.Join(v.setTimes(p), v.setReparse(p)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.entry.Name, err))
		}
		v.pending = v.pending[:len(v.pending)-1]
	}
	return errors.Join(errs...)
}

func (v *Volume) set(name, attr string, value []byte) error {
	err := v.in(name, func(dir int, base string) error { return sys.SetXattrAt(dir, base, attr, string(value)) })
	if err != nil {
		return fmt.Errorf("set %s: %w", attr, err)
	}
	return nil
}

// in calls f with the directory that a name is in.
func (v *Volume) in(name string, f func(dir int, base string) error) error {
	dir, base := path.Split(name)
	if base == "" {
		base = "."
	}
	d, err := os.Open(v.at(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()), base)
}

// describe sets what does not change with content or children.
func (v *Volume) describe(p *pending) error {
	m := p.entry.NT
	var errs []error
	if m.ShortName != "" {
		errs = append(errs, v.set(p.name, attrDOSName, []byte(m.ShortName)))
	}
	if m.SecurityDescriptor != nil {
		b, err := owned(m.SecurityDescriptor)
		errs = append(errs, err, v.set(p.name, attrACL, b))
	}
	if len(m.EA) > 0 {
		b, err := chained(m.EA)
		errs = append(errs, err, v.set(p.name, attrEA, b))
	}
	if m.ObjectID != nil {
		errs = append(errs, v.set(p.name, attrObjectID, m.ObjectID))
	}
	return errors.Join(errs...)
}

// owned gives a descriptor the owner and the group that it lacks, or has by default only, which ntfs-3g does not take. On
// Windows they are those of who sets it: an administrator, and the system.
func owned(b []byte) ([]byte, error) {
	d, err := ntfs.ParseSecurityDescriptor(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if d.Owner.IsZero() {
		d.Owner = administrators
	}
	if d.Group.IsZero() {
		d.Group = localSystem
	}
	d.Control &^= ntfs.OwnerDefaulted | ntfs.GroupDefaulted
	return d.Append(nil)
}

var (
	administrators = ntfs.NewSID(5, 32, 544)
	localSystem    = ntfs.NewSID(5, 18)
)

// chained encodes extended attributes as ntfs-3g wants them: the last entry tells its length too.
func chained(eas []ntfs.EA) ([]byte, error) {
	var b []byte
	for _, ea := range eas {
		one, err := ntfs.AppendEA(nil, []ntfs.EA{ea})
		if err != nil {
			return nil, err
		}
		one = append(one, make([]byte, -len(one)&3)...)
		le.PutUint32(one, uint32(len(one)))
		b = append(b, one...)
	}
	return b, nil
}

// setReparse comes last: the object is another kind to the kernel then, which it may call an error.
func (v *Volume) setReparse(p *pending) error {
	b := p.entry.NT.Reparse
	if _, made := specialOf(b); made || b == nil {
		return nil
	}
	return v.set(p.name, attrReparse, b)
}

// setTimes sets three times, and remembers the fourth, and the attributes: a stream that is written sets one of them.
func (v *Volume) setTimes(p *pending) error {
	e := &p.entry
	or := func(t time.Time) ntfs.FileTime {
		if t.IsZero() {
			t = e.ModTime
		}
		return ntfs.FromTime(t)
	}
	var b []byte
	for _, t := range []time.Time{e.NT.CreationTime, e.ModTime, e.AccessTime} {
		b = le.AppendUint64(b, uint64(or(t)))
	}
	v.changes[p.number] = or(e.ChangeTime)
	given := settable
	if e.Kind == layer.Dir {
		given |= inherited
	}
	given &= e.NT.Attributes
	v.given[p.number] = given
	if e.Kind == layer.File && given&ntfs.AttrSystem != 0 {
		v.system = append(v.system, pending{name: p.name, number: p.number})
		given &^= ntfs.AttrSystem
	}
	return errors.Join(v.setAttributes(p.name, given), v.set(p.name, attrTimes, b))
}

// rootRecord is the number of the root directory, which the kernel knows by another.
const rootRecord = 5
