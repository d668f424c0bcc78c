package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// CreateScratchLayer makes an empty scratch layer, a Volume, in the directory dir, on top of the layers in the directories
// parents, the nearest first, which are noted in it. dir may be an empty directory. The layer appears when it is complete.
// A size in bytes limits it; 0 does not. If there is something at dir, the error is of class errdefs.ErrAlreadyExists.
func CreateScratchLayer(ctx context.Context, dir string, parents []string, size uint64) (LayerDir, error) {
	err := createScratchLayer(ctx, dir, parents, size)
	var l LayerDir
	if err == nil {
		l, err = inspectLayer(dir)
	}
	if err != nil {
		return l, fmt.Errorf("create scratch layer %s: %w", dir, err)
	}
	return l, nil
}

func createScratchLayer(ctx context.Context, dir string, parents []string, size uint64) (err error) {
	below, err := openParents(parents)
	if err != nil {
		return err
	}
	parents = pathsOf(below)
	if len(parents) == 0 {
		return fmt.Errorf("there are no parents: %w", errdefs.ErrInvalidArgument)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	w, err := openWorkplace(ctx, workplace{target: dir, overEmpty: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	tree := filepath.Join(w.dir, treeDir)
	_, err = w.fill(TreeOptions{}, func(*inroot.Root) (TreeStats, error) {
		return TreeStats{}, fillScratch(ctx, tree, parents, size)
	})
	if err == nil {
		err = inDirectory(tree, sys.SyncFS)
	}
	return errors.Join(err, w.publish(err))
}

func fillScratch(ctx context.Context, dir string, parents []string, size uint64) error {
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	if err := writeChain(dir, parents); err != nil {
		return err
	}
	v, err := CreateVolume(ctx, dir)
	if err == nil && size > 0 {
		err = v.Grow(ctx, size)
	}
	return err
}

// copiedScratch is what Windows makes of a new scratch layer: a copy of its base layer's blank disk.
const copiedScratch = "sandbox.vhdx"

// OpenScratchLayer returns the scratch layer in dir. A directory with a copy of the base layer's blank disk, which is how
// containerd makes a scratch layer, becomes one. The error is of class errdefs.ErrNotFound if dir is no scratch layer, and
// wraps fs.ErrNotExist as well if there is no such directory.
func OpenScratchLayer(ctx context.Context, dir string) (*Volume, error) {
	if err := checkDir(dir); err != nil {
		return nil, fmt.Errorf("open scratch layer %s: %w", dir, err)
	}
	v, err := OpenVolume(dir)
	if !errdefs.IsNotFound(err) {
		return v, err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("open scratch layer %s: %w", dir, missing(err))
	}
	if _, err := os.Stat(filepath.Join(dir, copiedScratch)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open scratch layer %s: it is none: %w", dir, errdefs.ErrNotFound)
	}
	v, err = CreateVolume(ctx, dir)
	if errdefs.IsAlreadyExists(err) { // another process was first
		return OpenVolume(dir)
	}
	return v, err
}

// MountOptions say how MountLayer mounts. The zero value is right for a layer that CreateScratchLayer has made.
type MountOptions struct {
	Parents []string // directories of the layers below, the nearest first; none takes those that the layer notes
	Target  string   // a directory where the tree is to be as well, unless it is empty
}

// MountLayer makes the layer in dir and its parents one tree, and returns where. Of a scratch layer it activates and prepares
// the volume, as far as that is not done; of a read-only layer the tree is read only. UnmountLayer is its counterpart. What
// fails is undone.
func MountLayer(ctx context.Context, dir string, opts MountOptions) (string, error) {
	root, err := mountLayer(ctx, dir, opts)
	if err != nil {
		return "", fmt.Errorf("mount layer %s: %w", dir, err)
	}
	return root, nil
}

func mountLayer(ctx context.Context, dir string, opts MountOptions) (string, error) {
	v, err := OpenScratchLayer(ctx, dir)
	if err != nil && !errdefs.IsNotFound(err) {
		return "", err
	}
	l, err := inspectLayer(dir)
	if err != nil {
		return "", err
	}
	if len(opts.Parents) == 0 {
		opts.Parents = l.Parents
	}
	if v == nil {
		v, err = &Volume{dir: l.Path}, l.mountView(ctx, opts.Parents)
	} else {
		err = v.mountOn(ctx, l, opts.Parents)
	}
	if err != nil {
		return "", err
	}
	if opts.Target == "" {
		return v.Root(), nil
	}
	if err := sys.MountBind(v.Root(), opts.Target); err != nil {
		if !l.Prepared {
			err = errors.Join(err, unmountLayer(context.WithoutCancel(ctx), dir, ""))
		}
		return "", err
	}
	return opts.Target, nil
}

// mountOn activates and prepares the volume, which l describes.
func (v *Volume) mountOn(ctx context.Context, l LayerDir, parents []string) error {
	below, err := openParents(parents)
	if err == nil && len(below) == 0 {
		err = fmt.Errorf("its parents are not known: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	if err := v.Activate(ctx); err != nil {
		return err
	}
	err = v.takesMarks(&below[0])
	switch {
	case err != nil:
	case encodingOf(below) == layer.NT:
		err = v.PrepareNT(ctx, pathsOf(below))
	default:
		err = v.locked(ctx, func() error { return v.prepare(treesOf(below), below[0].userXattr) })
	}
	if err != nil && !l.Active {
		err = errors.Join(err, v.Deactivate(context.WithoutCancel(ctx)))
	}
	return err
}

// probeXattr is an attribute that the kernel's own root alone may set, as it is with overlayfs's marks and Windows' metadata
// in the layers that he imports.
const probeXattr = "trusted.hcs.probe"

// takesMarks makes sure that what is written into the volume can be marked as the layer below is. The root of a user
// namespace cannot, and does not own that layer's files either: overlayfs would copy none of them up.
func (v *Volume) takesMarks(below *LayerDir) error {
	if below.userXattr {
		return nil
	}
	root, err := inroot.Open(v.path(volumeMount))
	if err != nil {
		return err
	}
	err = tryXattr(root)
	if errors.Is(err, sys.ErrNotPermitted) {
		err = fmt.Errorf("layer %s was imported by root, on whose layers only root writes: import it yourself: %w", below.Path,
			errdefs.ErrPermissionDenied)
	}
	return errors.Join(err, root.Close())
}

func tryXattr(root *inroot.Root) error {
	dir, err := root.OpenDir(upperDir)
	if err != nil {
		return err
	}
	err = dir.Self().SetXattr(probeXattr, "")
	if err == nil {
		err = dir.Self().RemoveXattr(probeXattr)
	}
	return errors.Join(err, dir.Close())
}

// treesOf returns the trees of layers, to be stacked.
func treesOf(layers []LayerDir) []string {
	trees := make([]string, 0, len(layers))
	for _, l := range layers {
		trees = append(trees, filepath.Join(l.Path, filesDir))
		if l.opaque {
			break // it hides those below
		}
	}
	return trees
}

// UnmountLayer undoes MountLayer, also on the target that this was given; an empty one was none. The error is ErrNotActive
// if the layer is not mounted, and of class errdefs.ErrUnavailable if somebody uses the tree.
func UnmountLayer(ctx context.Context, dir, target string) error {
	if err := unmountLayer(ctx, dir, target); err != nil {
		return fmt.Errorf("unmount layer %s: %w", dir, err)
	}
	return nil
}

func unmountLayer(ctx context.Context, dir, target string) error {
	v, err := OpenScratchLayer(ctx, dir)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	l, err := inspectLayer(dir)
	if err != nil {
		return err
	}
	if target != "" {
		if err := unmountTarget(target, filepath.Join(l.Path, volumeRoot)); err != nil {
			return err
		}
	}
	if v == nil {
		return l.unmountView(ctx)
	}
	return unmountVolume(ctx, v)
}

// unmountTarget takes the tree at root away from another directory, where nothing else may be mounted.
func unmountTarget(target, root string) error {
	mounted, err := sys.IsMountPoint(target)
	if err != nil || !mounted {
		return err
	}
	on, err := os.Stat(target)
	if err != nil {
		return err
	}
	if tree, err := os.Stat(root); err != nil || !os.SameFile(on, tree) {
		return fmt.Errorf("what is mounted on %s is something else: %w", target, errdefs.ErrInvalidArgument)
	}
	return sys.UnmountIdle(target)
}

func unmountVolume(ctx context.Context, v *Volume) error {
	if err := v.Unprepare(ctx); err != nil && !errors.Is(err, ErrNotPrepared) {
		return err
	}
	return v.Deactivate(ctx)
}
