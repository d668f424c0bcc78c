//go:build !linux

package native

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/hostcompute/hcs/internal/wire"
)

var errUnsupported = fmt.Errorf("make a container on %s: %w", runtime.GOOS, errors.ErrUnsupported)

// CloseForeign is for Linux.
func CloseForeign() error { return errUnsupported }

// Build is for Linux.
func Build(*wire.Build, func() ([]int, error)) error { return errUnsupported }

// LimitFiles is for Linux.
func LimitFiles(string) error { return errUnsupported }
