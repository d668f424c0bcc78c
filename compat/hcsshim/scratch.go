package hcsshim

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
	compute "github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/rootfs"
)

// scratch is a container's scratch layer, where the container mounts it and not the caller.
type scratch struct {
	Path    string
	Parents []string // nearest first
	Size    uint64   // bytes; 0 leaves it as it is

	// What is to be done, and undone at the container's end: not what the caller had done already.
	Activate, Prepare bool
}

// scratchOf returns the scratch layer that a container is to mount, and where its tree is then. It is nil where the
// configuration has a root already.
func scratchOf(ctx context.Context, c *ContainerConfig) (_ *scratch, root string, _ error) {
	if c.VolumePath != "" {
		return nil, c.VolumePath, nil
	}
	if c.LayerFolderPath == "" || len(c.Layers) == 0 {
		return nil, "", coded(hcserror.InvalidParameter, "it has no root: give VolumePath, or LayerFolderPath and Layers")
	}
	dir, err := filepath.Abs(c.LayerFolderPath)
	if err != nil {
		return nil, "", err
	}
	v, err := rootfs.OpenScratchLayer(ctx, dir)
	if err != nil {
		return nil, "", err
	}
	state, err := v.State()
	if err != nil {
		return nil, "", err
	}
	s := &scratch{Path: dir, Size: c.StorageSandboxSize, Activate: !state.Active, Prepare: !state.Prepared}
	for _, l := range c.Layers {
		parent, err := filepath.Abs(l.Path)
		if err != nil {
			return nil, "", err
		}
		s.Parents = append(s.Parents, parent)
	}
	return s, v.Root(), nil
}

// rootVolume tells what the container's removal has to undo.
func (s *scratch) rootVolume() *compute.RootVolume {
	if s == nil {
		return nil
	}
	return &compute.RootVolume{Dir: s.Path, Activated: s.Activate, Prepared: s.Prepare}
}

// mount does what is to be done, or nothing.
func (s *scratch) mount(ctx context.Context) error {
	done := scratch{Path: s.Path} // what is undone: a call that failed has done nothing, and may fail as another has the layer's lock
	if s.Activate && s.Size > 0 {
		if err := wclayer.ExpandScratchSize(ctx, s.Path, s.Size); err != nil {
			return err
		}
	}
	if s.Activate {
		if err := wclayer.ActivateLayer(ctx, s.Path); err != nil {
			return err
		}
		done.Activate = true
	}
	if s.Prepare {
		if err := wclayer.PrepareLayer(ctx, s.Path, s.Parents); err != nil {
			return errors.Join(err, done.unmount(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

// unmount undoes mount. What is undone already is none of its trouble.
func (s *scratch) unmount(ctx context.Context) error {
	var errs []error
	if s.Prepare {
		err := wclayer.UnprepareLayer(ctx, s.Path)
		if code := hcserror.Code(err); code != hcserror.DevNotExist && code != hcserror.FltInstanceNotFound {
			errs = append(errs, err)
		}
	}
	if s.Activate && errors.Join(errs...) == nil {
		errs = append(errs, wclayer.DeactivateLayer(ctx, s.Path))
	}
	return errors.Join(errs...)
}

// retiring has one at a time retire a container, so that the others find all done.
var retiring sync.Mutex

// retire removes what is kept of a container that has stopped, and takes its scratch layer down: whoever is killed meanwhile,
// the next one finds what is left to do. Another program that has done it all may have given the layer to another container
// already, which Delete sees by the record.
func retire(ctx context.Context, system *compute.System) error {
	retiring.Lock()
	defer retiring.Unlock()
	err := system.Delete(ctx)
	if errors.Is(err, errdefs.ErrFailedPrecondition) { // the start that a client began, who was killed, came to its end after all
		if err = system.Terminate(ctx); err == nil {
			err = system.Delete(ctx)
		}
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
