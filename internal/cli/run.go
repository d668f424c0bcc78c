package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/container"
)

type runOptions struct {
	containerOptions
	sigProxy bool
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Run a command in a new container",
		Long: `Run a command in a new container, and end with its exit status.

IMAGE is the name of one that was loaded, or a place to load it from:
oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE. With --rootfs there is
no IMAGE: the container stands on a directory, which stays as it is.`,
		Example: `  hcs run --rm -it oci:layouts/debian
  hcs run -d --name web -v $PWD/site:/www:ro busybox httpd -f -h /www
  hcs run --rm --rootfs / sh`,
		Args:              o.takes,
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeRun,
	}
	o.addFlags(c.Flags())
	c.Flags().BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on; else they end this command, and the container goes on")
	return c
}

func (o *runOptions) run(ctx context.Context, a *app, args []string) error {
	if err := a.becomeRoot(); err != nil {
		return err
	}
	ctx = a.signals.catch(ctx)
	streams, err := o.stdio()
	if err == nil {
		err = streams.check(a, o.terminal)
		streams.apart = !o.sigProxy
	}
	if err != nil {
		return err
	}
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
	defer c.Close()
	err = a.startMain(ctx, c, streams)
	if _, ok := errors.AsType[exitStatus](err); ok || err == nil {
		if err == nil && o.detach {
			fmt.Fprintln(a.out, c.ID())
		}
		return err
	}
	return o.undo(ctx, c, err)
}

// undo removes a container that never ran its command: there is nothing in
// it to see.
func (o *runOptions) undo(ctx context.Context, c *container.System, err error) error {
	if st, serr := c.Status(ctx); serr == nil && hasMain(st) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if terr := c.Terminate(ctx); terr != nil {
		return errors.Join(err, terr)
	}
	if derr := c.Delete(ctx); derr != nil && !isGone(derr) {
		return errors.Join(err, derr)
	}
	if o.idFile != "" {
		err = errors.Join(err, os.Remove(o.idFile))
	}
	return err
}

func hasMain(st container.Status) bool {
	for _, p := range st.Processes {
		if p.Main {
			return true
		}
	}
	return false
}
