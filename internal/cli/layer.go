package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/rootfs"
)

func newLayer(a *app) *cobra.Command {
	c := &cobra.Command{Use: "layer", Short: "Look into layers, and manage unpacked ones", Args: noCommand, RunE: showHelp}
	c.AddCommand(newLayerList(a), newLayerTree(a), newLayerCat(a), newLayerDiff(a), newLayerRegistry(a), newLayerInspect(a), newLayerExport(a))
	return c
}

type layerListOptions struct {
	listOptions
	noTrunc bool
}

func newLayerList(a *app) *cobra.Command {
	var o layerListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List unpacked layers",
		Args:    takes(0, 0, ""),
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	c.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "show digests in full")
	o.addFlags(c.Flags(), "show digests only")
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
	Entries                 string
	CreatedAt, CreatedSince string
	Size                    string
	Path                    string
}

func (layerRow) header() []string { return []string{"DIFF ID", "ENTRIES", "CREATED", "SIZE"} }

func (r layerRow) cells() []string { return []string{r.DiffID, r.Entries, r.CreatedSince, r.Size} }

func (r layerRow) key() string { return r.DiffID }

func (o *layerListOptions) row(l *rootfs.Layer) layerRow {
	r := layerRow{
		DiffID: l.DiffID().String(), Entries: strconv.FormatInt(l.Entries(), 10), CreatedAt: l.Created().Format(time.RFC3339),
		CreatedSince: ago(l.Created()), Size: humanSize(l.Size()), Path: l.Path(),
	}
	if !o.noTrunc {
		r.DiffID = shortDigest(r.DiffID)
	}
	return r
}
