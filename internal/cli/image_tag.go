package cli

import "github.com/spf13/cobra"

func newImageTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "tag NAME NEW",
		Short: "Give an image another name",
		Args:  takes(2, 2, "an image and its new name"),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host()
			if err != nil {
				return err
			}
			return h.Images().Tag(c.Context(), args[0], args[1])
		},
		ValidArgsFunction: a.completeImages,
	}
}
