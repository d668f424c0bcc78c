package cli

import (
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/image"
)

func newLayoutNew(*app) *cobra.Command {
	var at place
	c := &cobra.Command{
		Use:   "new --image DIR[:TAG]",
		Short: "creates a blank tagged OCI image",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := at.parse(c); err != nil {
				return err
			}
			created, err := sourceDate()
			if err != nil {
				return err
			}
			l, err := image.OpenLayout(at.dir)
			if err != nil {
				return err
			}
			_, err = l.New(c.Context(), at.tag, v1.Image{Created: created})
			return err
		},
	}
	at.addFlags(c.Flags())
	return c
}
