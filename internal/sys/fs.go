package sys

import "time"

// Stat is what the kernel says about one object of a file system.
type Stat struct {
	Dev, Ino     uint64
	Mode         uint32 // type and permission bits as in stat(2)
	Nlink        uint64
	UID, GID     uint32
	Major, Minor uint32 // of the device that a device node stands for
	Size         int64
	Blocks       int64 // of 512 bytes
	ATime        time.Time
	MTime        time.Time
	CTime        time.Time
}

// File types and special bits of Stat.Mode. The numbers are Linux's.
const (
	ModeType    = 0o170000
	ModeFIFO    = 0o010000
	ModeChar    = 0o020000
	ModeDir     = 0o040000
	ModeBlock   = 0o060000
	ModeRegular = 0o100000
	ModeSymlink = 0o120000
	ModeSocket  = 0o140000
	ModeSetgid  = 0o002000
	ModePerm    = 0o007777 // what chmod can set
)

// Type returns the type bits of the mode.
func (s *Stat) Type() uint32 { return s.Mode & ModeType }

// IsDir reports whether the object is a directory.
func (s *Stat) IsDir() bool { return s.Type() == ModeDir }

// IsRegular reports whether the object is a regular file.
func (s *Stat) IsRegular() bool { return s.Type() == ModeRegular }

// IsSymlink reports whether the object is a symbolic link.
func (s *Stat) IsSymlink() bool { return s.Type() == ModeSymlink }

// IsWhiteout reports whether the object is the character device 0:0, which overlayfs takes for a whiteout.
func (s *Stat) IsWhiteout() bool { return s.Type() == ModeChar && s.Major == 0 && s.Minor == 0 }

// Errors that callers of this package tell apart. They match with errors.Is what the functions here return;
// what is missing or there already matches fs.ErrNotExist and fs.ErrExist.
var (
	// ErrTooManyLinks is ELOOP.
	ErrTooManyLinks = errTooManyLinks
	// ErrNotDir is ENOTDIR.
	ErrNotDir = errNotDir
	// ErrIsDir is EISDIR.
	ErrIsDir = errIsDir
	// ErrNotEmpty is ENOTEMPTY.
	ErrNotEmpty = errNotEmpty
	// ErrNoSpace is ENOSPC.
	ErrNoSpace = errNoSpace
	// ErrNameTooLong is ENAMETOOLONG.
	ErrNameTooLong = errNameTooLong
	// ErrNoOpenat2 is what OpenInRoot returns where the kernel, or a seccomp filter, denies openat2(2).
	ErrNoOpenat2 = errNoOpenat2
	// ErrNoXattr is ENODATA: the object has no such extended attribute.
	ErrNoXattr = errNoXattr
	// ErrNotSupported is EOPNOTSUPP: the file system does not know the operation.
	ErrNotSupported = errNotSupported
	// ErrNotPermitted is EPERM.
	ErrNotPermitted = errNotPermitted
)
