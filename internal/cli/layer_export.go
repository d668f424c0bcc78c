package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/layer"
)

type layerExportOptions struct {
	layerSource
	output, format string
	gzip           bool
	size           size
}

func newLayerExport(a *app) *cobra.Command {
	o := layerExportOptions{size: 20 << 30}
	c := &cobra.Command{
		Use:   "export [flags] LAYER",
		Short: "Write a layer as a tar file, or a Windows one as a disk with an NTFS volume",
		Long: `Write a layer elsewhere. As tar it is the stream that the layer has its diffID of.
As vhdx, vhd or ntfs (a raw image) it is a disk with one NTFS volume of what is
below Files, with every descriptor, stream and reparse point; that needs root and
the programs of ntfs-3g. A disk has no place for what a layer deletes.

` + layerUsage,
		Args: takes(1, 1, "a layer"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layerExportOptions) addFlags(f *pflag.FlagSet) {
	o.layerSource.addFlags(f)
	addParents(f, &o.parents)
	f.StringVarP(&o.output, "output", "o", "", "`file` to write, which must not exist (default: standard output)")
	f.BoolVarP(&o.gzip, "gzip", "z", false, "compress the tar file with gzip")
	f.StringVar(&o.format, "format", "tar", "tar, vhdx, vhd or ntfs")
	f.Var(&o.size, "size", "size of a disk in `bytes`, or with k, m, g")
}

func (o *layerExportOptions) run(ctx context.Context, a *app, ref string) error {
	var format disk.Format
	switch o.format {
	case "tar":
		return o.tar(ctx, a, ref)
	case "vhdx":
		format = disk.DynamicVHDX
	case "vhd":
		format = disk.DynamicVHD
	case "ntfs":
		format = disk.Raw
	default:
		return usage(fmt.Sprintf("format %q: use tar, vhdx, vhd or ntfs", o.format))
	}
	if o.output == "" || o.gzip {
		return usage("export: a disk needs --output, and is not compressed")
	}
	return disk.CreateNTFS(ctx, o.output, "", disk.Options{Format: format, Size: int64(o.size)}, func(add disk.Adder) error {
		return o.each(ctx, a, ref, func(r *layer.Reader, e *layer.Entry) error { return addToVolume(add, r, e) })
	})
}

// addToVolume puts what is below Files into a volume.
func addToVolume(add disk.Adder, r io.Reader, e *layer.Entry) error {
	if e.NT == nil {
		return fmt.Errorf("%q is no entry of a Windows layer: %w", e.Name, errdefs.ErrInvalidArgument)
	}
	part, name := layer.SplitPart(e.Name)
	if part != layer.FilesPart || e.Kind == layer.Whiteout || e.Kind == layer.Opaque {
		return nil
	}
	moved := *e
	moved.Name = name
	if e.Kind == layer.Hardlink {
		_, moved.Link = layer.SplitPart(e.Link)
	}
	return add(&moved, r)
}

func (o *layerExportOptions) tar(ctx context.Context, a *app, ref string) error {
	if o.output == "" {
		return o.write(ctx, a, ref, a.out)
	}
	f, err := os.OpenFile(o.output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("export layer: %w", err)
	}
	if err = errors.Join(o.write(ctx, a, ref, f), f.Close()); err != nil {
		err = errors.Join(err, os.Remove(o.output))
	}
	return err
}

func (o *layerExportOptions) write(ctx context.Context, a *app, ref string, out io.Writer) error {
	l, err := o.open(ctx, a, ref)
	if err != nil {
		return err
	}
	defer func() { _ = l.close() }() // read only
	compression := layer.None
	if o.gzip {
		compression = layer.Gzip
	}
	b, err := layer.CreateBlob(out, compression)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // after Finish it does nothing
	if err := copyLayer(ctx, b, l); err != nil {
		return fmt.Errorf("export layer %s: %w", ref, err)
	}
	return nil
}

// copyLayer writes a layer again, and holds the copy against its diffID.
func copyLayer(ctx context.Context, b *layer.BlobWriter, l *layerStream) error {
	for e, err := range l.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = b.Write(e, l.Reader)
		}
		if err != nil {
			return err
		}
	}
	trailer, err := l.Trailer()
	if err != nil {
		return err
	}
	if err := b.CloseWith(trailer); err != nil {
		return err
	}
	diffID, err := l.finish()
	if err != nil {
		return err
	}
	written, err := b.Finish()
	if err == nil && written.DiffID != diffID {
		err = fmt.Errorf("the copy has diffID %s, not %s: %w", written.DiffID, diffID, errdefs.ErrDataLoss)
	}
	return err
}
