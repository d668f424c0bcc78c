package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/image"
)

type commitOptions struct {
	message, author string
	changes         []string
}

func newCommit(a *app) *cobra.Command {
	var o commitOptions
	c := &cobra.Command{
		Use:   "commit [flags] CONTAINER [NAME]",
		Short: "Make an image of what a container has written",
		Long: `Make an image of a container's image and what the container has written.

NAME is the new image's name, or where to write it instead: oci:DIR[:TAG],
oci-archive:FILE[:TAG], docker-archive:FILE[:NAME].`,
		Args:              takes(1, 2, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *commitOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.message, "message", "m", "", "`text` for the image's history")
	f.StringVarP(&o.author, "author", "a", "", "`name` for the image's history")
	f.StringArrayVarP(&o.changes, "change", "c", nil, "change the image's `setting`, as in CMD [\"sh\"] or ENV A=B")
	grant(f, "pause", "p", granted{is: yes})
}

func (o *commitOptions) run(ctx context.Context, a *app, args []string) error {
	ctx = a.signals.catch(ctx)
	opts := hcs.CommitOptions{Comment: o.message, Author: o.author}
	var to image.Ref
	if len(args) == 2 {
		var err error
		if to, err = image.ParseRef(args[1]); err != nil {
			return err
		}
		if to.Transport == image.TransportStore {
			opts.Name = args[1]
		}
	}
	var err error
	if opts.Edit, err = changes(o.changes); err != nil {
		return err
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	c, err := h.Containers().Open(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	img, err := h.Commit(ctx, c, opts)
	if err != nil {
		return err
	}
	if to.Transport != image.TransportStore {
		err = moveOut(ctx, h, img, args[1])
	}
	if err == nil {
		fmt.Fprintln(a.out, img.ID())
	}
	return err
}

// moveOut writes an image that has no name elsewhere, and keeps it no longer.
func moveOut(ctx context.Context, h *hcs.Host, img *image.Image, ref string) error {
	id := img.ID().String()
	err := h.Save(ctx, id, ref)
	_, rerr := h.RemoveImage(context.WithoutCancel(ctx), id)
	return errors.Join(err, rerr)
}
