package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

type layerImportOptions struct {
	layerSource
	input string
	below []string
}

func newLayerImport(a *app) *cobra.Command {
	var o layerImportOptions
	c := &cobra.Command{
		Use:   "import [flags] DIR",
		Short: "Make a layer's directory of a tar stream, or of another layer",
		Long: `Make a layer's directory, which may exist and be empty, of a tar stream, compressed
or not, or of a transport folder, as Windows' ExportLayer makes it. A layer that is not whole leaves nothing. A Windows layer needs its parents
for hard links to their files and for the case of names; "hcs layer export" gives
back what was imported, byte for byte.

The input is a LAYER. ` + layerUsage,
		Args: takes(1, 1, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	if a.called == "wclayer" {
		o.os = "windows"
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layerImportOptions) addFlags(f *pflag.FlagSet) {
	o.layerSource.addFlags(f)
	f.StringVarP(&o.input, "input", "i", "-", "`LAYER` to import")
	addParents(f, &o.below)
}

func (o *layerImportOptions) run(ctx context.Context, a *app, dir string) error {
	a.tryRoot()
	opts, err := hcs.LayerOptions()
	if err != nil {
		return err
	}
	if err := o.likeParents(); err != nil {
		return err
	}
	if _, err := rootfs.InspectLayer(o.input); err != nil && rootfs.IsTransport(o.input) {
		_, err := rootfs.ImportTransport(ctx, dir, o.below, o.input, opts)
		return err
	}
	l, err := o.open(ctx, a, o.input)
	if err != nil {
		return err
	}
	opts.DiffID = l.finish
	_, err = rootfs.ImportLayer(ctx, dir, o.below, l.Reader, opts)
	return errors.Join(err, l.close())
}

// likeParents takes a bare file to be for the system that its parents are for.
func (o *layerImportOptions) likeParents() error {
	if o.os != "" || len(o.below) == 0 {
		return nil
	}
	parent, err := rootfs.InspectLayer(o.below[0])
	if err != nil {
		return err
	}
	if o.os = "linux"; parent.Encoding == layer.NT {
		o.os = "windows"
	}
	return nil
}
