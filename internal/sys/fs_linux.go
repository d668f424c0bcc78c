package sys

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	errTooManyLinks = unix.ELOOP
	errNotDir       = unix.ENOTDIR
	errIsDir        = unix.EISDIR
	errNotEmpty     = unix.ENOTEMPTY
	errNoSpace      = unix.ENOSPC
	errNameTooLong  = unix.ENAMETOOLONG
	errNoOpenat2    = unix.ENOSYS
	errNoXattr      = unix.ENODATA
	errNotSupported = unix.EOPNOTSUPP
	errNotPermitted = unix.EPERM
)

// How the functions below open things. O_CLOEXEC is always added.
const (
	// NoFollow makes opening fail where the last component is a symbolic link.
	NoFollow = unix.O_NOFOLLOW
	// OpenPathFollow opens any object without touching it.
	OpenPathFollow = unix.O_PATH
	// OpenPath opens any object without touching it, a symbolic link itself too.
	OpenPath = OpenPathFollow | NoFollow
	// OpenDirectory opens a directory for reading, never through a symbolic link.
	OpenDirectory = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW
	// OpenDirectoryFollow opens a directory for reading; a symbolic link is resolved.
	OpenDirectoryFollow = unix.O_RDONLY | unix.O_DIRECTORY
	// OpenRead opens for reading and neither waits for a FIFO's writer nor takes a terminal.
	OpenRead = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	// OpenReadNoFollow is OpenRead that never goes through a symbolic link.
	OpenReadNoFollow = OpenRead | unix.O_NOFOLLOW
	// OpenCreate makes a new regular file and opens it for writing.
	OpenCreate = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
)

// CWD stands for the working directory where a directory descriptor is asked for.
const CWD = unix.AT_FDCWD

// OpenAt opens name, seen from dir, and returns the descriptor. mode counts for OpenCreate alone.
func OpenAt(dir int, name string, flags int, mode uint32) (int, error) {
	return retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode) })
}

// OpenInRoot opens an existing name with root as "/": absolute names, absolute symbolic links and ".." stay within it,
// and magic links are refused. The error matches ErrNoOpenat2 where openat2(2) cannot be had.
func OpenInRoot(root int, name string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, name, &how)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN: // EAGAIN: a rename or mount elsewhere raced with ".."
			continue
		case err == unix.EPERM && !openat2Works():
			// Seccomp profiles older than the call answer EPERM to what they do not know.
			return -1, unix.ENOSYS
		}
		return fd, err
	}
}

func openat2Works() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// Close closes a descriptor.
func Close(fd int) error { return unix.Close(fd) }

// StatFD returns what the descriptor stands for.
func StatFD(fd int) (Stat, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstat(fd, &st) })
	return newStat(&st), err
}

// StatAt returns what name in dir is. It does not follow symbolic links.
func StatAt(dir int, name string) (Stat, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return newStat(&st), err
}

func newStat(st *unix.Stat_t) Stat {
	return Stat{
		Dev:   uint64(st.Dev), //nolint:unconvert // differs between architectures
		Ino:   st.Ino,
		Mode:  st.Mode,
		Nlink: uint64(st.Nlink), //nolint:unconvert // differs between architectures
		UID:   st.Uid,
		GID:   st.Gid,
		Major: unix.Major(uint64(st.Rdev)), //nolint:unconvert // differs between architectures
		Minor: unix.Minor(uint64(st.Rdev)), //nolint:unconvert // differs between architectures
		Size:  st.Size, Blocks: st.Blocks,
		ATime: time.Unix(st.Atim.Unix()), MTime: time.Unix(st.Mtim.Unix()), CTime: time.Unix(st.Ctim.Unix()),
	}
}

// BornAt returns when name in dir was made, and the zero time where the file system does not tell; an empty name stands for
// dir itself. It does not follow symbolic links.
func BornAt(dir int, name string) (time.Time, error) {
	var st unix.Statx_t
	err := again(func() error {
		return unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st)
	})
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}, err
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)), nil
}

// ReadLinkAt returns the target of the symbolic link name in dir; an empty name stands for dir itself, opened with
// OpenPath.
func ReadLinkAt(dir int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := retry(func() (int, error) { return unix.Readlinkat(dir, name, buf) })
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// MkdirAt makes the directory name in dir.
func MkdirAt(dir int, name string, mode uint32) error {
	return again(func() error { return unix.Mkdirat(dir, name, mode) })
}

// SymlinkAt makes the symbolic link name in dir.
func SymlinkAt(target string, dir int, name string) error {
	return again(func() error { return unix.Symlinkat(target, dir, name) })
}

// LinkAt makes name in dir another name of oldName in oldDir. A symbolic link is linked itself.
func LinkAt(oldDir int, oldName string, dir int, name string) error {
	return again(func() error { return unix.Linkat(oldDir, oldName, dir, name, 0) })
}

// MknodAt makes a device node or FIFO; mode holds the type.
func MknodAt(dir int, name string, mode, major, minor uint32) error {
	dev := unix.Mkdev(major, minor)
	return again(func() error { return unix.Mknodat(dir, name, mode, int(dev)) })
}

// UnlinkAt removes name from dir unless it is a directory.
func UnlinkAt(dir int, name string) error {
	return again(func() error { return unix.Unlinkat(dir, name, 0) })
}

// RmdirAt removes the empty directory name from dir.
func RmdirAt(dir int, name string) error {
	return again(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

// RenameAt renames, replacing what has the new name.
func RenameAt(oldDir int, oldName string, dir int, name string) error {
	return again(func() error { return unix.Renameat(oldDir, oldName, dir, name) })
}

// RenameNoReplaceAt renames, and fails with fs.ErrExist if something has the new name.
func RenameNoReplaceAt(oldDir int, oldName string, dir int, name string) error {
	return again(func() error { return unix.Renameat2(oldDir, oldName, dir, name, unix.RENAME_NOREPLACE) })
}

// ChownFD sets the owner of what fd stands for.
func ChownFD(fd int, uid, gid uint32) error {
	return again(func() error { return unix.Fchown(fd, int(uid), int(gid)) })
}

// ChownAt sets the owner of name in dir and does not follow symbolic links.
func ChownAt(dir int, name string, uid, gid uint32) error {
	return again(func() error { return unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW) })
}

// ChmodFD sets the permission bits of what fd stands for.
func ChmodFD(fd int, mode uint32) error {
	return again(func() error { return unix.Fchmod(fd, mode) })
}

// ChmodAt sets the permission bits of name in dir. It fails on a symbolic link, which has none.
func ChmodAt(dir int, name string, mode uint32) error {
	err := again(func() error { return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	if err != unix.EOPNOTSUPP {
		return err
	}
	// Before Linux 6.6 there is no fchmodat2(2). A descriptor pins the object, and its entry below /proc leads to that
	// object only. ENOTSUP is also what a symbolic link gives.
	fd, err := OpenAt(dir, name, OpenPath, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	st, err := StatFD(fd)
	if err != nil {
		return err
	}
	if st.IsSymlink() {
		return unix.EOPNOTSUPP
	}
	return again(func() error { return unix.Chmod(procFD(fd), mode) })
}

// SetTimesFD sets the times of what fd stands for, to the nanosecond.
func SetTimesFD(fd int, atime, mtime time.Time) error {
	ts := timespecs(atime, mtime)
	return again(func() error {
		// futimens(3) is this call without a path, which x/sys cannot express.
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// SetTimesAt sets the times of name in dir and does not follow symbolic links.
func SetTimesAt(dir int, name string, atime, mtime time.Time) error {
	ts := timespecs(atime, mtime)
	return again(func() error { return unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW) })
}

func timespecs(atime, mtime time.Time) [2]unix.Timespec {
	return [2]unix.Timespec{timespec(atime), timespec(mtime)}
}

func timespec(t time.Time) unix.Timespec {
	ts := unix.Timespec{}
	setTimespec(&ts.Sec, t.Unix())
	setTimespec(&ts.Nsec, int64(t.Nanosecond()))
	return ts
}

// setTimespec stores in whatever width the architecture has, at the nearest value it can hold.
func setTimespec[T int32 | int64](dst *T, v int64) {
	if unsafe.Sizeof(*dst) == 4 {
		v = min(max(v, math.MinInt32), math.MaxInt32)
	}
	*dst = T(v)
}

// Write writes all of b.
func Write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(fd, b) })
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// WriteAt writes all of b from the given offset on.
func WriteAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Pwrite(fd, b, offset) })
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// Truncate sets the size of the file; what lies beyond its old end is a hole.
func Truncate(fd int, size int64) error {
	return again(func() error { return unix.Ftruncate(fd, size) })
}

// NextData returns the first run of data at or after offset in a file of the given size: [start, end). start is size
// when only a hole follows. File systems that do not know holes say that all is data.
func NextData(fd int, offset, size int64) (start, end int64, err error) {
	if offset >= size {
		return size, size, nil
	}
	start, err = unix.Seek(fd, offset, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	return min(start, size), min(end, size), err
}

// SyncFS makes durable all that was written to the file system which holds fd, and reports what could not be written.
func SyncFS(fd int) error {
	return again(func() error { return unix.Syncfs(fd) })
}

// StartWriteback has the kernel begin to write the file's content to disk, and does not wait. A failure is not reported: it
// is only a hint, and what cannot be written is SyncFS's to say.
func StartWriteback(fd int) {
	_ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// KeepAccessTime lets reading from fd leave the access time as it is, if this process owns the file or may all the same.
func KeepAccessTime(fd int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NOATIME) // somebody else's file
	}
}

// SyncFD makes durable what fd stands for; a directory's entries where it is a directory.
func SyncFD(fd int) error {
	return again(func() error { return unix.Fsync(fd) })
}

// CheckNoMagicLink returns an error if the symbolic link that fd, opened with OpenPath, stands for lies on procfs, where
// alone magic links exist.
func CheckNoMagicLink(fd int) error {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return err
	}
	if int64(st.Type) == unix.PROC_SUPER_MAGIC { //nolint:unconvert // differs between architectures
		return unix.ELOOP // as RESOLVE_NO_MAGICLINKS has it
	}
	return nil
}

// Umask returns the process's umask without changing it, and 0777 where that cannot be found out.
func Umask() uint32 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	_, rest, found := strings.Cut(string(data), "\nUmask:")
	if !found {
		return 0o777
	}
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(mask)
}

// ReadDirNames appends the names in the directory fd, which must not have been read before, without "." and "..", in no
// order.
func ReadDirNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil || n <= 0 {
			return names, err
		}
		names = appendNames(names, buf[:n])
	}
}

// appendNames parses linux_dirent64: ino, off (8 bytes each), reclen (2), type (1), name.
func appendNames(names []string, buf []byte) []string {
	const nameOffset = 19
	for len(buf) > nameOffset {
		length := int(*(*uint16)(unsafe.Pointer(&buf[16])))
		if length < nameOffset || length > len(buf) {
			return names
		}
		name := buf[nameOffset:length]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			names = append(names, s)
		}
		buf = buf[length:]
	}
	return names
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// again repeats what a signal interrupted.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
