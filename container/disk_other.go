//go:build !linux

package container

import (
	"runtime"

	"github.com/containerd/errdefs"
)

func diskOf(string) (string, error) {
	return "", fault(errdefs.ErrNotImplemented, "limit storage: not supported on %s", runtime.GOOS)
}
