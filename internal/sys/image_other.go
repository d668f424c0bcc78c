//go:build !linux

package sys

// IsMountPoint is for Linux.
func IsMountPoint(string) (bool, error) { return false, errNotOnThisOS }

// UnmountIdle is for Linux.
func UnmountIdle(string) error { return errNotOnThisOS }

// MountBind is for Linux.
func MountBind(_, _ string) error { return errNotOnThisOS }

// MountDir is for Linux.
func MountDir(_, _ string) error { return errNotOnThisOS }

// MountImage is for Linux.
func MountImage(_, _, _ string) error { return errNotOnThisOS }

// GrowXFS is for Linux.
func GrowXFS(string) error { return errNotOnThisOS }

// OverlayLowers is for Linux.
func OverlayLowers() ([]string, error) { return nil, errNotOnThisOS }
