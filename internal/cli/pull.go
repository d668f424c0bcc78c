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

type imagePullOptions struct {
	registryOptions
	platform string
	limits   limitFlags
	quiet    bool
}

func newImagePull(a *app) *cobra.Command {
	var o imagePullOptions
	c := &cobra.Command{
		Use:   "pull [flags] NAME[:TAG][@DIGEST]...",
		Short: "Get images from registries",
		Long: `Get images from registries and unpack their layers.

What is here already is not fetched again, and a transfer that breaks off is
continued. Credentials are those of "docker login", if there are any. Layers that
the registry does not have are fetched from where the image says that they are.

Of several images for Windows the first in their list is taken, or the first of
the version that --platform tells, or begins.`,
		Example: `  hcs image pull debian:12
  hcs image pull --platform linux/arm64 localhost:5000/web
  hcs image pull --platform 'windows(10.0.20348)/amd64' mcr.example/windows/nanoserver`,
		Args: takes(1, -1, "an image"),
		RunE: a.withRegistries(func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) }),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imagePullOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.platform, "platform", "", "the one for `os[(version)]/arch[/variant]` of several")
	o.limits.addFlag(f)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only the name of what was pulled")
	o.registryOptions.addFlags(f)
}

func (o *imagePullOptions) run(ctx context.Context, a *app, names []string) error {
	ctx = a.signals.catch(ctx)
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	config, err := o.configuration(a)
	if err != nil {
		return err
	}
	a.config.Limits = o.limits.Limits
	h, err := a.host()
	if err != nil {
		return err
	}
	config.Have = h.Images()
	for _, name := range names {
		if err := o.pull(ctx, a, h, config, name, platform); err != nil {
			return fmt.Errorf("pull image %s: %w", name, err)
		}
	}
	return nil
}

func (o *imagePullOptions) pull(ctx context.Context, a *app, h *hcs.Host, config RegistryConfig, name string, platform v1.Platform) (err error) {
	ref, err := image.ParseRegistryRef(name)
	if err != nil {
		return err
	}
	src, img, err := a.openImage(ctx, h, ref, config, platform)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	p := a.newProgress(name, o.quiet)
	loaded, err := h.LoadFrom(ctx, src, img, storeName(ref), hcs.LoadOptions{Progress: p.show, Parallel: o.parallel, Resume: true})
	p.end()
	if err != nil {
		return err
	}
	a.printMoved("pulled", storeName(ref), loaded, o.quiet)
	return nil
}

// storeName is what an image of a registry is called in the store; one that
// was asked for by digest alone has no name.
func storeName(ref image.Ref) string {
	if ref.Tag == "" {
		return ""
	}
	return ref.Path + ":" + ref.Tag
}

// openImage opens an image wherever it is. The store's source is the store.
func (a *app) openImage(ctx context.Context, h *hcs.Host, ref image.Ref, config RegistryConfig, platform v1.Platform) (image.Source, *image.Image, error) {
	src, err := a.openSource(ctx, h, ref, config)
	if err != nil {
		return nil, nil, err
	}
	var img *image.Image
	if ref.Transport == image.TransportStore {
		img, err = h.Images().Image(ctx, ref.String())
	} else {
		img, err = image.ResolveWithin(ctx, src, ref.Selector(), platform, a.config.Limits.Image)
	}
	if err != nil {
		return nil, nil, errors.Join(err, src.Close())
	}
	return src, img, nil
}

// openSource opens the place that an image is in.
func (a *app) openSource(ctx context.Context, h *hcs.Host, ref image.Ref, config RegistryConfig) (image.Source, error) {
	switch ref.Transport {
	case image.TransportStore:
		return h.Images(), nil
	case image.TransportDocker:
		return a.registries.Open(ctx, ref, config)
	}
	return image.Open(ctx, ref)
}

func parsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return v1.Platform{}, nil
	}
	return image.ParsePlatform(s)
}

// printMoved tells what came to where.
func (a *app) printMoved(done, where string, img *image.Image, quiet bool) {
	if where == "" {
		where = img.ID().String()
	}
	if quiet {
		fmt.Fprintln(a.out, where)
		return
	}
	fmt.Fprintf(a.out, "%s %s: %s, %s, %s\n", done, where, plural(len(img.DiffIDs()), "layer"), humanSize(img.Size()), img.Descriptor.Digest)
}
