package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// LayerOptions say how a single layer is unpacked onto a tree.
type LayerOptions struct {
	UnpackOptions
	// Format is what the layer becomes.
	Format rootfs.Format
	// UserXattr has overlayfs's marks in user.overlay.*.
	UserXattr bool
}

func (o LayerOptions) apply() rootfs.ApplyOptions {
	m := o.Mappings.WithDefaults()
	a := rootfs.ApplyOptions{
		Format: o.Format, UserXattr: o.UserXattr, UIDs: idMaps(m.UIDs), GIDs: idMaps(m.GIDs), Rootless: m.Rootless,
		KeepDirlinks: o.KeepDirlinks, Writers: o.Writers,
	}
	if m.Rootless {
		a.Owner = rootfs.IgnoreOwner
	}
	return a
}

// ApplyLayer unpacks a layer's tar stream onto the tree in dir, which exists.
// If it fails the tree is left half done.
func ApplyLayer(ctx context.Context, dir string, tar io.Reader, o LayerOptions) error {
	root, err := inroot.Open(dir)
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	_, err = rootfs.Apply(ctx, root, layer.NewReader(tar, o.Limits), o.apply())
	if err := errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	return nil
}

// An Extractor unpacks one layer entry by entry, for those who read the
// archive themselves; [ApplyLayer] is faster by far. It is for one goroutine.
type Extractor struct {
	opts  LayerOptions
	upper map[string]bool // what the layer has brought, and the directories above it
}

// NewExtractor returns an Extractor for one layer.
func NewExtractor(o LayerOptions) *Extractor {
	return &Extractor{opts: o, upper: map[string]bool{}}
}

// Extract unpacks one entry onto the tree in dir. content is read if the entry
// is a file.
func (x *Extractor) Extract(ctx context.Context, dir string, h *tar.Header, content io.Reader) error {
	name := clean(h.Name)
	if gone, is := whiteoutOf(name); is && x.opts.Format == rootfs.Directory && x.upper[gone] {
		return x.fade(dir, gone)
	}
	stream, err := single(h, name, content)
	if err != nil {
		return fmt.Errorf("unpack entry %q: %w", h.Name, err)
	}
	if err := ApplyLayer(ctx, dir, stream, x.opts); err != nil {
		return err
	}
	for ; !x.upper[name]; name = path.Dir(name) {
		x.upper[name] = true
	}
	return nil
}

// The names of whiteouts: see
// https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// whiteoutOf returns what an entry of that name removes.
func whiteoutOf(name string) (string, bool) {
	dir, last := path.Split(name)
	if last == opaqueName {
		return clean(dir), true
	}
	gone, is := strings.CutPrefix(last, whiteoutPrefix)
	return path.Join(dir, gone), is && gone != "" && gone != "." && gone != ".."
}

// single returns the tar stream of a single entry.
func single(h *tar.Header, name string, content io.Reader) (io.Reader, error) {
	one := *h
	one.Name, one.Format = name, tar.FormatUnknown
	if h.Typeflag == tar.TypeDir && name != "." {
		one.Name += "/"
	}
	// archive/tar reads sparse files, holes and all, and does not write them.
	one.PAXRecords = maps.Clone(h.PAXRecords)
	maps.DeleteFunc(one.PAXRecords, func(key, _ string) bool { return strings.HasPrefix(key, "GNU.sparse.") })
	if h.Typeflag == tar.TypeGNUSparse {
		one.Typeflag = tar.TypeReg
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&one); err != nil {
		return nil, err
	}
	if one.Typeflag != tar.TypeReg || one.Size == 0 {
		return &head, nil
	}
	const block = 512
	padding := make([]byte, (block-one.Size%block)%block)
	return io.MultiReader(&head, io.LimitReader(content, one.Size), bytes.NewReader(padding)), nil
}

// fade removes what is at and below a name, but for what the layer brought:
// a whiteout is about the layers below.
func (x *Extractor) fade(dir, name string) error {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	d, err := root.OpenDir(name)
	if err == nil {
		err = errors.Join(x.fadeDir(d, name), d.Close())
	} else if errors.Is(err, sys.ErrNotDir) || isMissing(err) {
		err = nil
	}
	if err := errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("remove what is below %q: %w", name, err)
	}
	return nil
}

func (x *Extractor) fadeDir(d *inroot.Dir, name string) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, last := range names {
		full := path.Join(name, last)
		if !x.upper[full] {
			if err := d.RemoveAll(last); err != nil {
				return err
			}
			continue
		}
		st, err := d.Lstat(last)
		if err != nil {
			return err
		}
		if !st.IsDir() {
			continue
		}
		sub, err := d.OpenDir(last)
		if err != nil {
			return err
		}
		if err := errors.Join(x.fadeDir(sub, full), sub.Close()); err != nil {
			return err
		}
	}
	return nil
}
