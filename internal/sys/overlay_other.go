//go:build !linux

package sys

// MountOverlay is for Linux.
func MountOverlay(Overlay) error { return errNotOnThisOS }

// Unmount is for Linux.
func Unmount(string) error { return errNotOnThisOS }
