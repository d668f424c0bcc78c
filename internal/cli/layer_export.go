package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

type layerExportOptions struct {
	layerSource
	output, format string
	gzip, flatten  bool
	size           size
}

func newLayerExport(a *app) *cobra.Command {
	o := layerExportOptions{size: 20 << 30}
	c := &cobra.Command{
		Use:   "export [flags] LAYER",
		Short: "Write a layer, or with all below it, as a tar file, a transport folder or a disk",
		Long: `Write a layer elsewhere. As tar it is the stream that the layer has its diffID of.
As dir a Windows layer becomes a transport folder, the form that Windows' own
ExportLayer has, and a Linux layer a tree of files, without what it removes. As
vhdx, vhd or ntfs (a raw image) a Windows layer becomes a disk with one NTFS volume
of what is below Files, with every descriptor, stream and reparse point; that needs
the programs of ntfs-3g, and root unless ntfs-3g is setuid root. A disk has no place
for what a layer deletes.

With --flatten it is the layer and all those below it as one: those before it in
the image, or the parents that a directory notes or --layer tells. Files are from
the topmost layer that has them, changes of the registry are in the base's hives.

` + layerUsage,
		Args: takes(1, 1, "a layer"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layerExportOptions) addFlags(f *pflag.FlagSet) {
	o.layerSource.addFlags(f)
	f.StringArrayVarP(&o.parents, "layer", "l", nil, "parent `LAYER`, the nearest first")
	f.StringVarP(&o.output, "output", "o", "", "`path` to write, which must not exist (default for tar: standard output)")
	f.BoolVarP(&o.gzip, "gzip", "z", false, "compress the tar file with gzip")
	f.StringVar(&o.format, "format", "tar", "tar, dir, vhdx, vhd or ntfs")
	f.BoolVar(&o.flatten, "flatten", false, "export the layer and all below it as one")
	f.Var(&o.size, "size", "size of a disk in `bytes`, or with k, m, g")
}

var diskFormats = map[string]disk.Format{"vhdx": disk.DynamicVHDX, "vhd": disk.DynamicVHD, "ntfs": disk.Raw}

func (o *layerExportOptions) run(ctx context.Context, a *app, ref string) error {
	format, isDisk := diskFormats[o.format]
	switch {
	case !isDisk && o.format != "tar" && o.format != "dir":
		return usage(fmt.Sprintf("format %q: use tar, dir, vhdx, vhd or ntfs", o.format))
	case o.format != "tar" && (o.output == "" || o.gzip):
		return usage(fmt.Sprintf("export: format %s needs --output, and is not compressed", o.format))
	case o.format == "tar" && !o.flatten:
		return o.exportOne(ctx, a, ref)
	}
	st, err := o.layersOf(ctx, a, ref)
	if err != nil {
		return err
	}
	return errors.Join(o.exportStack(ctx, a, st, ref, format), st.close())
}

// layersOf finds a layer, and with --flatten those below it.
func (o *layerExportOptions) layersOf(ctx context.Context, a *app, ref string) (*layerStack, error) {
	if o.flatten {
		return o.stack(ctx, a, ref)
	}
	l, err := o.open(ctx, a, ref)
	if err != nil {
		return nil, err
	}
	encoding, err := l.Detect()
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return &layerStack{encoding: encoding, single: l, close: l.close}, nil
}

func (o *layerExportOptions) exportStack(ctx context.Context, a *app, st *layerStack, ref string, format disk.Format) error {
	if st.encoding != layer.NT {
		if o.format != "tar" && o.format != "dir" {
			return fault(errdefs.ErrInvalidArgument, "export layer %s: it is none of Windows, and has no NTFS volume", ref)
		}
		return o.exportLinux(ctx, a, st, ref)
	}
	source := o.source(ctx, a, st, ref)
	switch o.format {
	case "tar":
		return o.tar(func(out io.Writer) error { return o.writeEntries(out, source) }, a.out)
	case "dir":
		opts, err := hcs.LayerOptions()
		if err != nil {
			return err
		}
		parents, err := o.parentDirs(st, ref)
		if err != nil {
			return err
		}
		return rootfs.WriteTransport(ctx, o.output, source, rootfs.TransportOptions{UserXattr: opts.UserXattr, Parents: parents})
	}
	return disk.CreateNTFS(ctx, o.output, "", disk.Options{Format: format, Size: int64(o.size)}, func(add disk.Adder) error {
		return source(func(e *layer.Entry, content io.Reader) error { return addToVolume(add, content, e) })
	})
}

// source gives the entries of a Windows layer, or of a stack of them as one.
func (o *layerExportOptions) source(ctx context.Context, a *app, st *layerStack, ref string) rootfs.EntrySource {
	if st.single == nil {
		return o.flat(ctx, a, st)
	}
	if st.single.dir != nil { // it has what a tar stream has no form for
		return func(emit rootfs.Emit) error { return rootfs.ExportLayer(ctx, ref, o.parents, emit) }
	}
	return func(emit rootfs.Emit) error {
		_, err := st.single.all(ctx, func(e *layer.Entry) error { return emit(e, st.single.Reader) })
		return err
	}
}

// parentDirs are the directories of the layers below one that is exported by
// itself, as far as they are known: a tar stream notes none.
func (o *layerExportOptions) parentDirs(st *layerStack, ref string) ([]string, error) {
	if o.flatten || len(o.parents) > 0 || st.single.dir == nil {
		return withNoted(slices.Clone(o.parents)), nil
	}
	l, err := rootfs.InspectLayer(ref)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return l.Parents, err
}

// addToVolume puts what is below Files into a volume.
func addToVolume(add disk.Adder, r io.Reader, e *layer.Entry) error {
	if e.NT == nil {
		return fault(errdefs.ErrInvalidArgument, "%q is no entry of a Windows layer", e.Name)
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

// tar calls write with the file that is to be written.
func (o *layerExportOptions) tar(write func(io.Writer) error, out io.Writer) error {
	if o.output == "" {
		return write(out)
	}
	f, err := os.OpenFile(o.output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("export layer: %w", err)
	}
	if err = errors.Join(write(f), f.Close()); err != nil {
		err = errors.Join(err, os.Remove(o.output))
	}
	return err
}

func (o *layerExportOptions) compression() layer.Compression {
	if o.gzip {
		return layer.Gzip
	}
	return layer.None
}

// writeEntries writes entries as a new layer.
func (o *layerExportOptions) writeEntries(out io.Writer, source rootfs.EntrySource) error {
	b, err := layer.CreateBlob(out, o.compression())
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // after Finish it does nothing
	if err := source(b.Write); err != nil {
		return fmt.Errorf("export layer: %w", err)
	}
	_, err = b.Finish()
	return err
}

// exportOne writes a layer as it is. It opens it first: for that the program
// may have to be started again, and would find its own output there.
func (o *layerExportOptions) exportOne(ctx context.Context, a *app, ref string) error {
	l, err := o.open(ctx, a, ref)
	if err != nil {
		return err
	}
	defer func() { _ = l.close() }() // read only
	return o.tar(func(out io.Writer) error { return o.write(ctx, l, ref, out) }, a.out)
}

func (o *layerExportOptions) write(ctx context.Context, l *layerStream, ref string, out io.Writer) error {
	b, err := layer.CreateBlob(out, o.compression())
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // after Finish it does nothing
	err = copyLayer(ctx, b, l)
	if made, ok := errors.AsType[*dirError](err); ok {
		return made.error
	}
	if err != nil {
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
		err = fault(errdefs.ErrDataLoss, "the copy has diffID %s, not %s", written.DiffID, diffID)
	}
	return err
}
