package container

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/rootfs"
)

// RootVolume says what was done to a volume (rootfs.Volume) to have its tree as
// the root of one system.
type RootVolume struct {
	// Dir is the volume's directory. A volume that there is no more needs nothing.
	Dir string `json:"dir"`
	// Activated and Prepared are the steps that the system's removal undoes.
	Activated bool `json:"activated,omitempty"`
	Prepared  bool `json:"prepared,omitempty"`
}

// KeepRootVolume has Delete leave Spec.RootVolume as it is: for who has not done
// what it says, and removes the system for that.
func (s *System) KeepRootVolume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepVolume = true
}

// takeDownVolume undoes what was done to the volume. What is undone already is
// no error; that others use it is one, of class ErrUnavailable.
func (s *System) takeDownVolume(r *RootVolume) error {
	s.mu.Lock()
	keep := s.keepVolume
	s.mu.Unlock()
	if r == nil || keep {
		return nil
	}
	v, err := rootfs.OpenVolume(r.Dir)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	// Whoever has to be waited for does not take long.
	ctx := context.Background()
	if r.Prepared {
		if err := v.Unprepare(ctx); err != nil && !errors.Is(err, rootfs.ErrNotActive) && !errors.Is(err, rootfs.ErrNotPrepared) {
			return err
		}
	}
	if r.Activated {
		return v.Deactivate(ctx)
	}
	return nil
}
