package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/container"
)

type execOptions struct{ processOptions }

func newExec(a *app) *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:               "exec [flags] CONTAINER COMMAND [ARG...]",
		Short:             "Run a command in a running container",
		Args:              takes(2, -1, "a container and a command"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1:]) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	o.addFlags(c.Flags())
	c.Flags().SetInterspersed(false)
	return c
}

func (o *execOptions) run(ctx context.Context, a *app, ref string, args []string) error {
	streams, err := o.stdio()
	if err == nil {
		err = streams.check(a, o.terminal)
	}
	if err != nil {
		return err
	}
	env, err := variables(o.envFiles, o.env)
	if err != nil {
		return err
	}
	c, err := a.systemAsUser(ctx, ref)
	if err != nil {
		return err
	}
	defer c.Close()
	return a.runProcess(ctx, c, o.process(c.Record().Spec.Main, args, env), streams)
}

// process is like the container's main one where the flags say nothing else.
// outputGrace is how long a command that has left others in the background is
// waited for: they may hold its output for ever.
const outputGrace = 2 * time.Second

func (o *execOptions) process(main *container.ProcessSpec, args, env []string) container.ProcessSpec {
	p := container.ProcessSpec{Args: args, Dir: o.workdir, User: o.user, OutputGrace: outputGrace}
	p.Terminal = o.terminal && !o.detach // nobody would hold the other end
	if o.terminal {
		p.Env = []string{"TERM=xterm"}
	}
	if main != nil {
		p.Env, p.Groups = append(p.Env, main.Env...), main.Groups
		if p.Dir == "" {
			p.Dir = main.Dir
		}
		if p.User == "" {
			p.User = main.User
		}
	}
	p.Env = lastOfEach(append(p.Env, env...))
	return p
}
