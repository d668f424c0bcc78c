package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type imageInspectOptions struct{ format string }

func newImageInspect(a *app) *cobra.Command {
	var o imageInspectOptions
	c := &cobra.Command{
		Use:               "inspect [flags] NAME...",
		Short:             "Show images' manifests and configurations, as JSON",
		Args:              takes(1, -1, "an image"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeImages,
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageInspectOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.format, "format", "f", "json", "json or a Go `template`")
}

func (o *imageInspectOptions) run(ctx context.Context, a *app, args []string) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	var views []imageView
	var errs []error
	for _, ref := range args {
		img, err := h.Images().Image(ctx, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		views = append(views, newImageView(img))
	}
	return joined(append(errs, inspect(a.out, o.format, views)))
}
