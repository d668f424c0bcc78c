package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// UnpackPlainNT makes the new directory dir of what a Windows layer without parents has below Files, as Linux has it:
// without Windows' metadata, alternate streams and the layer's other parts. Links lead to the same place in the tree, and
// who may not write to a readonly file may not here. As ImportEntries does, it leaves a tree that is complete or nothing.
func UnpackPlainNT(ctx context.Context, dir string, source EntrySource, opts NTOptions) error {
	in := newPulled(func(emit Emit) error { return source(filesOnly(emit)) })
	err := unpackPlainNT(ctx, dir, in, opts)
	if err = errors.Join(err, in.end()); err != nil {
		return fmt.Errorf("unpack to %s: %w", dir, err)
	}
	return nil
}

func unpackPlainNT(ctx context.Context, dir string, in *pulled, opts NTOptions) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	opts.whole, opts.plain = true, true
	w, err := newWorkplace(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	_, err = w.fill(TreeOptions{}, func(root *inroot.Root) (TreeStats, error) {
		_, err := fillNT(ctx, filepath.Join(w.dir, treeDir), root, ntParents{}, in, opts)
		return TreeStats{}, err
	})
	if err == nil {
		err = w.narrow(filesDir)
	}
	return errors.Join(err, w.publish(err))
}

// filesOnly passes on what a plain tree has of a layer.
func filesOnly(emit Emit) Emit {
	return func(e *layer.Entry, content io.Reader) error {
		if part, _ := layer.SplitPart(e.Name); part != layer.FilesPart || e.Kind == layer.Stream {
			return nil
		}
		return emit(e, content)
	}
}

// narrow makes one directory of the tree all that there is of it.
func (w *workplace) narrow(name string) error {
	tree, aside := w.name+"/"+treeDir, w.name+"/"+spillName
	if err := w.parent.Rename(tree+"/"+name, aside); err != nil {
		return err
	}
	if err := w.parent.RemoveAll(tree); err != nil {
		return err
	}
	return w.parent.Rename(aside, tree)
}
