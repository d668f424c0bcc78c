package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/rootfs"
)

type layerCreateOptions struct {
	parents []string
	size    size
}

func newLayerCreate(a *app) *cobra.Command {
	var o layerCreateOptions
	c := &cobra.Command{
		Use:   "create [flags] --layer PARENT... DIR",
		Short: "Create a scratch layer, which takes what is written, on top of others",
		Long: `Create a scratch layer as a directory, which may exist and be empty. It takes what
is written into the tree that "hcs layer mount" makes of it and its parents: those
that are told and, behind the last of these, its own. It has no limit unless a size
is given. Then it is in a file system that mkfs.xfs of xfsprogs makes, which has
320 MiB at least.`,
		Args: takes(1, 1, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layerCreateOptions) addFlags(f *pflag.FlagSet) {
	addParents(f, &o.parents)
	f.Var(&o.size, "size", "size of the disk that limits what is written in `bytes`, or with k, m, g")
}

// addParents adds the flag of all that concerns several layers.
func addParents(f *pflag.FlagSet, parents *[]string) {
	f.StringArrayVarP(parents, "layer", "l", nil, "`directory` of a parent layer, the nearest first; behind the last come those that it notes")
}

func (o *layerCreateOptions) run(ctx context.Context, a *app, dir string) error {
	if len(o.parents) == 0 {
		return usage("create: name the parents with --layer")
	}
	a.tryRoot()
	_, err := rootfs.CreateScratchLayer(ctx, dir, o.parents, uint64(o.size))
	return err
}
