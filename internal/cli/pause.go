package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/container"
)

func newPause(a *app) *cobra.Command {
	pause := func(ctx context.Context, c *container.System) error { return c.Pause(ctx) }
	return &cobra.Command{
		Use:               "pause CONTAINER...",
		Short:             "Stop all processes of containers where they are",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return a.each(c.Context(), args, pause) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
}

func newUnpause(a *app) *cobra.Command {
	resume := func(ctx context.Context, c *container.System) error { return c.Resume(ctx) }
	return &cobra.Command{
		Use:               "unpause CONTAINER...",
		Short:             "Let the processes of paused containers go on",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return a.each(c.Context(), args, resume) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
}
