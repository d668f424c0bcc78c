package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// A read-only layer that is mounted shows its tree, over those of the layers below it, where a Volume has its root. The
// directory for that, and the one for locks, come with the mount and go with it.

// mountView mounts the tree of a read-only layer and of those below it, read only.
func (l *LayerDir) mountView(ctx context.Context, parents []string) error {
	below, err := openParents(parents)
	if err != nil {
		return err
	}
	for _, p := range below {
		if p.Encoding != l.Encoding {
			return fmt.Errorf("its encoding is %v, that of %s %v: %w", l.Encoding, p.Path, p.Encoding, errdefs.ErrInvalidArgument)
		}
	}
	lower, user, err := lowersOf(append([]LayerDir{*l}, below...))
	if err != nil {
		return err
	}
	v := &Volume{dir: l.Path}
	return v.lockedBriefly(ctx, func() error {
		mounted, err := sys.IsMountPoint(v.Root())
		if err != nil || mounted {
			return err
		}
		if err := os.Mkdir(v.Root(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if len(lower) == 1 { // a single directory would be mounted as it is, whiteouts and all
			lower = append(lower, v.Root())
		}
		err = sys.MountOverlay(sys.Overlay{Lower: lower, Target: v.Root(), UserXattr: bool(user)})
		if err != nil {
			_ = os.Remove(v.Root()) // nothing is in it
		}
		return err
	})
}

// lowersOf returns the trees of layers, the nearest first, to be stacked, and where overlayfs finds its marks in them.
func lowersOf(layers []LayerDir) ([]string, UserXattrs, error) {
	trees, user := treesOf(layers), layers[0].userXattr
	if layers[0].Encoding == layer.NT {
		var err error
		if user, err = userXattrs(pathsOf(layers)); err != nil {
			return nil, false, err
		}
	}
	trees, err := resolvedPaths(trees)
	return trees, user, err
}

// resolvedPaths returns the directories without symbolic links on the way, as CheckUnused looks for them.
func resolvedPaths(dirs []string) ([]string, error) {
	resolved := make([]string, 0, len(dirs))
	for _, dir := range dirs {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, fmt.Errorf("find layer: %w", err)
		}
		resolved = append(resolved, real)
	}
	return resolved, nil
}

// unmountView undoes mountView. The error is ErrNotActive if the layer is not mounted.
func (l *LayerDir) unmountView(ctx context.Context) error {
	v := &Volume{dir: l.Path}
	return v.lockedBriefly(ctx, func() error {
		mounted, err := sys.IsMountPoint(v.Root())
		if err != nil {
			return err
		}
		if mounted {
			if err := sys.UnmountIdle(v.Root()); err != nil {
				return err
			}
		}
		if err := os.Remove(v.Root()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !mounted {
			return ErrNotActive
		}
		return nil
	})
}

// lockedBriefly runs f while nobody else mounts or unmounts what is no volume, and leaves no lock behind: who waits makes
// the directory for it again.
func (v *Volume) lockedBriefly(ctx context.Context, f func() error) error {
	if _, err := os.Stat(v.dir); err != nil { // locking would make it
		return missing(err)
	}
	ran := false
	var err error
	for attempts := 0; !ran && attempts < enterAttempts; attempts++ {
		err = v.lockedAnew(ctx, func() error { ran = true; return f() })
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	_ = os.Remove(filepath.Join(v.path(volumeLocks), lockDir)) // unless somebody else has the lock
	_ = os.Remove(v.path(volumeLocks))
	return err
}
