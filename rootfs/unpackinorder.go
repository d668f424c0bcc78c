package rootfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// applyInOrder applies the layers one after the other, and reads the tree for its manifest.
func applyInOrder(ctx context.Context, root *inroot.Root, layers []LayerBlob, opts TreeOptions, create spillFile) (TreeStats, error) {
	stats := TreeStats{InOrder: opts.Format == Directory}
	for i := range layers {
		one, err := applyBlob(ctx, root, &layers[i], opts, create)
		if err != nil {
			return stats, inLayer(i, err)
		}
		stats.Entries += one.Entries
		stats.Bytes += one.Bytes
		stats.Whiteouts += one.Whiteouts
		stats.Root = stats.Root || one.Root
		stats.Opaque = stats.Opaque || one.Opaque
		if opts.Progress != nil {
			opts.Progress(i, one.Entries)
		}
	}
	if opts.Mtree == nil {
		return stats, nil
	}
	return stats, writeManifest(ctx, root, opts.Mtree)
}

func inLayer(i int, err error) error { return fmt.Errorf("layer %d: %w", i, err) }

func applyBlob(ctx context.Context, root *inroot.Root, l *LayerBlob, opts TreeOptions, create spillFile) (stats Stats, err error) {
	o, err := l.open(ctx, opts.Limits)
	if err != nil {
		return stats, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	stats, err = Apply(ctx, root, o.Reader, ApplyOptions{
		Format: opts.Format, Owner: opts.Owner, UserXattr: opts.UserXattr, UIDs: opts.UIDs, GIDs: opts.GIDs,
		Rootless: opts.Rootless, KeepDirlinks: opts.KeepDirlinks, Writers: opts.Writers,
		spill: create,
	})
	if err != nil {
		return stats, err
	}
	return stats, o.check()
}

// openBlob is a layer that is being read.
type openBlob struct {
	*layer.Blob
	l      *LayerBlob
	stream interface{ Close() error }
}

func (l *LayerBlob) open(ctx context.Context, limits layer.Limits) (*openBlob, error) {
	stream, err := l.Open(ctx)
	if err != nil {
		return nil, err
	}
	blob, err := layer.OpenBlob(stream, limits)
	if err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	blob.Lend()
	return &openBlob{blob, l, stream}, nil
}

// check reads what is left and compares the digests.
func (o *openBlob) check() error {
	got, err := o.Finish()
	if err != nil {
		return err
	}
	for _, d := range []struct {
		what      string
		got, want digest.Digest
	}{{"blob", got.Blob, o.l.Digest}, {"content", got.DiffID, o.l.DiffID}} {
		if d.want != "" && d.got != d.want {
			return fmt.Errorf("its %s has the digest %s, not %s: %w", d.what, d.got, d.want, errdefs.ErrDataLoss)
		}
	}
	return nil
}

func (o *openBlob) close() error { return errors.Join(o.Blob.Close(), o.stream.Close()) }

// writeManifest reads the tree and writes what it is.
func writeManifest(ctx context.Context, root *inroot.Root, to interface{ Write([]byte) (int, error) }) error {
	w := newManifest(to)
	err := walk(ctx, root, func(o *object) error {
		e, err := o.describe()
		if err != nil {
			return err
		}
		return w.Write(e)
	})
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return w.Close(time.Now())
}
