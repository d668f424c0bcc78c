package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "List the files that a container has changed",
		Long: `List what a container has changed of the files that it was made with: A is added, C is changed (a directory also where
something in it is), and D is deleted.`,
		Args:              takes(1, 1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return a.diff(c.Context(), args[0]) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
}

// changeLetters are docker's.
var changeLetters = map[rootfs.ChangeKind]string{rootfs.Added: "A", rootfs.Modified: "C", rootfs.Deleted: "D"}

func (a *app) diff(ctx context.Context, ref string) error {
	if err := a.becomeRoot(); err != nil {
		return err
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	c, err := h.Containers().Open(ctx, ref)
	if err != nil {
		return err
	}
	defer c.Close()
	changes, err := h.Changes(ctx, c)
	if err != nil {
		return err
	}
	for _, change := range changes {
		if _, err := fmt.Fprintf(a.out, "%s /%s\n", changeLetters[change.Kind], change.Name); err != nil {
			return err
		}
	}
	return nil
}
