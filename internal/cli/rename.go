package cli

import "github.com/spf13/cobra"

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rename CONTAINER NAME",
		Short: "Give a container another name",
		Args:  takes(2, 2, "a container and its new name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.host()
			if err != nil {
				return err
			}
			c, err := h.Containers().Open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Rename(cmd.Context(), args[1])
		},
		ValidArgsFunction: a.completeContainers(isAny),
	}
}
