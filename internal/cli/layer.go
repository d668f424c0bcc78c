package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

// layerCommands are the verbs of "hcs layer" and, for short, of wclayer.
var layerCommands = []entry{
	{"cat", newLayerCat},
	{"create", newLayerCreate},
	{"diff", newLayerDiff},
	{"expand", newLayerExpand},
	{"export", newLayerExport},
	{"import", newLayerImport},
	{"inspect", newLayerInspect},
	{"ls", newLayerList},
	{"makebaselayer", newLayerMakeBase},
	{"mount", newLayerMount},
	{"registry", newLayerRegistry},
	{"remove", newLayerRemove},
	{"tree", newLayerTree},
	{"unmount", newLayerUnmount},
}

func newLayer(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "layer",
		Short: "Look into layers, and make, mount and remove them",
		Long: `Look into layers, those of Windows images above all, and keep them in
directories: "import" makes a layer of a tar stream, "create" a scratch layer on
top of others, which "mount" makes one tree.`,
		Args: noCommand, RunE: showHelp,
	}
	for _, e := range layerCommands {
		c.AddCommand(e.make(a))
	}
	return c
}

type layerListOptions struct {
	listOptions
	noTrunc bool
}

func newLayerList(a *app) *cobra.Command {
	var o layerListOptions
	c := &cobra.Command{
		Use:     "ls [flags] [DIR]",
		Aliases: []string{"list"},
		Short:   "List the layers of the local store, or of a directory",
		Long: `List the layers that the local store has unpacked, or those that a directory has:
what "import" and "create" have made there, with their parents.`,
		Args: takes(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return o.runDir(a, args[0])
			}
			return o.run(c.Context(), a)
		},
	}
	c.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "show digests and paths in full")
	o.addFlags(c.Flags(), "show digests, or directories, only")
	return c
}

func (o *layerListOptions) run(_ context.Context, a *app) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	layers, err := h.Layers().Layers()
	rows := make([]layerRow, len(layers))
	for i, l := range layers {
		rows[i] = o.row(l)
	}
	return joined([]error{err, list(a.out, o.listOptions, rows)})
}

type layerRow struct {
	DiffID                  string
	ID                      string // what the store has it under: the diffID, or a Windows layer's chainID
	Kind                    string // linux or windows
	Entries                 string
	CreatedAt, CreatedSince string
	Size                    string
	Path                    string
}

func (layerRow) header() []string { return []string{"DIFF ID", "KIND", "ENTRIES", "CREATED", "SIZE"} }

func (r layerRow) cells() []string {
	return []string{r.DiffID, r.Kind, r.Entries, r.CreatedSince, r.Size}
}

func (r layerRow) key() string { return r.ID }

func (o *layerListOptions) row(l *rootfs.Layer) layerRow {
	r := layerRow{
		DiffID: l.DiffID().String(), ID: l.ID().String(), Kind: layerKind(rootfs.LayerDir{Encoding: l.Encoding()}), Entries: strconv.FormatInt(l.Entries(), 10), CreatedAt: l.Created().Format(time.RFC3339),
		CreatedSince: ago(l.Created()), Size: humanSize(l.Size()), Path: l.Path(),
	}
	if !o.noTrunc {
		r.DiffID, r.ID = shortDigest(r.DiffID), shortDigest(r.ID)
	}
	return r
}
