package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// plainBase makes a layer of the files in a directory that no layer brought. They stay where they are, and get what
// layer.WindowsTree gives to files that know nothing of Windows.
type plainBase struct {
	dir string // of the layer; the source's is where stream and record are made
	*ntSource
}

// adoptPlain makes what a layer directory has beside its trees, in the directory into, and returns the attribute that the
// metadata is in.
func adoptPlain(ctx context.Context, dir string, root *inroot.Root, into string) (attr string, err error) {
	user, err := needsUserXattr(root)
	if err != nil {
		return "", err
	}
	s, err := newNTSource(into, root, ntParents{}, nil, NTOptions{UserXattr: user})
	if err != nil {
		return "", err
	}
	p := &plainBase{dir, s}
	if err := errors.Join(p.all(ctx), s.close()); err != nil {
		return "", err
	}
	return s.attr, writeNTRecord(into, ntLayerRecord{
		UserXattr: user, Entries: s.stats.Entries, Size: s.stats.Bytes, Headers: s.packed.n, Created: time.Now().UTC(),
	})
}

func (p *plainBase) all(ctx context.Context) error {
	if err := p.part(ctx, layer.FilesPart, layer.WindowsTree{}); err != nil {
		return err
	}
	vm, err := hasUtilityVM(p.root)
	if err == nil && vm {
		err = p.addUtilityVM(ctx)
	}
	if err != nil {
		return err
	}
	return p.skeleton.Close()
}

// addUtilityVM adds a utility VM, whose files inherit from its directory, and that from none.
func (p *plainBase) addUtilityVM(ctx context.Context) error {
	var made layer.Descriptors
	top, err := made.Inherit(nil, ntfs.Container)
	if err != nil {
		return err
	}
	e, err := p.dirEntry(utilityVM, top)
	if err != nil {
		return err
	}
	if err := p.add(e, utilityVM); err != nil {
		return err
	}
	inherited, err := made.Inherit(top, ntfs.Container)
	if err != nil {
		return err
	}
	files, err := p.dirEntry(utilityFiles, inherited)
	if err != nil {
		return err
	}
	return p.part(ctx, utilityFiles, layer.WindowsTree{Lower: func(name string) *layer.Entry {
		if name != filesDir {
			return nil
		}
		return files
	}})
}

func (p *plainBase) dirEntry(name string, descriptor []byte) (*layer.Entry, error) {
	st, err := p.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	e := ntEntry(name, &st)
	e.ChangeTime = e.ModTime
	e.NT = &ntfs.Meta{Attributes: ntfs.AttrDirectory, CreationTime: e.ModTime, SecurityDescriptor: descriptor}
	fitTimes(e)
	return e, nil
}

// needsUserXattr says whether this process may keep metadata in attributes of its user alone.
func needsUserXattr(root *inroot.Root) (UserXattrs, error) {
	dir, err := root.OpenDir(filesDir)
	if err != nil {
		return false, err
	}
	err = dir.Self().SetXattr(ntXattr, "")
	if errors.Is(err, fs.ErrPermission) {
		return true, dir.Close()
	}
	return false, errors.Join(err, dir.Close())
}

// part adds what is in a directory of the layer. What a utility VM has becomes a layer's Files first, and then what it is.
func (p *plainBase) part(ctx context.Context, part layer.Part, tree layer.WindowsTree) error {
	for e, err := range tree.Entries(p.walk(ctx, string(part))) {
		if err != nil {
			return fmt.Errorf("make a layer of %s: %w", part, err)
		}
		if e.Name == string(layer.HivesPart) {
			continue // no base layer has one
		}
		if e.Kind == layer.Hardlink {
			e.Link = inPart(part, e.Link)
		}
		if err := p.add(e, inPart(part, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

// inPart returns the name in a part of what is called so below Files.
func inPart(part layer.Part, name string) string {
	return string(part) + strings.TrimPrefix(name, filesDir)
}

// walk gives what is in a directory.
func (p *plainBase) walk(ctx context.Context, part string) iter.Seq2[*layer.Entry, error] {
	return func(yield func(*layer.Entry, error) bool) {
		err := diff(ctx, filepath.Join(p.dir, part), overlayTrusted, func(e *layer.Entry, _ io.Reader) error {
			switch {
			case e.Kind == layer.Whiteout || e.Kind == layer.Opaque:
				return fmt.Errorf("a base layer removes nothing: %w", errdefs.ErrInvalidArgument)
			case !yield(e, nil):
				return errImportStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errImportStopped) {
			yield(nil, err)
		}
	}
}

// add puts an entry into the layer's stream, and its metadata where the file is.
func (p *plainBase) add(e *layer.Entry, name string) error {
	e.Name = name
	p.stats.Entries++
	if err := p.skeleton.WriteHeader(e); err != nil {
		return err
	}
	if e.Kind == layer.Hardlink || e.Kind == layer.Symlink && p.attr == ntUserXattr {
		return nil
	}
	if e.Kind == layer.File {
		p.stats.Bytes += e.Size
	}
	if err := p.describe(e); err != nil {
		return err
	}
	dir, last, err := p.root.OpenParent(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.SetXattr(last, p.attr, e.Xattrs[p.attr]), dir.Close())
}
