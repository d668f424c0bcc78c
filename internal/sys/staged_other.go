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

// OpenImage is for Linux.
func OpenImage(Image, uint64) (int, error) { return -1, errNotOnThisOS }

// EmptyDirectory is for Linux.
func EmptyDirectory() (int, error) { return -1, errNotOnThisOS }

// MakingFilesAs is for Linux.
func MakingFilesAs(uint32, func() error) error { return errNotOnThisOS }

// ProtectMount is for Linux.
func ProtectMount(string) error { return errNotOnThisOS }

// AttachMount is for Linux.
func AttachMount(int, int) error { return errNotOnThisOS }
