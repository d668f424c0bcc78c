package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
)

type imagePushOptions struct {
	registryOptions
	quiet bool
}

func newImagePush(a *app) *cobra.Command {
	var o imagePushOptions
	c := &cobra.Command{
		Use:   "push [flags] NAME [DESTINATION]",
		Short: "Put an image into a registry",
		Long: `Put an image into the registry that its name says, or into
DESTINATION, which is NAME[:TAG] with or without "docker://".

What the registry has already is not sent again, and what it has under another
name is taken from there.`,
		Example: `  hcs image push localhost:5000/web:1
  hcs image push web localhost:5000/web:1`,
		Args:              takes(1, 2, "an image"),
		RunE:              a.withRegistries(func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) }),
		ValidArgsFunction: a.completeImages,
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imagePushOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only the digest of what was pushed")
	o.addPushFlags(f)
}

func (o *imagePushOptions) run(ctx context.Context, a *app, args []string) error {
	ctx = a.signals.catch(ctx)
	name, destination := args[0], args[len(args)-1]
	config, err := o.configuration(a)
	if err != nil {
		return err
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	img, err := h.Images().Image(ctx, name)
	if err == nil {
		var ref image.Ref
		if ref, err = image.ParseRegistryRef(destination); err == nil {
			config.Mount = siblings(ctx, h.Images(), ref)
			err = a.push(ctx, h.Images(), img, ref, config, o.quiet)
		}
	}
	if err != nil {
		return fmt.Errorf("push image %s: %w", destination, err)
	}
	return nil
}

// push puts an image of any source into a registry.
func (a *app) push(ctx context.Context, src image.Source, img *image.Image, ref image.Ref, config RegistryConfig, quiet bool) error {
	err := a.send(ctx, ref, config, quiet, func(t image.Target) error { return t.Add(ctx, src, img, ref.Tag) })
	if err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(a.out, img.Descriptor.Digest)
		return nil
	}
	a.printMoved("pushed", ref.Path+":"+ref.Tag, img, false)
	return nil
}

// send puts what add adds into a registry.
func (a *app) send(ctx context.Context, ref image.Ref, config RegistryConfig, quiet bool, add func(image.Target) error) (err error) {
	p := a.newProgress(ref.Path+":"+ref.Tag, quiet)
	defer p.end()
	config.Progress = p.show
	t, err := a.registries.Create(ctx, ref, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := add(t); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// siblings returns what finds another name in ref's registry for a blob: that
// of an image of the store, which was probably pulled from or pushed to
// there.
func siblings(ctx context.Context, store *image.Store, ref image.Ref) func(digest.Digest) string {
	host, name := ref.Repository()
	known := map[digest.Digest]string{}
	images, _ := store.Images(ctx) // it is only a hint
	for _, img := range images {
		other, err := image.ParseRegistryRef(img.Name)
		if err != nil {
			continue
		}
		otherHost, otherName := other.Repository()
		if otherHost != host || otherName == name {
			continue
		}
		for _, l := range img.Manifest.Layers {
			known[l.Digest] = otherName
		}
	}
	return func(d digest.Digest) string { return known[d] }
}
