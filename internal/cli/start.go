package cli

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type startOptions struct {
	attach, interactive bool
	detachFlag
}

func newStart(a *app) *cobra.Command {
	var o startOptions
	c := &cobra.Command{
		Use:               "start [flags] CONTAINER...",
		Short:             "Start containers that do not run",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isIdle),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *startOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.attach, "attach", "a", false, "show the output and end with the exit status")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "pass standard input too")
	o.detachFlag.addFlag(f)
}

func (o *startOptions) run(ctx context.Context, a *app, args []string) error {
	ctx = a.signals.catch(ctx)
	if !o.attach && !o.interactive {
		return a.each(ctx, args, func(ctx context.Context, c *container.System) error {
			return a.startIdle(ctx, c, stdio{detached: true})
		})
	}
	if len(args) > 1 {
		return usage("start: only one container can be attached to")
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
	keys, err := parseKeys(o.keys)
	if err != nil {
		return err
	}
	return a.startIdle(ctx, c, stdio{interactive: o.interactive, detachKeys: keys})
}

// startIdle is startMain for a container that may run already.
func (a *app) startIdle(ctx context.Context, c *container.System, o stdio) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if !isRunning(st) || st.State == container.Stopping { // whose end is waited for
		return a.startMain(ctx, c, o)
	}
	if o.detached {
		return nil
	}
	return a.attach(ctx, c, st, o)
}

// startMain starts the container and the process that it was made for.
func (a *app) startMain(ctx context.Context, c *container.System, o stdio) error {
	spec := c.Record().Spec.Main
	if spec == nil {
		return fault(errdefs.ErrFailedPrecondition, "start container %s: it has no command", c.Name())
	}
	if err := o.check(a, spec.Terminal); err != nil {
		return err
	}
	started := a.tracer.span("start container", text("container.id", c.ID()), text("container.name", c.Name()))
	if err := started(c.StartForMain(ctx)); err != nil {
		return err
	}
	main := *spec
	main.Role = container.Main
	err := a.runProcess(ctx, c, main, o)
	if _, failed := errors.AsType[notStarted](err); failed {
		return errors.Join(err, c.Terminate(context.WithoutCancel(ctx)))
	}
	return err
}
