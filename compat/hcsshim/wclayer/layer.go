package wclayer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// CreateLayer makes the directory of a layer that is then imported. The parent is not looked at: importing has them all.
func CreateLayer(ctx context.Context, path, _ string) (err error) {
	defer fail(&err, "hcsshim::CreateLayer", path)
	if err := ctx.Err(); err != nil {
		return err
	}
	return os.Mkdir(path, 0o700)
}

// LayerExists reports whether there is a layer at the path.
func LayerExists(ctx context.Context, path string) (_ bool, err error) {
	defer fail(&err, "hcsshim::LayerExists", path)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.IsDir(), err
}

// DestroyLayer removes a layer's directory. A layer that is active, or below one that is prepared, is not removed: that is
// a sharing violation. One that is not there is none's trouble.
func DestroyLayer(ctx context.Context, path string) (err error) {
	defer fail(&err, "hcsshim::DestroyLayer", path)
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return rootfs.RemoveUnused(ctx, path)
}

// CreateScratchLayer makes a layer that takes what a container writes, on top of its parents, nearest first. The directory
// may exist, if there is no layer in it.
func CreateScratchLayer(ctx context.Context, path string, parentLayerPaths []string) (err error) {
	defer fail(&err, "hcsshim::CreateScratchLayer", path)
	if len(parentLayerPaths) == 0 {
		return fmt.Errorf("create scratch layer: there are no parents: %w", errdefs.ErrInvalidArgument)
	}
	if err := errors.Join(ctx.Err(), checkParents(parentLayerPaths)); err != nil {
		return err
	}
	_, err = rootfs.CreateVolume(ctx, path)
	return err
}

// checkParents finds out whether all parents are there.
func checkParents(paths []string) error {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("find parent layer: %w", err)
		}
	}
	return nil
}

// ExpandScratchSize gives a scratch layer room for size bytes at least, while it is in use too. The first time also limits
// it: that is only possible before anything is written. A layer does not shrink; less than it has is no error.
func ExpandScratchSize(ctx context.Context, path string, size uint64) (err error) {
	defer fail(&err, "hcsshim::ExpandScratchSize", path)
	v, err := rootfs.OpenVolume(path)
	if err != nil {
		return err
	}
	return v.Grow(ctx, size)
}

// scratch returns the scratch layer at a path, and nil for a read-only layer.
func scratch(ctx context.Context, path string) (*rootfs.Volume, error) {
	v, err := rootfs.OpenScratchLayer(ctx, path)
	if errdefs.IsNotFound(err) && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a read-only layer has nothing to mount
	}
	return v, err
}

// ActivateLayer makes reachable what a scratch layer holds; of a read-only layer there is nothing to do. A layer that is
// active stays so. DeactivateLayer is its counterpart.
func ActivateLayer(ctx context.Context, path string) (err error) {
	defer fail(&err, "hcsshim::ActivateLayer", path)
	v, err := scratch(ctx, path)
	if v == nil {
		return err
	}
	return v.Activate(ctx)
}

// DeactivateLayer undoes ActivateLayer. A layer that is not active is none's trouble. One that is prepared, or whose files
// somebody has open, stays active, and the error tells.
func DeactivateLayer(ctx context.Context, path string) (err error) {
	defer fail(&err, "hcsshim::DeactivateLayer", path)
	v, err := scratch(ctx, path)
	if v == nil {
		return err
	}
	return v.Deactivate(ctx)
}

// PrepareLayer makes an active scratch layer and its parents, nearest first, one tree, which GetLayerMountPath tells. A
// layer that is prepared stays so. UnprepareLayer is its counterpart. The parents may be layers of a Linux image.
func PrepareLayer(ctx context.Context, path string, parentLayerPaths []string) (err error) {
	defer fail(&err, "hcsshim::PrepareLayer", path)
	v, err := scratch(ctx, path)
	if v == nil {
		return err
	}
	if !areLinux(parentLayerPaths) {
		return notReady(v.PrepareNT(ctx, parentLayerPaths))
	}
	state, err := v.State()
	if err != nil {
		return err
	}
	if !state.Active {
		return notReady(rootfs.ErrNotActive)
	}
	_, err = rootfs.MountLayer(ctx, path, rootfs.MountOptions{Parents: parentLayerPaths})
	return err
}

// areLinux reports whether layers are of a Linux image, as hcs layer import makes them. The nearest one says it.
func areLinux(paths []string) bool {
	if len(paths) == 0 {
		return false
	}
	l, err := rootfs.InspectLayer(paths[0])
	return err == nil && l.Encoding == layer.POSIX
}

// filesDir is a layer's tree in its directory.
const filesDir = "Files"

// notReady gives its code to what cannot be done because the layer is not active.
func notReady(err error) error {
	if errors.Is(err, rootfs.ErrNotActive) {
		return &hcserror.Coded{Code: hcserror.NotReady, Err: err}
	}
	return err
}

// UnprepareLayer undoes PrepareLayer. The error's code is 0x37 (ERROR_DEV_NOT_EXIST) if the layer is not active, and
// 0x801f0015 (ERROR_FLT_INSTANCE_NOT_FOUND) if it is active and not prepared. Of a read-only layer there is nothing to do.
func UnprepareLayer(ctx context.Context, path string) (err error) {
	defer fail(&err, "hcsshim::UnprepareLayer", path)
	v, err := scratch(ctx, path)
	if v == nil {
		return err
	}
	err = v.Unprepare(ctx)
	switch {
	case errors.Is(err, rootfs.ErrNotActive):
		return &hcserror.Coded{Code: hcserror.DevNotExist, Err: err}
	case errors.Is(err, rootfs.ErrNotPrepared):
		return &hcserror.Coded{Code: hcserror.FltInstanceNotFound, Err: err}
	}
	return err
}

// GetLayerMountPath returns where a layer's files are: for a scratch layer that is active the tree, which is empty until it
// is prepared; otherwise the layer's directory, in which the tree is Files.
func GetLayerMountPath(ctx context.Context, path string) (_ string, err error) {
	defer fail(&err, "hcsshim::GetLayerMountPath", path)
	v, err := scratch(ctx, path)
	if err != nil {
		return "", err
	}
	if v == nil {
		return path, nil
	}
	s, err := v.State()
	if err != nil || !s.Active {
		return path, err
	}
	return v.Root(), nil
}

// fail makes a call's error that of the Host Compute System.
func fail(err *error, title, path string) {
	*err = hcserror.New(*err, title, "path="+path)
}
