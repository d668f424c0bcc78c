package bundle

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// checkNT refuses what only images for Linux have.
func (o UnpackOptions) checkNT(img *image.Image) error {
	if o.Mappings.mapped() || o.KeepDirlinks {
		return invalid("an image for %s has no owners to map, and no links to keep", img.Config.OS)
	}
	return nil
}

func (o UnpackOptions) reading() Reading {
	return Reading{Limits: o.Limits, Strict: o.Strict, Warn: o.Warn}
}

// unpackNT makes a bundle of an image for Windows. It is a layer directory
// whose Files are called rootfs.
func unpackNT(ctx context.Context, src image.Source, img *image.Image, dir string, o UnpackOptions) error {
	if err := o.checkNT(img); err != nil {
		return err
	}
	o.Mappings.Rootless = o.Mappings.Rootless || os.Geteuid() > 0 // which costs nothing where nobody owns anything
	return stage(ctx, dir, func(stage string) error {
		flat := filepath.Join(stage, "layer")
		if err := importFlat(ctx, src, img, flat, o); err != nil {
			return err
		}
		if err := moveParts(flat, stage); err != nil {
			return err
		}
		if err := treeNT(stage).KeepHives(); err != nil {
			return err
		}
		root := filepath.Join(stage, RootfsName)
		err := writeFile(filepath.Join(stage, mtreeName(img.Descriptor)), func(w io.Writer) error {
			return rootfs.WriteManifest(ctx, root, w)
		})
		if err != nil {
			return err
		}
		return writeBundle(stage, stage, img, Meta{Version: MetaVersion, From: From{Walk: walkOf(img)}, Map: o.Mappings.WithDefaults()})
	})
}

// importFlat unpacks an image as one layer to a new directory.
func importFlat(ctx context.Context, src image.Source, img *image.Image, dir string, o UnpackOptions) error {
	opts := rootfs.NTOptions{Writers: o.Writers}
	if o.Mappings.Rootless {
		opts.UserXattr, opts.Owner = true, rootfs.IgnoreOwner
	}
	_, err := rootfs.ImportEntries(ctx, dir, nil, func(emit rootfs.Emit) error {
		return FlattenWindows(ctx, blobs(src, img), o.reading(), emit)
	}, opts)
	return err
}

// plainNT unpacks an image for Windows to a new directory, as Linux has such
// files.
func plainNT(ctx context.Context, src image.Source, img *image.Image, dir string, o UnpackOptions) error {
	if err := o.checkNT(img); err != nil {
		return err
	}
	opts := rootfs.NTOptions{Writers: o.Writers}
	if o.Mappings.Rootless || os.Geteuid() > 0 {
		opts.Owner = rootfs.IgnoreOwner
	}
	return rootfs.UnpackPlainNT(ctx, dir, func(emit rootfs.Emit) error {
		return FlattenWindows(ctx, blobs(src, img), o.reading(), emit)
	}, opts)
}

// layerStream is the stream of a layer in its directory, which is of no use
// once its files may change.
const layerStream = "headers.s2"

// moveParts moves what is in a layer's directory up, as a bundle has it.
func moveParts(from, to string) error {
	parts, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, p := range parts {
		name := p.Name()
		switch name {
		case string(layer.FilesPart):
			name = RootfsName
		case layerStream:
			if err := os.Remove(filepath.Join(from, name)); err != nil {
				return err
			}
			continue
		}
		if err := os.Rename(filepath.Join(from, p.Name()), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return os.Remove(from)
}
