package rootfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// ImportLayer stores the layer that r reads in the directory dir, on top of the layers in the directories parents, the
// nearest first, which are noted in it. dir may be an empty directory. The layer appears when it is complete and safe from a
// power cut; otherwise nothing stays, and what a killed process left is removed by the next ImportLayer to dir. If there is
// something at dir, the error is of class errdefs.ErrAlreadyExists.
//
// A layer of the NT encoding is stored as ImportNT does it, one of the POSIX encoding as a Store does. Parents of the other
// encoding are an error of class errdefs.ErrInvalidArgument. r is read to its end, its trailer included.
func ImportLayer(ctx context.Context, dir string, parents []string, r *layer.Reader, opts NTOptions) (LayerDir, error) {
	l, err := importLayer(ctx, dir, parents, r, opts)
	if err != nil {
		return l, fmt.Errorf("import layer to %s: %w", dir, err)
	}
	return l, nil
}

func importLayer(ctx context.Context, dir string, parents []string, r *layer.Reader, opts NTOptions) (l LayerDir, err error) {
	below, err := openParents(parents)
	if err != nil {
		return l, err
	}
	parents = pathsOf(below)
	encoding, err := r.Detect()
	if err != nil {
		return l, err
	}
	if encoding == layer.Auto { // it is empty
		encoding = encodingOf(below)
	}
	if encoding == layer.Auto {
		encoding = layer.POSIX
	}
	for _, p := range below {
		if p.Encoding != encoding {
			return l, fmt.Errorf("its encoding is %v, that of %s %v: %w", encoding, p.Path, p.Encoding, errdefs.ErrInvalidArgument)
		}
	}
	if encoding == layer.NT {
		err = importWindows(ctx, dir, parents, r, opts)
	} else {
		err = importPOSIX(ctx, dir, parents, r, opts)
	}
	if err != nil {
		return l, err
	}
	return inspectLayer(dir)
}

func importWindows(ctx context.Context, dir string, parents []string, r *layer.Reader, opts NTOptions) error {
	opts.parents = parents
	r.Lend()
	_, err := importNT(ctx, dir, parents, r, opts)
	return err
}

// ImportTransport is ImportLayer of the transport folder at the path folder, of which no digest is noted. Without parents the
// folder may remove nothing.
func ImportTransport(ctx context.Context, dir string, parents []string, folder string, opts NTOptions) (LayerDir, error) {
	below, err := openParents(parents)
	if err != nil {
		return LayerDir{}, fmt.Errorf("import layer to %s: %w", dir, err)
	}
	opts.parents = pathsOf(below)
	source := func(emit Emit) error { return ReadTransport(ctx, folder, emit) }
	if _, err := ImportEntries(ctx, dir, opts.parents, source, opts); err != nil {
		return LayerDir{}, err
	}
	return InspectLayer(dir)
}

func importPOSIX(ctx context.Context, dir string, parents []string, r *layer.Reader, opts NTOptions) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	w, err := openWorkplace(ctx, workplace{target: dir, overEmpty: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	_, err = w.fill(TreeOptions{}, func(*inroot.Root) (TreeStats, error) {
		tree := filepath.Join(w.dir, treeDir)
		return TreeStats{}, errors.Join(fillPOSIX(ctx, tree, r, opts), writeChain(tree, parents))
	})
	if err == nil {
		err = inDirectory(filepath.Join(w.dir, treeDir), sys.SyncFS)
	}
	return errors.Join(err, w.publish(err))
}

// fillPOSIX stores a layer in the empty directory dir.
func fillPOSIX(ctx context.Context, dir string, r *layer.Reader, opts NTOptions) error {
	files := filepath.Join(dir, filesDir)
	if err := makeFiles(files); err != nil {
		return err
	}
	root, err := inroot.Open(files)
	if err != nil {
		return err
	}
	stats, headers, err := applyKept(ctx, dir, root, r, opts)
	if err := errors.Join(err, root.Close()); err != nil {
		return err
	}
	diffID, err := opts.diffID()
	if err != nil {
		return err
	}
	record := stats.record(diffID)
	record.UserXattr, record.Headers = opts.UserXattr, headers
	return record.write(dir)
}

// applyKept applies a layer, and returns how many bytes it keeps of its stream.
func applyKept(ctx context.Context, dir string, root *inroot.Root, r *layer.Reader, opts NTOptions) (Stats, int64, error) {
	kept, err := newKeptReader(dir, r)
	if err != nil {
		return Stats{}, 0, err
	}
	stats, err := apply(ctx, root, kept, ApplyOptions{
		Format: OverlayUpper, Owner: opts.Owner, UserXattr: bool(opts.UserXattr), Writers: opts.Writers,
	})
	headers, err := kept.close(err)
	return stats, headers, err
}
