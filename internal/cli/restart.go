package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/container"
)

func newRestart(a *app) *cobra.Command {
	var o stopOptions
	c := &cobra.Command{
		Use:               "restart [flags] CONTAINER...",
		Short:             "Stop containers as stop does, and start them",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.restart(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *stopOptions) restart(ctx context.Context, a *app, args []string) error {
	sig, err := o.parse()
	if err != nil {
		return err
	}
	return a.each(ctx, args, func(ctx context.Context, c *container.System) error {
		if err := o.stop(ctx, c, sig); err != nil {
			return err
		}
		return a.startIdle(ctx, c, stdio{detached: true})
	})
}
