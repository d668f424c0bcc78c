package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// RepackOptions say what Repack makes. The zero value but for Tag adds a
// layer that is compressed as the image's others.
type RepackOptions struct {
	Tag string
	// Compression of the layer; nil is that of the image's topmost layer.
	Compression *layer.Compression
	// Mask are paths below which changes are left out.
	Mask []string
	// KeepVolumes is for changes in the volumes of the image's configuration,
	// which are left out otherwise.
	KeepVolumes bool
	// Refresh makes the bundle one of the new image.
	Refresh bool
	// History describes the step; nil adds nothing to the history. EmptyLayer
	// is set as it has to be.
	History *v1.History
	// SourceDate, if not nil, is the latest time that anything in the layer
	// has.
	SourceDate *time.Time
}

// Repack makes a layer of what has changed in a bundle since it was unpacked,
// and an image of l with that layer on top of the one that the bundle is from,
// which must be in l. Without a change there is no layer.
func Repack(ctx context.Context, l *image.Layout, dir string, o RepackOptions) (*image.Image, error) {
	img, err := repack(ctx, l, dir, o)
	if err != nil {
		return nil, fmt.Errorf("repack bundle %s: %w", dir, err)
	}
	return img, nil
}

func repack(ctx context.Context, l *image.Layout, dir string, o RepackOptions) (*image.Image, error) {
	meta, err := ReadMeta(dir)
	if err != nil {
		return nil, err
	}
	if meta.Overlay != nil {
		if err := meta.Overlay.check(dir); err != nil {
			return nil, err
		}
	}
	base, err := l.At(ctx, meta.From.Walk)
	if err != nil {
		return nil, fmt.Errorf("find the image that it is from: %w", err)
	}
	if o.Refresh && meta.Overlay != nil {
		return nil, invalid("a mounted bundle cannot be refreshed: unpack the new image instead")
	}
	mask := maskOf(base, o)
	changes, err := meta.changes(ctx, dir)
	if err != nil {
		return nil, err
	}
	changes = slices.DeleteFunc(changes, func(c rootfs.Change) bool { return mask.covers(c.Name) })
	if meta.Overlay != nil && len(changes) == 1 && changes[0].Name == "." { // which is there in any case
		changes = nil
	}

	e, err := l.Edit(ctx, base)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	switch {
	case len(changes) == 0:
	case !isWindows(base):
		err = meta.addLayer(ctx, e, dir, changes, o)
	case meta.Overlay != nil:
		err = meta.Overlay.addLayerNT(ctx, e, mask, o)
	default:
		err = meta.addLayerNT(ctx, e, dir, changes, o)
	}
	if err != nil {
		return nil, err
	}
	if o.History != nil {
		h := *o.History
		h.EmptyLayer = len(changes) == 0
		e.AddHistory(h)
	}
	img, err := e.Commit(ctx, o.Tag)
	if err != nil || !o.Refresh {
		return img, err
	}
	if isWindows(base) {
		if err := treeNT(dir).KeepHives(); err != nil {
			return img, err
		}
	}
	return img, meta.refresh(ctx, dir, img)
}

// changes compares the bundle's tree with its manifest, or, where it is an
// overlay mount, reads what was written alone.
func (m Meta) changes(ctx context.Context, dir string) ([]rootfs.Change, error) {
	if m.Overlay != nil {
		return m.Overlay.changes(ctx)
	}
	name := filepath.Join(dir, mtreeName(m.manifest()))
	// To open a FIFO would wait for a writer.
	if st, err := os.Lstat(name); err == nil && !st.Mode().IsRegular() {
		return nil, invalid("open %s: it is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return rootfs.Changes(ctx, filepath.Join(dir, RootfsName), f, m.Map.changeOptions())
}

func (o *RepackOptions) compression(e *image.Edit) layer.Compression {
	if o.Compression != nil {
		return *o.Compression
	}
	return e.Compression()
}

func (m Meta) addLayer(ctx context.Context, e *image.Edit, dir string, changes []rootfs.Change, o RepackOptions) error {
	tree, opts := filepath.Join(dir, RootfsName), m.Map.changeOptions()
	if m.Overlay != nil {
		var err error
		if tree, err = m.Overlay.upper(); err != nil {
			return err
		}
		opts = m.Overlay.changeOptions()
	}
	_, err := e.AddLayer(ctx, o.compression(e), func(w *layer.Writer) error {
		return rootfs.EmitChanges(ctx, tree, changes, opts, toLayer(w, o.SourceDate))
	})
	return err
}

// toLayer writes entries as umoci does: times in whole seconds, none later
// than latest, whiteouts of 1970.
func toLayer(w *layer.Writer, latest *time.Time) rootfs.Emit {
	return func(e *layer.Entry, content io.Reader) error {
		e.ModTime = e.ModTime.Truncate(time.Second)
		e.AccessTime, e.ChangeTime = time.Time{}, time.Time{}
		if latest != nil && e.ModTime.After(*latest) {
			e.ModTime = *latest
		}
		if e.Kind == layer.Whiteout || e.Kind == layer.Opaque {
			e.ModTime = time.Unix(0, 0)
		}
		return w.Write(e, content)
	}
}

// mask is a list of clean paths without the leading slash.
type mask struct {
	paths []string
	fold  func(string) string
}

func maskOf(img *image.Image, o RepackOptions) mask {
	m := mask{slices.Clone(o.Mask), func(name string) string { return name }}
	if !o.KeepVolumes {
		m.paths = append(m.paths, sortedKeys(img.Config.Config.Volumes)...)
	}
	clean := clean
	if isWindows(img) {
		clean, m.fold = cleanNT, ntfs.Upcase
	}
	for i, p := range m.paths {
		m.paths[i] = m.fold(clean(p))
	}
	return m
}

func (m mask) covers(name string) bool {
	name = m.fold(name)
	return slices.ContainsFunc(m.paths, func(p string) bool { return p == "." || name == p || strings.HasPrefix(name, p+"/") })
}

// clean makes a name in a layer of any path.
func clean(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if p == "" {
		return "."
	}
	return p
}

// refresh makes the bundle, whose files are what the image has, one of that
// image.
func (m Meta) refresh(ctx context.Context, dir string, img *image.Image) error {
	old := mtreeName(m.manifest())
	m.From.Walk = img.Path
	fresh := mtreeName(img.Descriptor)
	err := replace(ctx, dir, []string{fresh, MetaName}, func(private string) error {
		err := writeFile(filepath.Join(private, fresh), func(w io.Writer) error {
			return rootfs.WriteManifest(ctx, filepath.Join(dir, RootfsName), w)
		})
		return errors.Join(err, m.write(private))
	})
	if err != nil || fresh == old {
		return err
	}
	if err := os.Remove(filepath.Join(dir, old)); err != nil && !isMissing(err) {
		return err
	}
	return nil
}

// Author returns the author of the image that a bundle is from, whose name a
// step of its history has unless somebody says otherwise.
func Author(ctx context.Context, l *image.Layout, dir string) (string, error) {
	meta, err := ReadMeta(dir)
	if err != nil {
		return "", err
	}
	base, err := l.At(ctx, meta.From.Walk)
	if err != nil {
		return "", fmt.Errorf("find the image that bundle %s is from: %w", dir, err)
	}
	return base.Config.Author, nil
}

// CleanName returns the name that a path has in a layer: relative to the root,
// which is ".", and never above it.
func CleanName(path string) string { return clean(path) }

// WriteOptions say how changes of a tree become a layer.
type WriteOptions struct {
	Mappings   Mappings
	Format     rootfs.Format // of the tree
	UserXattr  bool          // overlayfs's marks are in user.overlay.*
	SourceDate *time.Time    // the latest time that anything gets, if not nil
}

// WriteChanges writes changes of the tree in dir to a layer, as Repack does.
func WriteChanges(ctx context.Context, w *layer.Writer, dir string, changes []rootfs.Change, o WriteOptions) error {
	opts := o.Mappings.changeOptions()
	opts.Format, opts.UserXattr = o.Format, o.UserXattr
	return rootfs.EmitChanges(ctx, dir, changes, opts, toLayer(w, o.SourceDate))
}
