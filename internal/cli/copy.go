package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/image"
)

type imageCopyOptions struct {
	registryOptions
	platform   string
	all, quiet bool
}

func newImageCopy(a *app) *cobra.Command {
	var o imageCopyOptions
	c := &cobra.Command{
		Use:   "copy [flags] SOURCE DESTINATION",
		Short: "Copy an image from anywhere to anywhere",
		Long: `Copy an image as it is, so that it keeps its digest.

SOURCE and DESTINATION are docker://NAME[:TAG] for a registry, oci:DIR[:TAG],
oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], or NAME[:TAG] for this
machine's store.`,
		Example: `  hcs image copy docker://debian:12 oci:layouts/debian:12
  hcs image copy --all oci:layouts/web docker://localhost:5000/web
  hcs image copy docker://localhost:5000/web docker://localhost:5001/web`,
		Args: takes(2, 2, "where the image is, and where it is to be"),
		RunE: a.withRegistries(func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1]) }),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageCopyOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.all, "all", "a", false, "copy the images for all platforms, and the index that lists them")
	f.StringVar(&o.platform, "platform", "", "the one for `os[(version)]/arch[/variant]` of several")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing but the digest of what was copied")
	o.addPushFlags(f)
}

func (o *imageCopyOptions) run(ctx context.Context, a *app, source, destination string) error {
	ctx = a.signals.catch(ctx)
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	if o.all && o.platform != "" {
		return usage("image copy: it is --all, or the one for a --platform")
	}
	from, err := image.ParseRef(source)
	if err != nil {
		return err
	}
	to, err := image.ParseRef(destination)
	if err != nil {
		return err
	}
	config, err := o.configuration(a)
	if err != nil {
		return err
	}
	var h *hcs.Host // only where the store has a part in it
	if from.Transport == image.TransportStore || to.Transport == image.TransportStore {
		if h, err = a.host(); err != nil {
			return err
		}
		config.Have = h.Images()
	}
	if o.all {
		err = o.copyAll(ctx, a, h, from, to, config)
	} else {
		err = o.copy(ctx, a, h, from, to, config, platform)
	}
	if err != nil {
		return fmt.Errorf("copy image %s to %s: %w", source, destination, err)
	}
	return nil
}

func (o *imageCopyOptions) copy(ctx context.Context, a *app, h *hcs.Host, from, to image.Ref, config RegistryConfig, platform v1.Platform) (err error) {
	p := o.watch(a, from, to, &config)
	defer p.end()
	src, img, err := a.openImage(ctx, h, from, config, platform)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	switch to.Transport {
	case image.TransportDocker:
		config.Mount = mountFrom(from, to)
		return a.push(ctx, src, img, to, config, o.quiet)
	case image.TransportStore:
		_, err = h.LoadFrom(ctx, src, img, to.String(), hcs.LoadOptions{Progress: p.show, Parallel: o.parallel})
	default:
		err = image.Copy(ctx, src, img, to)
	}
	if err != nil {
		return err
	}
	p.end()
	if o.quiet {
		fmt.Fprintln(a.out, img.Descriptor.Digest)
		return nil
	}
	a.printMoved("copied", to.String(), img, false)
	return nil
}

// watch returns what shows how far a copy is. Of two ends the one that writes
// tells, if it can: layouts and archives leave it to where they get blobs from.
func (o *imageCopyOptions) watch(a *app, from, to image.Ref, config *RegistryConfig) *progress {
	p := a.newProgress(to.String(), o.quiet || to.Transport == image.TransportDocker) // which has its own
	if from.Transport == image.TransportDocker && to.Transport != image.TransportDocker && to.Transport != image.TransportStore {
		config.Progress = p.show
	}
	return p
}

// copyAll copies what a tag stands for, whatever that is.
func (o *imageCopyOptions) copyAll(ctx context.Context, a *app, h *hcs.Host, from, to image.Ref, config RegistryConfig) (err error) {
	if to.Transport == image.TransportStore {
		return usage("image copy: the store has each image for one platform; copy --all to a layout")
	}
	p := o.watch(a, from, to, &config)
	defer p.end()
	src, err := a.openSource(ctx, h, from, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	selector := from.Selector()
	if from.Transport == image.TransportStore {
		selector = from.String()
	}
	tree, err := image.ReadTree(ctx, src, selector)
	if err != nil {
		return err
	}
	if to.Transport == image.TransportDocker {
		config.Mount = mountFrom(from, to)
		err = a.send(ctx, to, config, o.quiet, func(t image.Target) error { return t.AddTree(ctx, src, tree, to.Tag) })
	} else {
		err = image.CopyTree(ctx, src, tree, to)
	}
	if err != nil {
		return err
	}
	p.end()
	root := tree.Root().Descriptor.Digest
	if o.quiet {
		fmt.Fprintln(a.out, root)
		return nil
	}
	fmt.Fprintf(a.out, "copied %s: %s, %s, %s\n", to, plural(len(tree.Nodes), "manifest"), humanSize(tree.Size()), root)
	return nil
}

// mountFrom names the source's repository for all blobs if it is in the same
// registry.
func mountFrom(from, to image.Ref) func(digest.Digest) string {
	if from.Transport != image.TransportDocker {
		return nil
	}
	host, name := from.Repository()
	if other, _ := to.Repository(); other != host {
		return nil
	}
	return func(digest.Digest) string { return name }
}
