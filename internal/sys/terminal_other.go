//go:build !linux

package sys

import (
	"fmt"
	"os"
	"runtime"

	"github.com/containerd/errdefs"
)

// NewTerminal makes a file of a descriptor.
func NewTerminal(fd int) *os.File { return os.NewFile(uintptr(fd), "terminal") }

// SetWindowSize returns an error.
func SetWindowSize(*os.File, uint16, uint16) error {
	return fmt.Errorf("resize a terminal: not supported on %s: %w", runtime.GOOS, errdefs.ErrNotImplemented)
}
