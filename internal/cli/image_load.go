package cli

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/image"
)

type imageLoadOptions struct {
	name, platform, input string
	quiet                 bool
	limits                limitFlags
}

func newImageLoad(a *app) *cobra.Command {
	var o imageLoadOptions
	c := &cobra.Command{
		Use:   "load [flags] SOURCE...",
		Short: "Load images from layouts and archives",
		Long: `Load images and unpack their layers.

SOURCE is oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME].
With --input it is an archive of either kind.`,
		Example: `  hcs image load oci:layouts/debian:12
  hcs image load --name web oci-archive:web.tar`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageLoadOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.name, "name", "", "`name` of the image; else it keeps its own, or is called after where it comes from")
	f.StringVar(&o.platform, "platform", "", "the one for `os[(version)]/arch[/variant]` of several")
	f.StringVarP(&o.input, "input", "i", "", "load from an archive `file`")
	o.limits.addFlag(f)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only the name of what was loaded")
}

func (o *imageLoadOptions) run(ctx context.Context, a *app, sources []string) error {
	ctx = a.signals.catch(ctx)
	if o.input != "" {
		ref, err := archiveRef(ctx, o.input)
		if err != nil {
			return err
		}
		sources = append(sources, ref)
	}
	switch {
	case len(sources) == 0:
		return usage("image load: say from where, as in oci:DIR:TAG")
	case len(sources) > 1 && o.name != "":
		return usage("image load: only one image can have the name " + o.name)
	}
	var platform v1.Platform
	if o.platform != "" {
		var err error
		if platform, err = image.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	a.config.Limits = o.limits.Limits
	h, err := a.host()
	if err != nil {
		return err
	}
	for _, source := range sources {
		p := a.newProgress(source, o.quiet)
		img, err := h.Load(ctx, source, hcs.LoadOptions{Name: o.name, Platform: platform, Progress: p.show})
		p.end()
		if err != nil {
			return err
		}
		a.printLoaded(img, o.quiet)
	}
	return nil
}

func (a *app) printLoaded(img *image.Image, quiet bool) {
	if quiet {
		fmt.Fprintln(a.out, img.Name)
		return
	}
	fmt.Fprintf(a.out, "loaded %s: %s, %s\n", img.Name, plural(len(img.DiffIDs()), "layer"), humanSize(img.Size()))
}

// archiveRef says which kind of archive a file is. Some are both: docker's own
// part of those says more, the images' names.
func archiveRef(ctx context.Context, file string) (string, error) {
	var errs []error
	for _, transport := range []string{image.TransportDockerArchive, image.TransportOCIArchive} {
		src, err := image.Open(ctx, image.Ref{Transport: transport, Path: file})
		if err == nil {
			return transport + ":" + file, src.Close()
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
