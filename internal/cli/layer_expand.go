package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/rootfs"
)

func newLayerExpand(a *app) *cobra.Command {
	var to size
	c := &cobra.Command{
		Use:   "expand --size BYTES DIR|DISK",
		Short: "Give a scratch layer, or a disk with a layer, more room",
		Long: `Give a scratch layer room for so many bytes, mounted or not. One that has no
limit gets it so, which is only possible before anything is written.

A disk that "hcs layer export" has made, or a differencing one on it, is so large
then, and so are its last partition and the NTFS volume there. That needs ntfsresize
of ntfs-3g. Nobody may use the disk meanwhile.`,
		Args: takes(1, 1, "the layer's directory, or a disk"),
		RunE: func(c *cobra.Command, args []string) error { return expandLayer(c.Context(), a, args[0], to) },
	}
	c.Flags().Var(&to, "size", "size of the disk that limits what is written in `bytes`, or with k, m, g")
	return c
}

func expandLayer(ctx context.Context, a *app, dir string, to size) error {
	if to == 0 {
		return usage("expand: name the new size with --size")
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().IsRegular() {
		return disk.GrowNTFS(ctx, dir, int64(to), disk.FileOptions{})
	}
	a.tryRoot()
	v, err := rootfs.OpenScratchLayer(ctx, dir)
	if err != nil {
		return err
	}
	return v.Grow(ctx, uint64(to))
}
