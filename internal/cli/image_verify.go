package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/image"
)

func newImageVerify(a *app) *cobra.Command {
	var platform string
	c := &cobra.Command{
		Use:   "verify IMAGE...",
		Short: "Read images to the last byte, and check every digest",
		Long: `Read all of an image: manifest, configuration and layers, each held against its
digest and size, and the layers' content against the diffIDs. An image is a name
of the local store, or a place as in oci:DIR:TAG.`,
		Args: takes(1, -1, "an image"),
		RunE: func(c *cobra.Command, args []string) error {
			errs := make([]error, len(args))
			for i, arg := range args {
				if errs[i] = a.verify(c.Context(), arg, platform); errs[i] == nil {
					fmt.Fprintln(a.out, arg)
				}
			}
			return joined(errs)
		},
		ValidArgsFunction: a.completeImages,
	}
	c.Flags().StringVar(&platform, "platform", "", "only one image of several, `OS[(VERSION)]/ARCH[/VARIANT]` (default: all that there is under the tag)")
	return c
}

func (a *app) verify(ctx context.Context, arg, platform string) error {
	ref, err := image.ParseRef(arg)
	if err == nil && platform == "" && ref.Transport != image.TransportStore {
		return verifyAll(ctx, ref)
	}
	p, err := parsePlatform(platform)
	if err != nil {
		return err
	}
	src, img, err := a.anyImage(ctx, arg, p, image.Limits{})
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // read only
	if err := image.Verify(ctx, src, img); err != nil {
		return fmt.Errorf("verify image %q: %w", arg, err)
	}
	return nil
}

// verifyAll reads all that there is under a tag: the images for all platforms.
func verifyAll(ctx context.Context, ref image.Ref) error {
	src, err := image.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // read only
	tree, err := image.ReadTree(ctx, src, ref.Selector())
	if err == nil {
		err = tree.Verify(ctx, src)
	}
	if err != nil {
		return fmt.Errorf("verify image %q: %w", ref, err)
	}
	return nil
}
