package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

type createOptions struct{ containerOptions }

func newCreate(a *app) *cobra.Command {
	var o createOptions
	c := &cobra.Command{
		Use:               "create [flags] IMAGE [COMMAND [ARG...]]",
		Short:             "Make a container that does not run yet",
		Args:              o.takes,
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeRun,
	}
	o.addFlags(c.Flags())
	_ = c.Flags().MarkHidden("detach") // it has nothing to be detached from
	return c
}

func (o *createOptions) run(ctx context.Context, a *app, args []string) error {
	if err := a.becomeRoot(); err != nil {
		return err
	}
	ctx = a.signals.catch(ctx)
	spec, err := o.spec(args)
	if err != nil {
		return err
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	c, err := o.make(ctx, a, h, spec)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, c.ID())
	return c.Close()
}
