package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
)

type layoutRepackOptions struct {
	at       place
	history  historyFlags
	compress compressFlag

	masks                []string
	noMaskVolumes, renew bool
}

func newLayoutRepack(*app) *cobra.Command {
	var o layoutRepackOptions
	c := &cobra.Command{
		Use:   "repack --image DIR[:NEW-TAG] BUNDLE",
		Short: "repacks an OCI runtime bundle into a reference",
		Long: `Make a layer of what has changed in a bundle, and an image with it. The layout
must be the one that the bundle was unpacked from.`,
		Args: takes(1, 1, "the bundle"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), c, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layoutRepackOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringArrayVar(&o.masks, "mask-path", nil, "set of `path` prefixes in which deltas will be ignored when generating new layers")
	f.BoolVar(&o.noMaskVolumes, "no-mask-volumes", false, "do not add the Config.Volumes of the image to the set of masked paths")
	f.BoolVar(&o.renew, "refresh-bundle", false, "update the bundle metadata to reflect the packed rootfs")
	o.compress.addFlags(f)
	o.history.addFlags(f)
	o.at.addFlags(f)
}

func (o *layoutRepackOptions) run(ctx context.Context, c *cobra.Command, dir string) error {
	if err := o.at.parse(c); err != nil {
		return err
	}
	l, err := image.OpenLayout(o.at.dir)
	if err != nil {
		return err
	}
	opts := bundle.RepackOptions{
		Tag: o.at.tag, Compression: o.compress.value, Mask: o.masks, KeepVolumes: o.noMaskVolumes, Refresh: o.renew,
	}
	author, err := bundle.Author(ctx, l, dir)
	if err != nil {
		return err
	}
	if opts.History, err = o.history.entry(c, author); err != nil {
		return err
	}
	if opts.SourceDate, err = sourceDate(); err != nil {
		return err
	}
	_, err = bundle.Repack(ctx, l, dir, opts)
	return err
}
