package ntfs3g

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// Walk calls f for everything on the volume: parents before what is in them, by the order of bytes, each followed by its
// streams. Further names of a file are hard links to the first. The content is that of files and streams.
func (v *Volume) Walk(f func(e *layer.Entry, content io.Reader) error) error {
	w := walker{v: v, f: f, first: map[uint64]string{}}
	if err := w.object(""); err != nil {
		return fmt.Errorf("read NTFS volume %s: %w", v.path, err)
	}
	return nil
}

type walker struct {
	v     *Volume
	f     func(e *layer.Entry, content io.Reader) error
	first map[uint64]string // files with several names
}

func (w *walker) object(name string) error {
	e, err := w.v.entry(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(w.v.at(name), &st); err != nil {
		return err
	}
	if first, ok := w.first[st.Ino]; ok && e.Kind != layer.Dir {
		return w.f(&layer.Entry{Name: name, Kind: layer.Hardlink, Link: first, NT: e.NT}, nil)
	}
	if e.Kind != layer.Dir && st.Nlink > 1 {
		w.first[st.Ino] = name
	}
	if e.Kind != layer.File || st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		if e.Kind == layer.File {
			e.Size = st.Size
		}
		err = w.content(name, e)
	} else {
		err = w.disguised(st.Ino, e)
	}
	if err != nil {
		return err
	}
	for _, s := range e.NT.Streams {
		stream := &layer.Entry{Name: e.Name, Kind: layer.Stream, Stream: s.Name, Size: s.Size, NT: &ntfs.Meta{}}
		read := func() error { return w.content(name+":"+s.Name, stream) }
		if e.NT.Reparse != nil { // nothing below the name can be opened, and of what is a FIFO to the kernel would wait for ever
			read = func() error { return w.f(stream, unreadable{}) }
		}
		if err := read(); err != nil {
			return err
		}
	}
	if e.Kind != layer.Dir {
		return nil
	}
	return w.children(name)
}

// unreadable is the content of a stream that ntfs-3g does not open.
type unreadable struct{}

func (unreadable) Read([]byte) (int, error) {
	return 0, fmt.Errorf("read stream of a reparse point: %w", errdefs.ErrNotImplemented)
}

func (w *walker) children(name string) error {
	d, err := os.Open(w.v.at(name))
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	slices.SortFunc(names, cmp.Compare[string])
	for _, base := range names {
		if err := w.object(path.Join(name, base)); err != nil {
			return err
		}
	}
	return nil
}

// disguised calls f with a file of the system's that ntfs-3g takes for a device, as Interix had them: what it has is in its
// record.
func (w *walker) disguised(number uint64, e *layer.Entry) error {
	f, err := os.Open(w.v.path)
	if err != nil {
		return err
	}
	b, err := resident(f, number)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	e.Size = int64(len(b))
	return w.f(e, bytes.NewReader(b))
}

// content calls f with an entry and its content.
func (w *walker) content(name string, e *layer.Entry) error {
	if e.Kind != layer.File && e.Kind != layer.Stream {
		return w.f(e, nil)
	}
	f, err := os.OpenFile(w.v.at(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.f(e, f)
}

// entry returns what an object is, by all that the volume has of it.
func (v *Volume) entry(name string) (*layer.Entry, error) {
	e := &layer.Entry{Name: cmp.Or(name, "."), NT: &ntfs.Meta{}}
	for attr, take := range map[string]func(e *layer.Entry, b []byte) error{
		attrAttrib: takeAttributes, attrTimes: takeTimes,
		attrACL:      func(e *layer.Entry, b []byte) error { e.NT.SecurityDescriptor = b; return nil },
		attrReparse:  func(e *layer.Entry, b []byte) error { e.NT.Reparse = b; return nil },
		attrObjectID: func(e *layer.Entry, b []byte) error { e.NT.ObjectID = b; return nil },
		attrDOSName:  func(e *layer.Entry, b []byte) error { e.NT.ShortName = string(b); return nil },
		attrEA:       takeEAs,
	} {
		value, err := v.get(name, attr)
		if err == nil && value != nil {
			err = take(e, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", attr, err)
		}
	}
	switch {
	case e.NT.Reparse != nil:
		e.Kind = layer.Symlink
	case e.NT.Attributes&ntfs.AttrDirectory != 0:
		e.Kind = layer.Dir
	}
	return e, v.takeStreams(name, e)
}

const (
	openPath     = 0x200000 // O_PATH, which package syscall lacks
	maxAttribute = 64 << 10 // Linux's limit
)

// get returns an attribute, nil if there is none. Its buffer takes whatever there may be: of a smaller one ntfs-3g says EIO
// where others say ERANGE.
func (v *Volume) get(name, attr string) ([]byte, error) {
	fd, err := syscall.Open(v.at(name), openPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	if v.buffer == nil {
		v.buffer = make([]byte, maxAttribute)
	}
	n, err := syscall.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), attr, v.buffer)
	switch {
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EOPNOTSUPP),
		attr == attrDOSName && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK)): // of the root, of several names
		return nil, nil
	case err != nil:
		return nil, err
	}
	return slices.Clone(v.buffer[:n]), nil
}

func takeAttributes(e *layer.Entry, b []byte) error {
	if len(b) < 4 {
		return malformed("attributes of %d bytes", len(b))
	}
	e.NT.Attributes = ntfs.Attributes(le.Uint32(b))
	return nil
}

func takeTimes(e *layer.Entry, b []byte) error {
	if len(b) < 32 {
		return malformed("times of %d bytes", len(b))
	}
	e.NT.CreationTime = ntfs.FileTime(le.Uint64(b)).Time()
	e.ModTime = ntfs.FileTime(le.Uint64(b[8:])).Time()
	e.AccessTime = ntfs.FileTime(le.Uint64(b[16:])).Time()
	e.ChangeTime = ntfs.FileTime(le.Uint64(b[24:])).Time()
	return nil
}

// takeEAs reads a list whose last entry may tell its length, as chained writes them.
func takeEAs(e *layer.Entry, b []byte) error {
	list := slices.Clone(b)
	for at := 0; at+4 <= len(list); {
		next := int(le.Uint32(list[at:]))
		if next == 0 {
			break
		}
		if at+next >= len(list) {
			clear(list[at : at+4])
			break
		}
		at += next
	}
	eas, err := ntfs.ParseEA(list)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	e.NT.EA = eas
	return nil
}

// takeStreams lists an object's alternate streams.
func (v *Volume) takeStreams(name string, e *layer.Entry) error {
	b, err := v.get(name, attrStreams)
	if err != nil || len(b) == 0 {
		return err
	}
	for s := range strings.SplitSeq(strings.TrimRight(string(b), "\x00"), "\x00") {
		var st syscall.Stat_t
		if err := syscall.Lstat(v.at(name)+":"+s, &st); err != nil {
			return fmt.Errorf("stream %s: %w", s, err)
		}
		e.NT.Streams = append(e.NT.Streams, ntfs.Stream{Name: s, Size: st.Size})
	}
	slices.SortFunc(e.NT.Streams, func(a, b ntfs.Stream) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}
