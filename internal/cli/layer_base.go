package cli

import (
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newLayerMakeBase(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "makebaselayer DIR",
		Short: "Make a Windows base layer of a directory with files",
		Long: `Make a Windows base layer of a directory that has its files in Files, and maybe
those of a utility VM in UtilityVM/Files: it gets what the layers above need of it,
registry hives in Hives, blank disks for scratch layers, and the file layout. Hives
that are missing are made, without keys, unless the layer was imported. The disks
are made by mkntfs of ntfs-3g. Done again, it changes nothing.`,
		Args: takes(1, 1, "the layer's directory"),
		RunE: func(c *cobra.Command, args []string) error {
			a.tryRoot()
			return rootfs.ConvertToBaseLayer(c.Context(), args[0])
		},
	}
}
