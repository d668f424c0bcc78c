//go:build !linux

package sys

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
)

// Of these only errNotOnThisOS ever happens here: the others are there to be compared with.
var (
	errTooManyLinks = errors.New("too many levels of symbolic links")
	errNotDir       = errors.New("not a directory")
	errIsDir        = errors.New("is a directory")
	errNotEmpty     = errors.New("directory not empty")
	errNoSpace      = errors.New("no space left on device")
	errNameTooLong  = errors.New("file name too long")
	errNoOpenat2    = errors.New("function not implemented")
	errNoXattr      = errors.New("no such extended attribute")
	errNotSupported = errors.New("operation not supported")
	errNotPermitted = errors.New("operation not permitted")
	errNotOnThisOS  = fmt.Errorf("work on a layer's tree on %s: %w", runtime.GOOS, errdefs.ErrNotImplemented)
)

// How the functions below would open things.
const (
	NoFollow = 1 << iota
	OpenPathFollow
	OpenPath
	OpenDirectory
	OpenDirectoryFollow
	OpenRead
	OpenReadNoFollow
	OpenCreate
)

// CWD stands for the working directory.
const CWD = -1

// OpenAt is for Linux.
func OpenAt(int, string, int, uint32) (int, error) { return -1, errNotOnThisOS }

// OpenInRoot is for Linux.
func OpenInRoot(int, string, int) (int, error) { return -1, errNotOnThisOS }

// Close is for Linux.
func Close(int) error { return errNotOnThisOS }

// StatFD is for Linux.
func StatFD(int) (Stat, error) { return Stat{}, errNotOnThisOS }

// StatAt is for Linux.
func StatAt(int, string) (Stat, error) { return Stat{}, errNotOnThisOS }

// BornAt is for Linux.
func BornAt(int, string) (time.Time, error) { return time.Time{}, errNotOnThisOS }

// ReadLinkAt is for Linux.
func ReadLinkAt(int, string) (string, error) { return "", errNotOnThisOS }

// MkdirAt is for Linux.
func MkdirAt(int, string, uint32) error { return errNotOnThisOS }

// SymlinkAt is for Linux.
func SymlinkAt(string, int, string) error { return errNotOnThisOS }

// LinkAt is for Linux.
func LinkAt(int, string, int, string) error { return errNotOnThisOS }

// MknodAt is for Linux.
func MknodAt(int, string, uint32, uint32, uint32) error { return errNotOnThisOS }

// UnlinkAt is for Linux.
func UnlinkAt(int, string) error { return errNotOnThisOS }

// RmdirAt is for Linux.
func RmdirAt(int, string) error { return errNotOnThisOS }

// RenameAt is for Linux.
func RenameAt(int, string, int, string) error { return errNotOnThisOS }

// RenameNoReplaceAt is for Linux.
func RenameNoReplaceAt(int, string, int, string) error { return errNotOnThisOS }

// ChownFD is for Linux.
func ChownFD(int, uint32, uint32) error { return errNotOnThisOS }

// ChownAt is for Linux.
func ChownAt(int, string, uint32, uint32) error { return errNotOnThisOS }

// ChmodFD is for Linux.
func ChmodFD(int, uint32) error { return errNotOnThisOS }

// ChmodAt is for Linux.
func ChmodAt(int, string, uint32) error { return errNotOnThisOS }

// SetTimesFD is for Linux.
func SetTimesFD(int, time.Time, time.Time) error { return errNotOnThisOS }

// SetTimesAt is for Linux.
func SetTimesAt(int, string, time.Time, time.Time) error { return errNotOnThisOS }

// Write is for Linux.
func Write(int, []byte) error { return errNotOnThisOS }

// WriteAt is for Linux.
func WriteAt(int, []byte, int64) error { return errNotOnThisOS }

// Truncate is for Linux.
func Truncate(int, int64) error { return errNotOnThisOS }

// NextData is for Linux.
func NextData(int, int64, int64) (int64, int64, error) { return 0, 0, errNotOnThisOS }

// SyncFS is for Linux.
func SyncFS(int) error { return errNotOnThisOS }

// StartWriteback is for Linux.
func StartWriteback(int) {}

// KeepAccessTime does nothing on this system.
func KeepAccessTime(int) {}

// SyncFD is for Linux.
func SyncFD(int) error { return errNotOnThisOS }

// CheckNoMagicLink is for Linux.
func CheckNoMagicLink(int) error { return errNotOnThisOS }

// Umask is for Linux.
func Umask() uint32 { return 0o777 }

// ReadDirNames is for Linux.
func ReadDirNames(int) ([]string, error) { return nil, errNotOnThisOS }

// SetXattrFD is for Linux.
func SetXattrFD(int, string, string) error { return errNotOnThisOS }

// SetXattrAt is for Linux.
func SetXattrAt(int, string, string, string) error { return errNotOnThisOS }

// GetXattrFD is for Linux.
func GetXattrFD(int, string) (string, error) { return "", errNotOnThisOS }

// GetXattrAt is for Linux.
func GetXattrAt(int, string, string) (string, error) { return "", errNotOnThisOS }

// ListXattrsFD is for Linux.
func ListXattrsFD(int) ([]string, error) { return nil, errNotOnThisOS }

// ListXattrsAt is for Linux.
func ListXattrsAt(int, string) ([]string, error) { return nil, errNotOnThisOS }

// RemoveXattrFD is for Linux.
func RemoveXattrFD(int, string) error { return errNotOnThisOS }
