package cli

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

type layerInspectOptions struct {
	layerSource
	format string
}

// layerView is a layer as "inspect" shows it.
type layerView struct {
	Layer     string           `json:"layer"`
	DiffID    digest.Digest    `json:"diffID"`
	Encoding  string           `json:"encoding"`
	Directory *layerDirView    `json:"directory,omitempty"`
	Entries   int64            `json:"entries"`
	Content   int64            `json:"content"` // bytes of files and streams
	Kinds     map[string]int64 `json:"kinds"`
	BaseLayer bool             `json:"baseLayer,omitempty"` // of Windows: it has whole hives
	UtilityVM bool             `json:"utilityVM,omitempty"`
	Hives     []string         `json:"hives,omitempty"`
	Warnings  []string         `json:"warnings,omitempty"` // what is malformed, and was mended
}

// layerDirView is what only a layer's directory tells.
type layerDirView struct {
	Path    string    `json:"path"`
	Kind    string    `json:"kind"`
	Parents []string  `json:"parents,omitempty"`
	Limit   int64     `json:"limit,omitempty"` // of a scratch layer: bytes of its disk
	Room    int64     `json:"room,omitempty"`  // bytes of that which are for files
	Mounted bool      `json:"mounted,omitempty"`
	Created time.Time `json:"created,omitzero"`
}

func newLayerDirView(l rootfs.LayerDir) *layerDirView {
	v := &layerDirView{Path: l.Path, Kind: layerKind(l), Parents: l.Parents, Mounted: l.Prepared, Created: l.Created}
	if l.Scratch {
		v.Limit, v.Room = l.Size, l.Room
	}
	return v
}

func newLayerInspect(a *app) *cobra.Command {
	var o layerInspectOptions
	c := &cobra.Command{
		Use:   "inspect [flags] LAYER...",
		Short: "Show what layers are, as JSON",
		Long:  "Show what layers are: digest, encoding, counts, hives, and what is malformed.\n\n" + layerUsage,
		Args:  takes(1, -1, "a layer"),
		RunE:  func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
	}
	o.addFlags(c.Flags())
	c.Flags().StringVarP(&o.format, "format", "f", "json", "json or a Go `template`")
	return c
}

func (o *layerInspectOptions) run(ctx context.Context, a *app, args []string) error {
	var views []layerView
	var errs []error
	for _, ref := range args {
		v, err := o.view(ctx, a, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		views = append(views, v)
	}
	if views != nil {
		errs = append(errs, inspect(a.out, o.format, views))
	}
	return joined(errs)
}

func (o *layerInspectOptions) view(ctx context.Context, a *app, ref string) (layerView, error) {
	v := layerView{Layer: ref, Kinds: make(map[string]int64)}
	src := o.layerSource
	src.warn = func(w layer.Warning) { v.Warnings = append(v.Warnings, w.String()) }
	l, err := src.open(ctx, a, ref)
	if err != nil {
		return v, err
	}
	v.DiffID, err = l.all(ctx, func(e *layer.Entry) error { v.add(e); return nil })
	v.Encoding = l.Encoding().String()
	if l.dir != nil {
		v.Directory = newLayerDirView(*l.dir)
	}
	return v, reading(ref, errors.Join(err, l.close()))
}

func (v *layerView) add(e *layer.Entry) {
	v.Entries++
	v.Content += e.Size
	v.Kinds[e.Kind.String()]++
	if e.NT == nil {
		return
	}
	part, inPart := layer.SplitPart(e.Name)
	v.UtilityVM = v.UtilityVM || part == layer.UtilityVMPart
	if hiveKey(e) == "" {
		return
	}
	v.Hives = append(v.Hives, e.Name)
	v.BaseLayer = v.BaseLayer || part == layer.FilesPart && ntfs.EqualFold(inPart, "Windows/System32/config/SYSTEM")
}
