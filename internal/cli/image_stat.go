package cli

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/bundle"
)

func newLayoutStat(a *app) *cobra.Command {
	var (
		at     place
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "stat --image DIR[:TAG]",
		Short: "displays status information of an image manifest",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			_, img, err := at.open(c.Context(), c)
			if err != nil {
				return err
			}
			stat := bundle.NewStat(img)
			if asJSON {
				return json.NewEncoder(a.out).Encode(stat)
			}
			return stat.WriteText(a.out)
		},
	}
	at.addPlatform(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "output the stat information as a JSON encoded blob")
	return c
}
