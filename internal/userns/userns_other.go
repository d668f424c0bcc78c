//go:build !linux

package userns

import (
	"errors"
	"fmt"
	"runtime"
)

var errUnsupported = fmt.Errorf("user namespaces on %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Enter is for Linux.
func Enter() error { return errUnsupported }

// Arrive has nothing to end here.
func Arrive() error { return nil }

// IsInitial reports that there are no other user namespaces here.
func IsInitial() bool { return true }

// UIDs is for Linux.
func UIDs() (Map, error) { return nil, errUnsupported }

// GIDs is for Linux.
func GIDs() (Map, error) { return nil, errUnsupported }
