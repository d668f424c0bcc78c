//go:build !linux

package container

import (
	"context"
	"runtime"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/wire"
)

func (s *System) wireChange(_, _ *Record) (*wire.Change, error) {
	return nil, fault(errdefs.ErrNotImplemented, "not supported on %s", runtime.GOOS)
}

func (s *System) sendChange(context.Context, *wire.Change) error { return nil }

func (s *System) attachNew(context.Context, *Record, *Record) ([]string, error) { return nil, nil }
