package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// A PlainTree is a tree of files that is to be a layer: a directory, or a tar
// stream, compressed or not.
type PlainTree struct {
	Dir string
	Tar io.Reader // if there is no Dir

	Mappings   Mappings     // of owners in Dir
	SourceDate *time.Time   // the latest time that anything gets, if not nil
	Limits     layer.Limits // of Tar
}

// AddTree adds a layer of a tree to an edit, whose configuration says for which
// system. below is the image that it comes on top of; a new one has none.
//
// In an image for Windows the tree is drive C:. Directories that it lacks are
// made up, files inherit descriptors from their directories, and names that
// lower layers have are spelled as there. What such an image cannot tell,
// devices for instance, is of class ErrInvalidArgument.
func AddTree(ctx context.Context, below Side, e *image.Edit, c layer.Compression, t PlainTree) (layer.Digests, error) {
	d, err := addTree(ctx, below, e, c, t)
	if err != nil {
		return d, fmt.Errorf("make a layer: %w", err)
	}
	return d, nil
}

func addTree(ctx context.Context, below Side, e *image.Edit, c layer.Compression, t PlainTree) (layer.Digests, error) {
	walk := func(emit rootfs.Emit) error { return t.entries(ctx, emit) }
	if layer.EncodingOf(e.Config.OS) == layer.POSIX {
		return e.AddLayer(ctx, c, func(w *layer.Writer) error { return walk(toLayer(w, t.SourceDate)) })
	}
	m, err := belowOf(ctx, below)
	if err != nil {
		return layer.Digests{}, err
	}
	return e.AddLayer(ctx, c, func(w *layer.Writer) error {
		return plainLayer{m, toLayerNT(w, t.SourceDate)}.write(walk)
	})
}

func (t PlainTree) entries(ctx context.Context, emit rootfs.Emit) (err error) {
	if t.Dir != "" {
		return Insertion{Source: t.Dir, Mappings: t.Mappings}.emit(ctx, ".", emit)
	}
	blob, err := layer.OpenBlob(t.Tar, t.Limits)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	for e, err := range blob.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = emit(e, blob)
		}
		if err != nil {
			return err
		}
	}
	_, err = blob.Finish()
	return err
}
