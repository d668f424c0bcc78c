package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "wait CONTAINER...",
		Short:             "Wait until containers have stopped, and print their exit statuses",
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return a.wait(c.Context(), args) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
}

func (a *app) wait(ctx context.Context, args []string) error {
	var errs []error
	for _, ref := range args {
		c, err := a.systemAsUser(ctx, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		st, err := c.Wait(ctx)
		c.Close()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(a.out, st.ExitCode)
	}
	return joined(errs)
}
