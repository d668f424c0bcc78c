package cli

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

func newImageRemove(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "rm [flags] NAME...",
		Short:             "Remove images by name or id",
		Args:              takes(1, -1, "an image"),
		RunE:              func(c *cobra.Command, args []string) error { return a.removeImages(c.Context(), args, force) },
		ValidArgsFunction: a.completeImages,
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not mind what is not there")
	return c
}

func (a *app) removeImages(ctx context.Context, args []string, force bool) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	errs := make([]error, len(args))
	for i, ref := range args {
		removed, err := h.RemoveImage(ctx, ref)
		for _, name := range removed.Names {
			fmt.Fprintln(a.out, "untagged", name)
		}
		for _, d := range removed.Images {
			fmt.Fprintln(a.out, "removed", d)
		}
		if !force || !errdefs.IsNotFound(err) {
			errs[i] = err
		}
	}
	return joined(errs)
}
