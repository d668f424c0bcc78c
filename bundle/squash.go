package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// Squash replaces the layers of an edit of img by a single one, which has
// what they have together. The history says of its old steps that they have no
// layers, and history, if not nil, stands for the new one. The files are
// unpacked to a temporary directory in work meanwhile.
//
// An ordinary user cannot unpack device nodes: the error is then of class
// ErrInvalidArgument.
func Squash(ctx context.Context, src image.Source, img *image.Image, e *image.Edit, c layer.Compression, work string, history *v1.History) error {
	if err := squash(ctx, src, img, e, c, work); err != nil {
		return fmt.Errorf("squash image: %w", err)
	}
	for i := range e.Config.History {
		e.Config.History[i].EmptyLayer = true
	}
	if history != nil {
		e.AddHistory(*history)
	}
	return nil
}

func squash(ctx context.Context, src image.Source, img *image.Image, e *image.Edit, c layer.Compression, work string) (err error) {
	m := Mappings{Rootless: os.Geteuid() != 0}
	if m.Rootless {
		if err := noDevices(ctx, src, img); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(work, ".hcs-squash-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(dir)) }()
	tree := filepath.Join(dir, RootfsName)
	if _, err := rootfs.UnpackTree(ctx, tree, blobs(src, img), UnpackOptions{Mappings: m}.tree()); err != nil {
		return err
	}
	list, err := everything(ctx, tree)
	if err != nil {
		return err
	}
	e.DropLayers()
	_, err = e.AddLayer(ctx, c, func(w *layer.Writer) error {
		return rootfs.EmitChanges(ctx, tree, list, m.changeOptions(), toLayer(w, nil, nil))
	})
	return err
}

// removeTree removes what an ordinary user has unpacked, read-only
// directories too.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(p, 0o700) // before it is read
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// everything lists a tree as if all of it were new.
func everything(ctx context.Context, tree string) ([]rootfs.Change, error) {
	_, list, err := Insertion{Source: tree}.objects(ctx)
	return list, err
}

func noDevices(ctx context.Context, src image.Source, img *image.Image) error {
	for i := range img.Manifest.Layers {
		err := eachEntry(ctx, src, img, i, layer.Limits{}, func(e *layer.Entry, _ *layer.Blob) error {
			if e.Kind == layer.CharDevice || e.Kind == layer.BlockDevice {
				return invalid("%q is a device node, which only root can unpack", e.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachEntry reads one layer of an image.
func eachEntry(ctx context.Context, src image.Source, img *image.Image, i int, limits layer.Limits, f func(*layer.Entry, *layer.Blob) error) error {
	r, err := src.Blob(ctx, img.Manifest.Layers[i])
	if err != nil {
		return err
	}
	defer r.Close()
	blob, err := layer.OpenBlob(r, limits)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }() // after Finish it does nothing
	for e, err := range blob.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = f(e, blob)
		}
		if err != nil {
			return err
		}
	}
	d, err := blob.Finish()
	if err == nil && d.DiffID != img.DiffIDs()[i] {
		err = &classed{fmt.Errorf("layer %d has diffID %s, not %s", i, d.DiffID, img.DiffIDs()[i]), errdefs.ErrDataLoss}
	}
	return err
}

// Convert compresses the layers of an edit of img anew. Their diffIDs, and so
// what is in them, stay.
func Convert(ctx context.Context, src image.Source, img *image.Image, e *image.Edit, c layer.Compression) error {
	e.DropLayers()
	for i, d := range img.Manifest.Layers {
		if err := convert(ctx, src, d, img.DiffIDs()[i], e, c); err != nil {
			return fmt.Errorf("convert layer %d: %w", i, err)
		}
	}
	return nil
}

func convert(ctx context.Context, src image.Source, d v1.Descriptor, diffID digest.Digest, e *image.Edit, c layer.Compression) error {
	tar, err := image.OpenTar(ctx, src, d, diffID)
	if err != nil {
		return err
	}
	defer tar.Close()
	_, err = e.AddTar(ctx, c, tar)
	return err
}
