package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/rootfs"
)

type layoutUnpackOptions struct {
	at           place
	mappings     mappingFlags
	keepDirlinks bool
	mount        bool
	limits       limitFlags
	reading      readingFlags
}

func newLayoutUnpack(a *app) *cobra.Command {
	var o layoutUnpackOptions
	c := &cobra.Command{
		Use:   "unpack --image DIR[:TAG] BUNDLE",
		Short: "unpacks a reference into an OCI runtime bundle",
		Long: `Unpack an image into a bundle for an OCI runtime, with what "repack" needs to
make a layer of the changes.

With --mount nothing is copied: the bundle's root is an overlay mount of the
image's layers, which are unpacked once for all bundles. "unmount" takes such a
bundle away. Only root can do that, or a shell of "hcs unshare", with which the
mount goes.

Of an image for Windows, rootfs is what drive C: holds. What Windows keeps of a
file beside its content is in an extended attribute of it, so that "repack" can
tell what was changed. Hives holds the registry as it is in the image (not with
--mount, where the layers have it): edit the hives in
rootfs/Windows/System32/config, and "repack" makes a delta of them.`,
		Args: takes(1, 1, "the bundle"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, c, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layoutUnpackOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVar(&o.keepDirlinks, "keep-dirlinks", false, "don't clobber underlying symlinks to directories")
	o.mappings.addFlags(f)
	f.BoolVar(&o.mount, "mount", false, "mount the layers instead of copying them")
	o.at.addPlatform(f)
	o.reading.addFlags(f)
	o.limits.addFlag(f)
}

func (o *layoutUnpackOptions) run(ctx context.Context, a *app, c *cobra.Command, dir string) error {
	mappings, err := o.mappings.parse()
	if err != nil {
		return err
	}
	if o.mount && (mappings.Rootless || mappings.UIDs != nil || mappings.GIDs != nil || o.keepDirlinks || o.reading.strict) {
		return usageError(c, "--mount takes neither mappings nor --keep-dirlinks nor --strict")
	}
	o.at.limits = o.limits.Image
	l, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	if o.mount {
		return o.runMount(ctx, a, l, img, dir)
	}
	r := o.reading.reading(a)
	return bundle.Unpack(ctx, l, img, dir, bundle.UnpackOptions{
		Mappings: mappings, KeepDirlinks: o.keepDirlinks, Limits: o.limits.Layer, Strict: r.Strict, Warn: r.Warn,
	})
}

func (o *layoutUnpackOptions) runMount(ctx context.Context, a *app, l *image.Layout, img *image.Image, dir string) error {
	if err := mayMount(); err != nil {
		return fmt.Errorf("mount image as bundle %s: %w", dir, err)
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	layers, err := hcs.LayerOptions()
	if err != nil {
		return err
	}
	return bundle.Mount(ctx, l, img, dir, rootfs.Config{
		Dir: filepath.Join(h.Config().Root, "bundles"), Limits: o.limits.Layer,
		UserXattr: bool(layers.UserXattr), Owner: layers.Owner, Logger: h.Config().Logger,
	})
}

func newLayoutUnmount(*app) *cobra.Command {
	return &cobra.Command{
		Use:   "unmount BUNDLE",
		Short: "Take away a bundle that was unpacked with --mount, and what was written into it",
		Args:  takes(1, 1, "the bundle"),
		RunE:  func(c *cobra.Command, args []string) error { return bundle.Unmount(c.Context(), args[0]) },
	}
}
