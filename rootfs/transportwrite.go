package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// WriteTransport writes the Windows layer that source gives to the directory dir, which may be there and empty, as the transport
// folder that Windows' ExportLayer makes of it. The folder appears when it is complete and safe from a power cut; otherwise all
// is as it was, and what a killed process left is removed by the next WriteTransport to dir. If there is something at dir, the error is of class
// errdefs.ErrAlreadyExists.
//
// What a transport folder has no form for is an error of class errdefs.ErrNotImplemented that names it: an opaque directory,
// something that is removed from UtilityVM, an alternate stream of a file that is not below Files. So is a name longer than
// Linux has them, of class errdefs.ErrOutOfRange; and one that comes twice, of class errdefs.ErrAlreadyExists.
func WriteTransport(ctx context.Context, dir string, source EntrySource, opts TransportOptions) error {
	if err := writeTransport(ctx, dir, source, opts); err != nil {
		return fmt.Errorf("write transport folder %s: %w", dir, err)
	}
	return nil
}

func writeTransport(ctx context.Context, dir string, source EntrySource, opts TransportOptions) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	w, err := openWorkplace(ctx, workplace{target: dir, overEmpty: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	_, err = w.fill(TreeOptions{}, func(root *inroot.Root) (TreeStats, error) {
		return TreeStats{}, newTransportWriter(root, opts).all(ctx, source)
	})
	if err == nil {
		err = inDirectory(filepath.Join(w.dir, treeDir), sys.SyncFS)
	}
	return errors.Join(err, w.publish(err))
}

// transportWriter writes one folder.
type transportWriter struct {
	root    *inroot.Root
	attr    string
	parents []string
	order   *layer.NTOrder
	names   *ntNames
	brought map[string]*layer.Entry // by name as spelled; without content

	out        *bufio.Writer
	open       *inroot.File // of which streams may follow
	current    *layer.Entry
	tombstones []byte
	links      []*layer.Entry // of which the target was not there when they came
	dirs       []*layer.Entry // that are there as they are
}

func newTransportWriter(root *inroot.Root, opts TransportOptions) *transportWriter {
	return &transportWriter{
		root: root, attr: ntAttrName(opts.UserXattr), parents: opts.Parents, order: layer.NewNTOrder(layer.ReadOptions{}),
		names: newNTNames(nil), brought: make(map[string]*layer.Entry), out: bufio.NewWriterSize(nil, 256<<10),
		tombstones: []byte(tombstonesHead + "\n"),
	}
}

// all writes the folder.
func (w *transportWriter) all(ctx context.Context, source EntrySource) error {
	err := w.entries(ctx, source)
	if w.open != nil { // of an entry that failed
		err = errors.Join(err, w.open.Close())
	}
	return err
}

func (w *transportWriter) entries(ctx context.Context, source EntrySource) error {
	err := source(func(e *layer.Entry, content io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return w.entry(e, content)
	})
	if err == nil {
		err = w.close()
	}
	if err != nil {
		return err
	}
	rest, err := w.order.Rest()
	if err != nil {
		return err
	}
	if err := w.implied(rest); err != nil {
		return err
	}
	return w.finish()
}

// entry writes an entry and what has to come before it.
func (w *transportWriter) entry(e *layer.Entry, content io.Reader) error {
	own := *e
	if e.NT != nil {
		meta := *e.NT
		own.NT = &meta
	}
	before, err := w.order.Place(&own)
	if err != nil {
		return err
	}
	if own.Kind != layer.Stream {
		if err := w.close(); err != nil {
			return err
		}
	}
	if err := w.implied(before); err != nil {
		return err
	}
	if own.Implied {
		return w.implied([]*layer.Entry{&own})
	}
	return transportError("write", e.Name, w.write(&own, content))
}

// transportError names what an error is about, unless it does so itself.
func transportError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*layer.EntryError](err); ok {
		return err
	}
	return &layer.EntryError{Op: op, Name: name, Err: err}
}

// implied writes directories that the layer has no entries for, as the nearest parent has them.
func (w *transportWriter) implied(dirs []*layer.Entry) error {
	for _, d := range dirs {
		if len(w.parents) > 0 {
			below, content, err := OpenNT(w.parents, d.Name)
			if content != nil {
				err = errors.Join(err, content.Close())
			}
			switch {
			case err == nil && below.Kind == layer.Dir:
				d.NT, d.ModTime, d.AccessTime, d.ChangeTime = below.NT, below.ModTime, below.AccessTime, below.ChangeTime
			case err != nil && !errdefs.IsNotFound(err):
				return transportError("write", d.Name, err)
			}
		}
		if err := w.write(d, nil); err != nil {
			return transportError("write", d.Name, err)
		}
	}
	return nil
}

func (w *transportWriter) write(e *layer.Entry, content io.Reader) error {
	switch e.Kind {
	case layer.Whiteout:
		var err error
		w.tombstones, err = appendTombstone(w.tombstones, e.Name)
		return err
	case layer.Opaque:
		return fmt.Errorf("on Windows no directory hides all that lower layers have in it: %w", errdefs.ErrNotImplemented)
	case layer.Stream:
		return w.stream(e, content)
	}
	var err error
	if e.Name, err = w.names.spell(e.Name); err != nil {
		return err
	}
	isDir := e.Kind == layer.Dir || e.Kind == layer.Symlink && e.NT.Attributes&ntfs.AttrDirectory != 0
	again, err := w.claim(e, isDir && staged(e.Name))
	if err != nil {
		return err
	}
	switch {
	case e.Kind == layer.Hardlink:
		return w.link(e)
	case staged(e.Name) && isDir:
		return w.stagedDir(e, again)
	case staged(e.Name):
		return w.staged(e, e.Name, content)
	case isDir:
		return w.plainDir(e, again)
	}
	return w.plain(e, content)
}

// claim takes a name. Only a directory may have it already, and only if nobody told of it.
func (w *transportWriter) claim(e *layer.Entry, sidecar bool) (again bool, err error) {
	_, last := cut(e.Name)
	switch {
	case isSidecar(last):
		return false, fmt.Errorf("a transport folder has its own files under such names: %w", errdefs.ErrInvalidArgument)
	case len(last) > maxFileName, sidecar && len(last) > maxFileName-len(sidecarSuffix):
		return false, fmt.Errorf("the name is too long for Linux: %d bytes: %w", len(last), errdefs.ErrOutOfRange)
	}
	before, again := w.brought[e.Name]
	if again && !(before.Implied && e.Kind == layer.Dir) {
		return false, fmt.Errorf("the layer has it already: %w", errdefs.ErrAlreadyExists)
	}
	w.brought[e.Name] = e
	return again, nil
}

// stagedDir makes a directory and its sidecar.
func (w *transportWriter) stagedDir(e *layer.Entry, again bool) error {
	sidecar := e.Name + sidecarSuffix
	if again {
		if err := w.root.Remove(sidecar); err != nil {
			return err
		}
	} else if err := w.root.Mkdir(e.Name, 0o755); err != nil {
		return err
	}
	return w.staged(e, sidecar, nil)
}

// staged writes attributes and a backup stream to a file, which stays open for alternate streams.
func (w *transportWriter) staged(e *layer.Entry, file string, content io.Reader) error {
	stream, err := layer.BackupStream(e, content)
	if err != nil {
		return err
	}
	if w.open, err = w.root.Create(file, 0o644); err != nil {
		return err
	}
	w.current = e
	w.out.Reset(w.open)
	if err := binary.Write(w.out, binary.LittleEndian, uint32(e.NT.Attributes)); err != nil {
		return err
	}
	_, err = io.Copy(w.out, stream)
	return err
}

// stream adds an alternate stream to the file that is open.
func (w *transportWriter) stream(e *layer.Entry, content io.Reader) error {
	switch {
	case !staged(e.Name):
		return fmt.Errorf("a transport folder has no place for alternate stream %q of what is not in Files: %w", e.Stream, errdefs.ErrNotImplemented)
	case w.current == nil || !ntfs.EqualFold(w.current.Name, e.Name):
		return fmt.Errorf("alternate stream %q does not follow its owner: %w", e.Stream, errdefs.ErrNotImplemented)
	}
	stream, err := layer.BackupStream(e, content)
	if err != nil {
		return err
	}
	_, err = io.Copy(w.out, stream)
	return err
}

// close completes the file that is open.
func (w *transportWriter) close() error {
	if w.open == nil {
		return nil
	}
	err := w.out.Flush()
	if err == nil {
		err = w.describeStaged(w.current)
	}
	if err == nil {
		err = w.open.SetTimes(times(w.current))
	}
	err = transportError("write", w.current.Name, errors.Join(err, w.open.Close()))
	w.open, w.current = nil, nil
	return err
}

// describeStaged keeps what the file on Windows has beside its content and Linux has no call for: two of its times, and its
// short name. What is as the write time says goes without.
func (w *transportWriter) describeStaged(e *layer.Entry) error {
	changed, created := fileTimeOf(e.ChangeTime), fileTimeOf(e.NT.CreationTime)
	if written := fileTimeOf(e.ModTime); changed == written && created == written && e.NT.ShortName == "" {
		return nil
	}
	return w.describe(&layer.Entry{Name: e.Name, ChangeTime: e.ChangeTime, NT: &ntfs.Meta{
		Attributes: e.NT.Attributes, CreationTime: e.NT.CreationTime, ShortName: e.NT.ShortName,
	}}, w.open.SetXattr)
}

func (w *transportWriter) describe(e *layer.Entry, set func(attr, value string) error) error {
	meta, err := appendNTMeta(nil, e, func(b []byte) ([sha256.Size]byte, error) {
		return [sha256.Size]byte{}, fmt.Errorf("%d bytes are more than an attribute has room for: %w", len(b), errdefs.ErrNotImplemented)
	})
	if err != nil {
		return err
	}
	return set(w.attr, string(meta))
}

// plain writes a file as it is, or the empty one that stands for a link.
func (w *transportWriter) plain(e *layer.Entry, content io.Reader) error {
	file, err := w.root.Create(e.Name, 0o644)
	if err != nil {
		return err
	}
	if e.Size > 0 {
		var n int64
		if content != nil {
			n, err = io.Copy(file, io.LimitReader(content, e.Size))
		}
		if err == nil && n < e.Size {
			err = fmt.Errorf("content has %d bytes less than its size says: %w", e.Size-n, errdefs.ErrDataLoss)
		}
	}
	if err == nil {
		err = w.describe(e, file.SetXattr)
	}
	if err == nil {
		err = file.SetTimes(times(e))
	}
	return errors.Join(err, file.Close())
}

// plainDir makes a directory that has no sidecar.
func (w *transportWriter) plainDir(e *layer.Entry, again bool) error {
	if !again {
		if err := w.root.Mkdir(e.Name, 0o755); err != nil {
			return err
		}
	}
	dir, err := w.root.OpenDir(e.Name)
	if err != nil {
		return err
	}
	w.dirs = append(w.dirs, e)
	return errors.Join(w.describe(e, dir.Self().SetXattr), dir.Close())
}

// link makes another name of a file of the folder, which has the same form there. Other links wait for the end.
func (w *transportWriter) link(e *layer.Entry) error {
	target, err := w.target(e)
	if err != nil {
		return err
	}
	of := w.brought[target]
	switch {
	case of == nil || of.Kind == layer.Hardlink || staged(e.Name) != staged(target):
		w.links = append(w.links, e)
		return nil
	case of.Kind == layer.Dir:
		return fmt.Errorf("the hard link's target %q is a directory: %w", e.Link, errdefs.ErrInvalidArgument)
	}
	return w.root.Link(target, e.Name)
}

// target follows links to links, which Windows' exporter does not write.
func (w *transportWriter) target(e *layer.Entry) (string, error) {
	for range maxLinks {
		name, err := w.names.spell(e.Link)
		if err != nil {
			return "", err
		}
		of := w.brought[name]
		if of == nil || of.Kind != layer.Hardlink {
			return name, nil
		}
		e = of
	}
	return "", fmt.Errorf("hard links to one another end nowhere: %w", errdefs.ErrInvalidArgument)
}

// finish writes what waited for the end.
func (w *transportWriter) finish() error {
	waited := w.links
	w.links = nil
	for _, e := range waited { // of which some targets have come
		if err := w.link(e); err != nil {
			return transportError("write", e.Name, err)
		}
	}
	for _, e := range w.links {
		if err := w.copyOf(e); err != nil {
			return transportError("write", e.Name, fmt.Errorf("find the hard link's target %q: %w", e.Link, err))
		}
	}
	if err := w.copyBootStore(); err != nil {
		return err
	}
	if err := w.writeTombstones(); err != nil {
		return err
	}
	for _, e := range slices.Backward(w.dirs) {
		dir, last, err := w.root.OpenParent(e.Name)
		if err != nil {
			return err
		}
		atime, mtime := times(e)
		if err := errors.Join(dir.SetTimes(last, atime, mtime), dir.Close()); err != nil {
			return transportError("write", e.Name, err)
		}
	}
	return nil
}

// copyOf writes a file of a parent under the name of a link to it: no folder has links to what is not in it.
func (w *transportWriter) copyOf(e *layer.Entry) error {
	name, err := w.target(e)
	if err != nil {
		return err
	}
	err = ReadNT(w.parents, name, func(target *layer.Entry, content io.Reader) error {
		target.Name = e.Name
		switch {
		case target.Kind == layer.Stream:
			return w.stream(target, content)
		case target.Kind == layer.Dir:
			return fmt.Errorf("it is a directory: %w", errdefs.ErrInvalidArgument)
		case staged(e.Name):
			return w.staged(target, e.Name, content)
		}
		return w.plain(target, content)
	})
	if err != nil {
		return err
	}
	return w.close()
}

// copyBootStore keeps the boot configuration of a utility VM as it came, as Windows' importers do before it is changed.
func (w *transportWriter) copyBootStore() error {
	c := cloner{from: w.root, to: w.root, attr: w.attr}
	for _, suffix := range slices.Sorted(maps.Keys(bootCopies)) {
		name, err := findFile(w.root, utilityFiles+"/"+bootStore+suffix)
		if err == nil && name != "" {
			err = c.copyFile(name, bootCopies[suffix])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *transportWriter) writeTombstones() error {
	file, err := w.root.Create(tombstonesFile, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(w.tombstones)
	return errors.Join(err, file.Close())
}
