package cli

import (
	"context"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

const sigKill = syscall.Signal(9) // Linux's, wherever this runs

type killOptions struct{ signal string }

func newKill(a *app) *cobra.Command {
	var o killOptions
	c := &cobra.Command{
		Use:               "kill [flags] CONTAINER...",
		Short:             "Kill containers, or send their commands a signal",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *killOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.signal, "signal", "s", "KILL", "`signal`, by name or number")
}

func (o *killOptions) run(ctx context.Context, a *app, args []string) error {
	sig, err := container.ParseSignal(o.signal)
	if err != nil {
		return err
	}
	return a.each(ctx, args, func(ctx context.Context, c *container.System) error {
		if sig != sigKill {
			return c.Signal(ctx, sig)
		}
		st, err := c.Status(ctx)
		if err == nil && !isRunning(st) {
			err = fault(errdefs.ErrFailedPrecondition, "kill container %s: it is %s", c.Name(), st.State)
		}
		if err != nil {
			return err
		}
		return c.Terminate(ctx) // also where there is no command, or a paused one
	})
}
