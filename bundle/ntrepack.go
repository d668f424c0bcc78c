package bundle

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// cleanNT makes a name below Files of a path as Windows or Linux has it; drive
// C: is the root.
func cleanNT(p string) string {
	p = strings.ReplaceAll(p, `\`, "/")
	if len(p) >= 2 && strings.EqualFold(p[:2], "c:") {
		p = p[2:]
	}
	return clean(p)
}

// addLayerNT is addLayer for an image for Windows.
func (m Meta) addLayerNT(ctx context.Context, e *image.Edit, dir string, changes []rootfs.Change, o RepackOptions) error {
	tree := treeNT(dir)
	_, err := e.AddLayer(ctx, o.compression(e), func(w *layer.Writer) error {
		return tree.EmitChanges(ctx, changes, toLayerNT(w, o.SourceDate))
	})
	return err
}

// addLayerNT is addLayer for a mounted bundle of an image for Windows.
func (o *Overlay) addLayerNT(ctx context.Context, e *image.Edit, m mask, opts RepackOptions) error {
	scratch, err := o.scratch()
	if err != nil {
		return err
	}
	written, err := scratch.NT()
	if err != nil {
		return err
	}
	written.Mask = m.covers
	_, err = e.AddLayer(ctx, opts.compression(e), func(w *layer.Writer) error {
		return written.Diff(ctx, toLayerNT(w, opts.SourceDate))
	})
	return err
}

// toLayerNT writes entries, with no time later than latest.
func toLayerNT(w *layer.Writer, latest *time.Time) rootfs.Emit {
	if latest == nil {
		return w.Write
	}
	return func(e *layer.Entry, content io.Reader) error {
		if e.Kind == layer.Whiteout {
			return w.Write(e, content)
		}
		meta := *e.NT
		e.NT = &meta
		for _, t := range []*time.Time{&e.ModTime, &e.AccessTime, &e.ChangeTime, &e.NT.CreationTime} {
			if t.After(*latest) {
				*t = *latest
			}
		}
		return w.Write(e, content)
	}
}

// treeNT is what a bundle has of an image for Windows.
func treeNT(dir string) rootfs.NTTree {
	return rootfs.NTTree{Files: filepath.Join(dir, RootfsName), Layer: dir}
}
