package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
)

type imageSaveOptions struct{ output string }

func newImageSave(a *app) *cobra.Command {
	var o imageSaveOptions
	c := &cobra.Command{
		Use:   "save [flags] NAME [TARGET]",
		Short: "Write an image to a layout or an archive",
		Long: `Write an image to oci:DIR[:TAG], oci-archive:FILE[:TAG] or
docker-archive:FILE[:NAME]. With --output it is a docker archive.`,
		Args:              takes(1, 2, "an image"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeImages,
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageSaveOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.output, "output", "o", "", "write a docker archive to `file`")
}

func (o *imageSaveOptions) run(ctx context.Context, a *app, args []string) error {
	ctx = a.signals.catch(ctx)
	if (len(args) == 2) == (o.output != "") {
		return usage("image save: say where to, as in oci:DIR:TAG, or with --output")
	}
	target := image.TransportDockerArchive + ":" + o.output
	if len(args) == 2 {
		target = args[1]
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	return h.Save(ctx, args[0], target)
}
