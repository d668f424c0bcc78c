package cli

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newLayerRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove LAYER...",
		Aliases: []string{"rm"},
		Short:   "Remove layers: their directories, or by diffID from the local store",
		Long: `Remove the directories of layers, read-only ones and scratch layers, or, by diffID,
layers that the local store has unpacked. What is mounted, or below what is, stays,
and that is an error. What is not there is none.`,
		Args: takes(1, -1, "a layer"),
		RunE: func(c *cobra.Command, args []string) error { return a.removeLayers(c.Context(), args) },
	}
}

func (a *app) removeLayers(ctx context.Context, args []string) error {
	errs := make([]error, len(args))
	for i, ref := range args {
		if id, err := digest.Parse(ref); err == nil {
			errs[i] = a.removeStored(ctx, id)
			continue
		}
		a.tryRoot()
		errs[i] = removeLayerDir(ctx, ref)
	}
	return joined(errs)
}

func (a *app) removeStored(ctx context.Context, id digest.Digest) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	return h.Layers().Remove(ctx, id)
}

// removeLayerDir removes a directory that has the marks of a layer, or is
// empty, and no other.
func removeLayerDir(ctx context.Context, dir string) error {
	_, err := rootfs.InspectLayer(dir)
	if errdefs.IsNotFound(err) {
		if _, err := os.Lstat(dir); os.IsNotExist(err) {
			return nil
		}
		if os.Remove(dir) == nil { // it was empty: who made it was killed, or made it for a layer
			return nil
		}
		return fault(errdefs.ErrInvalidArgument, "remove layer %s: it is none", dir)
	}
	if err != nil && !errdefs.IsDataLoss(err) {
		return err
	}
	return rootfs.RemoveUnused(ctx, dir)
}
