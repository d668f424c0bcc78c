package cli

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type removeOptions struct{ force bool }

func newRemove(a *app) *cobra.Command {
	var o removeOptions
	c := &cobra.Command{
		Use:               "rm [flags] CONTAINER...",
		Short:             "Remove containers, and what they have written",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *removeOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.force, "force", "f", false, "kill those that run; that there is none is no failure")
	grant(f, "volumes", "v", granted{is: []string{"true", "false"}}) // there are none, and directories that were mounted stay
}

func (o *removeOptions) run(ctx context.Context, a *app, args []string) error {
	return a.eachName(ctx, args, func(ctx context.Context, s *container.Service, ref string) error {
		c, err := s.Open(ctx, ref)
		if o.force && errdefs.IsDataLoss(err) {
			return s.Discard(ctx, ref)
		}
		if o.force && isGone(err) {
			a.warn(sentence(err))
			return errUnsaid
		}
		if err != nil {
			return err
		}
		defer c.Close()
		return o.remove(ctx, c)
	})
}

func (o *removeOptions) remove(ctx context.Context, c *container.System) error {
	if o.force {
		if err := c.Terminate(ctx); err != nil {
			return err
		}
	} else if st, err := c.Status(ctx); err == nil && isRunning(st) {
		return fault(errdefs.ErrFailedPrecondition, "remove container %s: it is %s: stop it first, or use --force", c.Name(), st.State)
	}
	err := c.Delete(ctx)
	if isGone(err) && c.Record().Spec.Ephemeral {
		return nil // it went by itself when it stopped
	}
	return err
}
