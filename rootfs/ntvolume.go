package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/hostcompute/hcs/internal/inroot"
)

// PrepareNT is Prepare for the Files of Windows layers, which are given by their directories, nearest first.
func (v *Volume) PrepareNT(ctx context.Context, layers []string) error {
	err := v.locked(ctx, func() error {
		user, err := userXattrs(layers)
		if err != nil {
			return err
		}
		lower := make([]string, 0, len(layers))
		for _, dir := range layers {
			lower = append(lower, filepath.Join(dir, filesDir))
		}
		return v.prepare(lower, user)
	})
	if err != nil {
		return fmt.Errorf("prepare volume %s: %w", v.dir, err)
	}
	return nil
}

// userXattrs says where the layers in dirs have their metadata. A directory with nothing but a tree has none.
func userXattrs(dirs []string) (UserXattrs, error) {
	resolved, err := resolvedPaths(dirs)
	if err != nil {
		return false, err
	}
	roots, err := openRoots(resolved)
	if err != nil {
		return false, err
	}
	user, err := sameXattrs(recorded(roots))
	return user, errors.Join(err, closeRoots(roots))
}

// recorded returns the layers that have a record. Others are nothing but trees, of which Windows' metadata is not known.
func recorded(roots []*inroot.Root) []*inroot.Root {
	return slices.DeleteFunc(slices.Clone(roots), func(root *inroot.Root) bool {
		_, err := root.Lstat(ntRecord)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// NTScratch returns what was written into the volume on top of the Windows layers in the directories parents, nearest first.
// The error is ErrNotActive if the volume is not active, and ErrPrepared if a tree is stacked on it: as on Windows a scratch
// layer is read when nobody writes it.
func (v *Volume) NTScratch(parents []string) (NTScratch, error) {
	s, err := v.State()
	switch {
	case err != nil:
	case s.Prepared:
		err = ErrPrepared
	case !s.Active:
		err = ErrNotActive
	}
	if err != nil {
		return NTScratch{}, fmt.Errorf("read volume %s: %w", v.dir, err)
	}
	return NTScratch{Upper: v.Upper(), Parents: parents}, nil
}
