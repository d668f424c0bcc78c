package cli

import (
	"context"
	"io"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/rootfs"
)

// exportLinux unpacks Linux layers as one tree, and writes that as a layer if a
// tar file is wanted.
func (o *layerExportOptions) exportLinux(ctx context.Context, a *app, st *layerStack, ref string) error {
	layers := st.layers
	if st.single != nil {
		if ref == "-" {
			return fault(errdefs.ErrInvalidArgument, "export layer: a tree is made of a layer that is in a file or directory")
		}
		layers = []rootfs.LayerBlob{{Open: func(ctx context.Context) (io.ReadCloser, error) { return o.raw(ctx, a, ref) }}}
	}
	a.tryRoot()
	opts, err := hcs.LayerOptions()
	if err != nil {
		return err
	}
	tree := rootfs.TreeOptions{Owner: opts.Owner, Limits: a.config.Limits.Layer}
	if o.format == "dir" {
		_, err = rootfs.UnpackTree(ctx, o.output, layers, tree)
		return err
	}
	return o.tar(func(out io.Writer) error { return o.writeTree(ctx, out, layers, tree) }, a.out)
}

// writeTree writes what layers add up to as a new one.
func (o *layerExportOptions) writeTree(ctx context.Context, out io.Writer, layers []rootfs.LayerBlob, opts rootfs.TreeOptions) error {
	work := ""
	if o.output != "" {
		work = filepath.Dir(o.output)
	}
	return o.writeEntries(out, func(emit rootfs.Emit) error { return bundle.FlattenLinux(ctx, layers, work, opts, emit) })
}
