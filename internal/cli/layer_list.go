package cli

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// runDir lists the layers in a directory.
func (o *layerListOptions) runDir(a *app, dir string) error {
	layers, err := rootfs.ListLayers(dir)
	if layers == nil && err != nil {
		return err
	}
	rows := make([]layerDirRow, len(layers))
	for i, l := range layers {
		rows[i] = o.dirRow(l)
	}
	return joined([]error{err, list(a.out, o.listOptions, rows)})
}

// layerDirRow is a layer's directory in a listing.
type layerDirRow struct {
	Name                    string
	Kind                    string
	DiffID                  string
	Parents                 []string // nearest first
	Entries                 int64
	Bytes                   int64 // of a scratch layer: of the disk that limits it, 0 if none does
	Room                    int64 // of that disk: what is for files
	Size                    string
	Mounted                 bool
	CreatedAt, CreatedSince string
	Path                    string
}

func (layerDirRow) header() []string {
	return []string{"NAME", "KIND", "DIFF ID", "PARENTS", "ENTRIES", "CREATED", "SIZE"}
}

func (r layerDirRow) cells() []string {
	kind, entries := r.Kind, strconv.FormatInt(r.Entries, 10)
	if r.Mounted {
		kind += ", mounted"
	}
	if r.Kind == scratchKind { // it takes what is written
		entries = ""
	}
	return []string{r.Name, kind, r.DiffID, strings.Join(r.Parents, ","), entries, r.CreatedSince, r.Size}
}

func (r layerDirRow) key() string { return r.Path }

func (o *layerListOptions) dirRow(l rootfs.LayerDir) layerDirRow {
	r := layerDirRow{
		Name: filepath.Base(l.Path), Kind: layerKind(l), DiffID: l.DiffID.String(), Parents: l.Parents, Entries: l.Entries, Bytes: l.Size, Room: l.Room,
		Size: humanSize(l.Size), Mounted: l.Prepared, CreatedAt: l.Created.Format(time.RFC3339), CreatedSince: ago(l.Created), Path: l.Path,
	}
	switch {
	case l.Scratch && l.Size == 0:
		r.Size = "no limit"
	case l.Scratch:
		r.Size = humanSize(l.Room) + " on a disk of " + humanSize(l.Size)
	}
	if o.noTrunc || o.format == "json" {
		return r
	}
	r.DiffID, r.Parents = shortDigest(r.DiffID), nil
	for _, p := range l.Parents {
		r.Parents = append(r.Parents, filepath.Base(p))
	}
	return r
}

const scratchKind = "scratch"

// layerKind says in a word what a layer's directory is for.
func layerKind(l rootfs.LayerDir) string {
	switch {
	case l.Scratch:
		return scratchKind
	case l.Encoding == layer.NT:
		return "windows"
	}
	return "linux"
}
