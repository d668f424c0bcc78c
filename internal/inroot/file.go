package inroot

import (
	"time"

	"github.com/hostcompute/hcs/internal/sys"
)

// File is an open file or directory. It has no read-ahead, poller or finalizer: a layer has a hundred thousand of them.
type File struct {
	fd int
}

// Close closes the file.
func (f *File) Close() error { return sys.Close(f.fd) }

// Stat returns what the file is now.
func (f *File) Stat() (sys.Stat, error) { return sys.StatFD(f.fd) }

// Born returns when the file was made, and the zero time where the file system does not tell.
func (f *File) Born() (time.Time, error) { return sys.BornAt(f.fd, "") }

// Write writes all of b at the end of what was written before.
func (f *File) Write(b []byte) (int, error) {
	if err := sys.Write(f.fd, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteAt writes all of b from offset on.
func (f *File) WriteAt(b []byte, offset int64) (int, error) {
	if err := sys.WriteAt(f.fd, b, offset); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Truncate sets the size; what is beyond the old end is a hole.
func (f *File) Truncate(size int64) error { return sys.Truncate(f.fd, size) }

// Chown sets the owner.
func (f *File) Chown(uid, gid uint32) error { return sys.ChownFD(f.fd, uid, gid) }

// Chmod sets the permission bits.
func (f *File) Chmod(mode uint32) error { return sys.ChmodFD(f.fd, mode) }

// SetTimes sets the times to the nanosecond.
func (f *File) SetTimes(atime, mtime time.Time) error { return sys.SetTimesFD(f.fd, atime, mtime) }

// SetXattr sets an extended attribute.
func (f *File) SetXattr(attr, value string) error { return sys.SetXattrFD(f.fd, attr, value) }

// Xattr returns an extended attribute. The error matches sys.ErrNoXattr if there is none of that name.
func (f *File) Xattr(attr string) (string, error) { return sys.GetXattrFD(f.fd, attr) }

// Xattrs returns all extended attributes.
func (f *File) Xattrs() (map[string]string, error) {
	attrs, err := sys.ListXattrsFD(f.fd)
	if err != nil {
		return nil, err
	}
	return readXattrs(attrs, f.Xattr)
}

// RemoveXattr removes an extended attribute. The error matches sys.ErrNoXattr if there is none of that name.
func (f *File) RemoveXattr(attr string) error { return sys.RemoveXattrFD(f.fd, attr) }

// Sync makes the content durable.
func (f *File) Sync() error { return sys.SyncFD(f.fd) }

// StartWriteback has the kernel begin to write the content to disk, and does not wait.
func (f *File) StartWriteback() { sys.StartWriteback(f.fd) }

// SyncFS makes durable all that was written to the file system which the file is on.
func (f *File) SyncFS() error { return sys.SyncFS(f.fd) }

// Borrow returns the open descriptor fd as a File, which is not to be closed.
func Borrow(fd int) *File { return &File{fd: fd} }
