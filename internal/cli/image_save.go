package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/temporary"
)

type imageSaveOptions struct{ output string }

func newImageSave(a *app) *cobra.Command {
	var o imageSaveOptions
	c := &cobra.Command{
		Use:   "save [flags] NAME [TARGET]",
		Short: "Write an image to a layout or an archive",
		Long: `Write an image to oci:DIR[:TAG], oci-archive:FILE[:TAG] or
docker-archive:FILE[:NAME]. With --output, or without a TARGET on standard
output, it is a docker archive.`,
		Example:           `  hcs save web | ssh host hcs load`,
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
	stream := len(args) == 1 && o.output == ""
	switch {
	case stream && isTerminal(a.out):
		return usage("image save: the stream is not for a terminal: use a pipe, --output, or say where to, as in oci:DIR:TAG")
	case len(args) == 2 && o.output != "":
		return usage(fmt.Sprintf("image save: %q or --output: one image goes to one place", args[1]))
	}
	target := image.TransportDockerArchive + ":" + o.output
	if len(args) == 2 {
		target = args[1]
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	if stream {
		return withArchive(ctx, func(file string) error {
			if err := h.Save(ctx, args[0], image.TransportDockerArchive+":"+file); err != nil {
				return err
			}
			return copyTo(a.out, file)
		})
	}
	return h.Save(ctx, args[0], target)
}

// withArchive has use make or read an archive that is nobody else's, and takes it away.
func withArchive(ctx context.Context, use func(file string) error) (err error) {
	dir, err := temporary.New(ctx, temporary.Config{Prefix: "hcs-archive-"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Remove()) }()
	return use(dir.Path("archive.tar"))
}

func copyTo(to io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}
