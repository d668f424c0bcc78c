//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package image

import (
	"os"
	"runtime"

	"github.com/containerd/errdefs"
)

func openNoFollow(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, notRegular(path, info)
	}
	return os.Open(path)
}

func openOwn(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
}

func tryLock(*os.File, lockMode) error {
	return classed(errdefs.ErrNotImplemented, "file locks are not supported on %s", runtime.GOOS)
}

func waitLock(f *os.File, mode lockMode) error { return tryLock(f, mode) }

func syncDir(string) error { return nil }
