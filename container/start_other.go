//go:build !linux

package container

import (
	"context"
	"runtime"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/rootfs"
)

// Start returns an error: systems run on Linux only.
func (s *System) Start(context.Context) error {
	return fault(errdefs.ErrNotImplemented, "start container %s: not supported on %s", s.Name(), runtime.GOOS)
}

// StartForMain returns an error: systems run on Linux only.
func (s *System) StartForMain(ctx context.Context) error { return s.Start(ctx) }

// OpenTree returns an error: systems run on Linux only.
func (s *System) OpenTree(context.Context) (*rootfs.Tree, error) {
	return nil, fault(errdefs.ErrNotImplemented, "open the files of container %s: not supported on %s", s.Name(), runtime.GOOS)
}

// OpenBase returns an error: systems run on Linux only.
func (s *System) OpenBase(ctx context.Context) (*rootfs.Tree, error) { return s.OpenTree(ctx) }
