package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/temporary"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// SquashOptions say how the layers of an image become one.
type SquashOptions struct {
	Compression layer.Compression
	// Work is a directory for temporary files; an image for Windows needs
	// none. What a killed call left in it the next one removes.
	Work string
	// History, if not nil, describes the step. That of the old layers says of
	// them that they are empty.
	History *v1.History
	// Reading says how layers of an image for Windows are read.
	Reading Reading
}

// Squash replaces the layers of an edit of img by a single one, which has
// what they have together. The files are unpacked to a temporary directory
// meanwhile. An ordinary user cannot unpack device nodes: the error is then of
// class ErrInvalidArgument.
//
// The layers of an image for Windows become a base layer: their changes to the
// registry are in its hives. Nothing is unpacked for that.
func Squash(ctx context.Context, src image.Source, img *image.Image, e *image.Edit, o SquashOptions) error {
	flat := squash
	if isWindows(img) {
		flat = squashNT
	}
	if err := flat(ctx, src, img, e, o); err != nil {
		return fmt.Errorf("squash image: %w", err)
	}
	for i := range e.Config.History {
		e.Config.History[i].EmptyLayer = true
	}
	if o.History != nil {
		e.AddHistory(*o.History)
	}
	return nil
}

func isWindows(img *image.Image) bool { return layer.EncodingOf(img.Config.OS) == layer.NT }

func squashNT(ctx context.Context, src image.Source, img *image.Image, e *image.Edit, o SquashOptions) error {
	e.DropLayers()
	_, err := e.AddLayer(ctx, o.Compression, func(w *layer.Writer) error {
		return FlattenWindows(ctx, blobs(src, img), o.Reading, w.Write)
	})
	return err
}

func squash(ctx context.Context, src image.Source, img *image.Image, e *image.Edit, o SquashOptions) error {
	m := Mappings{Rootless: os.Geteuid() != 0}
	if m.Rootless {
		if err := noDevices(ctx, src, img); err != nil {
			return err
		}
	}
	return inTree(ctx, o.Work, blobs(src, img), UnpackOptions{Mappings: m}.tree(), func(tree string) error {
		list, err := everything(ctx, tree)
		if err != nil {
			return err
		}
		e.DropLayers()
		_, err = e.AddLayer(ctx, o.Compression, func(w *layer.Writer) error {
			return rootfs.EmitChanges(ctx, tree, list, m.changeOptions(), toLayer(w, nil))
		})
		return err
	})
}

// FlattenLinux reads the layers of a Linux image, base first, as one, in the
// form that [rootfs.Diff] has. They are unpacked to a temporary directory in
// work, "" being the system's; what a killed call left there the next one
// removes.
func FlattenLinux(ctx context.Context, layers []rootfs.LayerBlob, work string, o rootfs.TreeOptions, emit rootfs.Emit) error {
	return inTree(ctx, work, layers, o, func(tree string) error { return rootfs.Diff(ctx, tree, emit) })
}

// inTree calls f while layers are unpacked as one tree.
func inTree(ctx context.Context, work string, layers []rootfs.LayerBlob, o rootfs.TreeOptions, f func(tree string) error) (err error) {
	t, err := temporary.New(ctx, temporary.Config{Parent: work, Prefix: ".hcs-squash-"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Remove()) }()
	tree := t.Path(RootfsName)
	if _, err := rootfs.UnpackTree(ctx, tree, layers, o); err != nil {
		return err
	}
	return f(tree)
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

// eachEntry reads one layer of an image for Linux.
func eachEntry(ctx context.Context, src image.Source, img *image.Image, i int, limits layer.Limits, f func(*layer.Entry, *layer.Blob) error) error {
	return readLayer(ctx, blobs(src, img)[i], layer.ReadOptions{Limits: limits}, f)
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
