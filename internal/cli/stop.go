package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type stopOptions struct{ timeout float64 }

func newStop(a *app) *cobra.Command {
	var o stopOptions
	c := &cobra.Command{
		Use:               "stop [flags] CONTAINER...",
		Short:             "Ask containers to stop, and stop those that do not",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *stopOptions) addFlags(f *pflag.FlagSet) {
	f.SetNormalizeFunc(otherNames)
	f.Float64VarP(&o.timeout, "time", "t", 10, "`seconds` to wait before they are killed; with -1 they never are")
}

func (o *stopOptions) run(ctx context.Context, a *app, args []string) error {
	return a.each(ctx, args, func(ctx context.Context, c *container.System) error {
		if o.timeout < 0 {
			return c.Shutdown(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, time.Duration(o.timeout*float64(time.Second)))
		defer cancel()
		return c.Shutdown(ctx)
	})
}
