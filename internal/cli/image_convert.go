package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
)

type layoutRewriteOptions struct {
	at       place
	tag      newTag
	compress compressFlag
	history  historyFlags
	reading  readingFlags
}

func newLayoutConvert(*app) *cobra.Command {
	var o layoutRewriteOptions
	c := &cobra.Command{
		Use:   "convert --image DIR[:TAG] --compress none|gzip|zstd [--tag NEW-TAG]",
		Short: "compress the layers of an image anew, and change nothing else",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.compress.value == nil {
				return usageError(c, "say how, with --compress=none, gzip or zstd")
			}
			return o.run(c.Context(), c, func(ctx context.Context, l *image.Layout, img *image.Image, e *image.Edit) error {
				return bundle.Convert(ctx, l, img, e, *o.compress.value)
			})
		},
	}
	f := c.Flags()
	o.tag.addFlags(f)
	o.compress.addFlags(f)
	o.at.addPlatform(f)
	return c
}

func newLayoutFlatten(a *app) *cobra.Command {
	var o layoutRewriteOptions
	c := &cobra.Command{
		Use:     "flatten --image DIR[:TAG] [--tag NEW-TAG]",
		Aliases: []string{"squash"},
		Short:   "make the layers of an image one",
		Long: `Make the layers of an image one. That of an image for Windows is a base layer:
what the layers change in the registry is in its hives.`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return o.run(c.Context(), c, func(ctx context.Context, l *image.Layout, img *image.Image, e *image.Edit) error {
				h, err := o.history.entry(c, e.Config.Author)
				if err != nil {
					return err
				}
				return bundle.Squash(ctx, l, img, e, bundle.SquashOptions{
					Compression: o.compress.of(e), Work: os.TempDir(), History: h, Reading: o.reading.reading(a),
				})
			})
		},
	}
	f := c.Flags()
	o.tag.addFlags(f)
	o.compress.addFlags(f)
	o.history.addFlags(f)
	o.reading.addFlags(f)
	o.at.addPlatform(f)
	return c
}

func (o *layoutRewriteOptions) run(ctx context.Context, c *cobra.Command, change func(context.Context, *image.Layout, *image.Image, *image.Edit) error) error {
	l, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	e, err := l.Edit(ctx, img)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := change(ctx, l, img, e); err != nil {
		return err
	}
	_, err = e.Commit(ctx, o.tag.or(o.at.tag))
	return err
}
