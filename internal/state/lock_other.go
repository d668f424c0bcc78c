//go:build !linux

package state

import (
	"fmt"
	"os"
	"runtime"

	"github.com/containerd/errdefs"
)

func flockTry(*os.File, lockMode) error {
	return fmt.Errorf("file locks between processes on %s: %w", runtime.GOOS, errdefs.ErrNotImplemented)
}

func flockRelease(*os.File) error { return nil }
