package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
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
With --input it is an archive of either kind, or, without a SOURCE, one on
standard input.`,
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
	switch {
	case o.input == "-" || o.input == "" && len(sources) == 0:
		return o.loadStream(ctx, a, sources)
	case o.input != "":
		ref, err := archiveRef(ctx, o.input)
		if err != nil {
			return err
		}
		sources = append(sources, ref)
	}
	return o.load(ctx, a, sources)
}

// loadStream loads an archive from standard input, too. Its files are read in no order: it is kept meanwhile.
func (o *imageLoadOptions) loadStream(ctx context.Context, a *app, sources []string) error {
	if isTerminal(a.in) {
		return usage("image load: say from where, as in oci:DIR:TAG, or give an archive on standard input")
	}
	return withArchive(ctx, func(file string) error {
		if err := copyFrom(a.in, file); err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		ref, err := archiveRef(ctx, file)
		if err != nil {
			return fault(errdefs.ErrInvalidArgument, "load image: what standard input has is no archive of an image")
		}
		return o.load(ctx, a, append(sources, ref))
	})
}

func copyFrom(from io.Reader, file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

func (o *imageLoadOptions) load(ctx context.Context, a *app, sources []string) error {
	if len(sources) > 1 && o.name != "" {
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
