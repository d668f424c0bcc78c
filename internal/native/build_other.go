//go:build !linux

package native

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/hostcompute/hcs/internal/wire"
)

// Build is for Linux.
func Build(*wire.Build) error {
	return fmt.Errorf("make a container on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
