//go:build !linux

package container

import (
	"context"
	"runtime"

	"github.com/containerd/errdefs"
)

// Start returns an error: systems run on Linux only.
func (s *System) Start(context.Context) error {
	return fault(errdefs.ErrNotImplemented, "start container %s: not supported on %s", s.Name(), runtime.GOOS)
}

// StartForMain returns an error: systems run on Linux only.
func (s *System) StartForMain(ctx context.Context) error { return s.Start(ctx) }
