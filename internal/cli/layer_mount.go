package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newLayerMount(a *app) *cobra.Command {
	var parents []string
	c := &cobra.Command{
		Use:   "mount [flags] DIR",
		Short: "Make a scratch layer and its parents one tree, and print where it is",
		Long: `Make a scratch layer and its parents one tree, and print where it is. Without
--layer its parents are those that it was created with. A layer that is mounted
stays so.`,
		Args: takes(1, 1, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error { return mountLayer(c.Context(), a, args[0], parents) },
	}
	addParents(c.Flags(), &parents)
	return c
}

func mountLayer(ctx context.Context, a *app, dir string, parents []string) error {
	if err := mayMount(); err != nil {
		return fmt.Errorf("mount layer %s: %w", dir, err)
	}
	root, err := rootfs.MountLayer(ctx, dir, parents)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, root)
	return nil
}

// mayMount refuses ordinary users, whose mounts would end with the command.
func mayMount() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &classed{errors.New(`only root can do that, or a shell of "hcs unshare"`), errdefs.ErrPermissionDenied}
}

func newLayerUnmount(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unmount DIR",
		Aliases: []string{"umount"},
		Short:   "Take the tree of a scratch layer and its parents away again",
		Long: `Take the tree of a scratch layer and its parents away again. What was written
stays in the layer. A layer that is in use stays mounted, and that is an error;
of one that is not mounted a warning is all.`,
		Args: takes(1, 1, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error { return unmountLayer(c.Context(), a, args[0]) },
	}
}

func unmountLayer(ctx context.Context, a *app, dir string) error {
	if err := mayMount(); err != nil {
		return fmt.Errorf("unmount layer %s: %w", dir, err)
	}
	err := rootfs.UnmountLayer(ctx, dir)
	if errors.Is(err, rootfs.ErrNotActive) {
		a.warn(sentence(err))
		return nil
	}
	return err
}
