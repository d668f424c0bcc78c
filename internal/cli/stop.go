package cli

import (
	"context"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type stopOptions struct {
	timeout float64
	given   *pflag.Flag // says whether timeout was
	signal  string
}

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
	f.Float64VarP(&o.timeout, "time", "t", 10, "`seconds` to wait before they are killed, if not as long as they were made for; with -1 they never are")
	o.given = f.Lookup("time")
	f.StringVarP(&o.signal, "signal", "s", "", "`signal` that asks, instead of the one that the container was made with")
}

func (o *stopOptions) run(ctx context.Context, a *app, args []string) error {
	sig, err := o.parse()
	if err != nil {
		return err
	}
	return a.each(ctx, args, func(ctx context.Context, c *container.System) error { return o.stop(ctx, c, sig) })
}

// parse returns the signal of the flags, 0 for the container's own.
func (o *stopOptions) parse() (syscall.Signal, error) {
	if o.signal == "" {
		return 0, nil
	}
	return container.ParseSignal(o.signal)
}

func (o *stopOptions) stop(ctx context.Context, c *container.System, sig syscall.Signal) error {
	made := c.Record()
	if limit := o.limit(&made.Spec); limit >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if sig == 0 {
		return c.Shutdown(ctx)
	}
	return c.ShutdownWith(ctx, sig)
}

// limit is the flag's time, or else the container's own.
func (o *stopOptions) limit(spec *container.Spec) time.Duration {
	if !o.given.Changed {
		return spec.StopTime()
	}
	return time.Duration(o.timeout * float64(time.Second))
}
