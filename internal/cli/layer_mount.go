package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newLayerMount(a *app) *cobra.Command {
	var o rootfs.MountOptions
	c := &cobra.Command{
		Use:   "mount [flags] DIR [TARGET]",
		Short: "Make a layer and its parents one tree, and print where it is",
		Long: `Make a layer and its parents one tree, and print where it is: below the layer's
directory, or TARGET, a directory. What is written into that of a scratch layer
stays in the layer; that of another is read only. Without --layer the parents are
those that the layer notes. A layer that is mounted stays so. Of a Windows layer
the tree is what is below Files, the registry's hives as all layers make them.`,
		Args: takes(1, 2, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error {
			o.Target = second(args)
			return mountLayer(c.Context(), a, args[0], o)
		},
	}
	addParents(c.Flags(), &o.Parents)
	return c
}

// second returns the second argument, or "".
func second(args []string) string {
	return append(slices.Clone(args), "", "")[1]
}

func mountLayer(ctx context.Context, a *app, dir string, o rootfs.MountOptions) error {
	if err := mayMount(); err != nil {
		return fmt.Errorf("mount layer %s: %w", dir, err)
	}
	root, err := rootfs.MountLayer(ctx, dir, o)
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
	return fault(errdefs.ErrPermissionDenied, `only root can do that, or a shell of "hcs unshare"`)
}

func newLayerUnmount(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unmount DIR [TARGET]",
		Aliases: []string{"umount"},
		Short:   "Take the tree of a layer and its parents away again",
		Long: `Take the tree of a layer and its parents away again, from TARGET too. What was
written stays in a scratch layer. A layer that is in use stays mounted, and that is
an error; of one that is not mounted a warning is all.`,
		Args: takes(1, 2, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error {
			return unmountLayer(c.Context(), a, args[0], second(args))
		},
	}
}

func unmountLayer(ctx context.Context, a *app, dir, target string) error {
	if err := mayMount(); err != nil {
		return fmt.Errorf("unmount layer %s: %w", dir, err)
	}
	err := rootfs.UnmountLayer(ctx, dir, target)
	if errors.Is(err, rootfs.ErrNotActive) {
		a.warn(sentence(err))
		return nil
	}
	return err
}
