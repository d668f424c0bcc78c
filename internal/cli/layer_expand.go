package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newLayerExpand(a *app) *cobra.Command {
	var to size
	c := &cobra.Command{
		Use:   "expand --size BYTES DIR",
		Short: "Give a scratch layer more room",
		Long: `Give a scratch layer room for so many bytes, mounted or not. One that has no
limit gets it so, which is only possible before anything is written.`,
		Args: takes(1, 1, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error { return expandLayer(c.Context(), a, args[0], to) },
	}
	c.Flags().Var(&to, "size", "size of the disk that limits what is written in `bytes`, or with k, m, g")
	return c
}

func expandLayer(ctx context.Context, a *app, dir string, to size) error {
	if to == 0 {
		return usage("expand: name the new size with --size")
	}
	a.tryRoot()
	v, err := rootfs.OpenScratchLayer(ctx, dir)
	if err != nil {
		return err
	}
	return v.Grow(ctx, uint64(to))
}
