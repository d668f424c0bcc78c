//go:build !linux

package sys

// Staged is for Linux.
type Staged struct{}

// Stage is for Linux.
func Stage(func() error, func() error) (*Staged, error) { return nil, errNotOnThisOS }

// Close is for Linux.
func (*Staged) Close() error { return errNotOnThisOS }

// CloneMount is for Linux.
func CloneMount(string, Access) (int, error) { return -1, errNotOnThisOS }

// MakingFilesAs is for Linux.
func MakingFilesAs(uint32, func() error) error { return errNotOnThisOS }

// ProtectMount is for Linux.
func ProtectMount(string) error { return errNotOnThisOS }

// AttachMount is for Linux.
func AttachMount(int, int) error { return errNotOnThisOS }
