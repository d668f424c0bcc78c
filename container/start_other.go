//go:build !linux

package container

import (
	"context"
	"fmt"
	"runtime"

	"github.com/containerd/errdefs"
)

// Start returns an error: systems run on Linux only.
func (s *System) Start(context.Context) error {
	return fmt.Errorf("start container %s: not supported on %s: %w", s.Name(), runtime.GOOS, errdefs.ErrNotImplemented)
}

// StartForMain returns an error: systems run on Linux only.
func (s *System) StartForMain(ctx context.Context) error { return s.Start(ctx) }
