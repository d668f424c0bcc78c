package cli

import (
	"context"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type attachOptions struct {
	noStdin, sigProxy bool
	detachFlag
}

func newAttach(a *app) *cobra.Command {
	var o attachOptions
	c := &cobra.Command{
		Use:   "attach [flags] CONTAINER",
		Short: "Connect to the command of a running container",
		Long: `Connect to the command of a running container: its output from now on, and its input, if the container was made with -t, or
with -i and nobody else passes input. What it has printed before is in the logs. Several may be connected.`,
		Args:              takes(1, 1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *attachOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.noStdin, "no-stdin", false, "do not connect standard input")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on; else they end this command alone")
	o.detachFlag.addFlag(f)
}

func (o *attachOptions) run(ctx context.Context, a *app, ref string) error {
	keys, err := parseKeys(o.keys)
	if err != nil {
		return err
	}
	c, err := a.systemAsUser(ctx, ref)
	if err != nil {
		return err
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	ctx = a.signals.catch(ctx)
	return a.attach(ctx, c, st, stdio{interactive: !o.noStdin, detachKeys: keys, apart: !o.sigProxy})
}

// attach connects our streams with those of the main process, until it ends.
func (a *app) attach(ctx context.Context, c *container.System, st container.Status, o stdio) error {
	p, err := openMain(ctx, c, st)
	if err != nil {
		return err
	}
	streams, err := p.OpenStdio(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = streams.Close() }() // what is left of them is nobody's
	spec := container.ProcessSpec{Terminal: c.Record().Spec.Main.Terminal}
	o.interactive = o.interactive && streams.Stdin != nil
	if err := o.check(a, spec.Terminal); err != nil {
		return err
	}
	j, err := a.join(ctx, &spec, o)
	if err != nil {
		return err
	}
	defer j.end()
	j.out.broken(j.detach) // who looks on may stop to
	j.terminal.resize(j.on, p)
	all := carry(j.on, p, streams, &spec)
	status, err := j.wait(ctx, p)
	if err == nil {
		all.Wait()
	}
	return ended(status, err)
}

// openMain opens the process that the container is for.
func openMain(ctx context.Context, c *container.System, st container.Status) (*container.Process, error) {
	if st.State == container.Running && c.Record().Spec.Main != nil {
		for _, p := range st.Processes {
			if p.Main {
				return c.OpenProcess(ctx, p.Pid)
			}
		}
	}
	if st.State == container.Running {
		return nil, fault(errdefs.ErrFailedPrecondition, "attach to container %s: its command does not run", c.Name())
	}
	return nil, fault(errdefs.ErrFailedPrecondition, "attach to container %s: it is %s", c.Name(), st.State)
}

// carry copies between streams and ours. What it returns waits for all output.
func carry(ctx context.Context, p *container.Process, streams *container.Stdio, ours *container.ProcessSpec) *sync.WaitGroup {
	if ours.Stdin != nil {
		go func() {
			_, err := io.Copy(streams.Stdin, ours.Stdin)
			if err == nil && ctx.Err() == nil {
				_ = p.CloseStdin(ctx) // it may have ended
			}
		}()
	}
	all := new(sync.WaitGroup)
	for _, s := range []struct {
		from io.Reader
		to   io.Writer
	}{{streams.Stdout, ours.Stdout}, {streams.Stderr, ours.Stderr}} {
		if s.from != nil && s.to != nil {
			all.Go(func() { _, _ = io.Copy(s.to, s.from) }) // a reader that is gone tells by itself
		}
	}
	return all
}
