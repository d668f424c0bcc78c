package inroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
)

// Dir is an open directory of the tree. Its methods take single names, the directory's own entries, and never follow a
// symbolic link of that name. They may be called by several goroutines at once.
type Dir struct {
	fd   int
	stat sys.Stat
}

func newDir(fd int) (*Dir, error) {
	st, err := sys.StatFD(fd)
	if err != nil {
		return nil, errors.Join(err, sys.Close(fd))
	}
	return &Dir{fd: fd, stat: st}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return sys.Close(d.fd) }

// Stat returns what the directory was when it was opened.
func (d *Dir) Stat() *sys.Stat { return &d.stat }

// Names returns the names of the directory's entries in ascending order of bytes. The access time stays, if the directory is
// this process's own.
func (d *Dir) Names() ([]string, error) {
	// A descriptor of its own, as reading moves the offset.
	fd, err := sys.OpenAt(d.fd, ".", sys.OpenDirectory, 0)
	if err != nil {
		return nil, pathError("read directory", ".", err)
	}
	sys.KeepAccessTime(fd)
	names, err := sys.ReadDirNames(fd)
	if err := errors.Join(err, sys.Close(fd)); err != nil {
		return nil, pathError("read directory", ".", err)
	}
	slices.Sort(names)
	return names, nil
}

// OpenDir opens the directory name.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := sys.OpenAt(d.fd, name, sys.OpenDirectory, 0)
	if err != nil {
		return nil, pathError("open directory", name, err)
	}
	sub, err := newDir(fd)
	if err != nil {
		return nil, pathError("open directory", name, err)
	}
	return sub, nil
}

// Open opens the regular file name for reading, as Root.Open does.
func (d *Dir) Open(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := sys.OpenAt(d.fd, name, sys.OpenReadNoFollow, 0)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if err := checkRegular(fd); err != nil {
		return nil, pathError("open", name, errors.Join(err, sys.Close(fd)))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Create makes the regular file name and opens it for writing. It fails with fs.ErrExist if anything has the name. The
// umask applies.
func (d *Dir) Create(name string, mode uint32) (*File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := sys.OpenAt(d.fd, name, sys.OpenCreate, mode)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return &File{fd: fd}, nil
}

// Lstat returns what name is.
func (d *Dir) Lstat(name string) (sys.Stat, error) {
	if err := checkName(name); err != nil {
		return sys.Stat{}, err
	}
	st, err := sys.StatAt(d.fd, name)
	return st, pathError("stat", name, err)
}

// Born returns when name was made, and the zero time where the file system does not tell.
func (d *Dir) Born(name string) (time.Time, error) {
	if err := checkName(name); err != nil {
		return time.Time{}, err
	}
	t, err := sys.BornAt(d.fd, name)
	return t, pathError("stat", name, err)
}

// Readlink returns the target of the symbolic link name.
func (d *Dir) Readlink(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	target, err := sys.ReadLinkAt(d.fd, name)
	return target, pathError("read link", name, err)
}

// Mkdir makes the directory name. The umask applies.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.do("make directory", name, func() error { return sys.MkdirAt(d.fd, name, mode) })
}

// Symlink makes name a symbolic link to target.
func (d *Dir) Symlink(target, name string) error {
	return d.do("make symbolic link", name, func() error { return sys.SymlinkAt(target, d.fd, name) })
}

// Link makes name in newDir another name of the directory's entry oldName; of a symbolic link itself.
func (d *Dir) Link(oldName string, newDir *Dir, name string) error {
	if err := checkName(oldName); err != nil {
		return err
	}
	return d.do("link", name, func() error { return sys.LinkAt(d.fd, oldName, newDir.fd, name) })
}

// Rename moves the directory's entry oldName to name in newDir, replacing what has that name.
func (d *Dir) Rename(oldName string, newDir *Dir, name string) error {
	if err := checkName(oldName); err != nil {
		return err
	}
	return d.do("rename", name, func() error { return sys.RenameAt(d.fd, oldName, newDir.fd, name) })
}

// Mknod makes a device node or a FIFO; mode holds its type. The umask applies.
func (d *Dir) Mknod(name string, mode, major, minor uint32) error {
	return d.do("make node", name, func() error { return sys.MknodAt(d.fd, name, mode, major, minor) })
}

// Remove removes name, which is not a directory or an empty one.
func (d *Dir) Remove(name string) error {
	return d.do("remove", name, func() error {
		err := sys.UnlinkAt(d.fd, name)
		if errors.Is(err, sys.ErrIsDir) || errors.Is(err, sys.ErrNotPermitted) { // POSIX says EPERM, Linux EISDIR
			return sys.RmdirAt(d.fd, name)
		}
		return err
	})
}

// Chmod sets the permission bits of name, which must not be a symbolic link.
func (d *Dir) Chmod(name string, mode uint32) error {
	return d.do("change mode", name, func() error { return sys.ChmodAt(d.fd, name, mode) })
}

// Chown sets the owner of name.
func (d *Dir) Chown(name string, uid, gid uint32) error {
	return d.do("change owner", name, func() error { return sys.ChownAt(d.fd, name, uid, gid) })
}

// SetTimes sets the times of name.
func (d *Dir) SetTimes(name string, atime, mtime time.Time) error {
	return d.do("set times", name, func() error { return sys.SetTimesAt(d.fd, name, atime, mtime) })
}

// SetXattr sets an extended attribute of name.
func (d *Dir) SetXattr(name, attr, value string) error {
	return d.do("set xattr "+attr, name, func() error { return sys.SetXattrAt(d.fd, name, attr, value) })
}

// Xattrs returns the extended attributes of name.
func (d *Dir) Xattrs(name string) (map[string]string, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	attrs, err := sys.ListXattrsAt(d.fd, name)
	if err != nil {
		return nil, pathError("list xattrs", name, err)
	}
	values, err := readXattrs(attrs, func(attr string) (string, error) { return sys.GetXattrAt(d.fd, name, attr) })
	return values, pathError("read xattrs", name, err)
}

// Self returns the directory as an object with metadata. It shares the descriptor: closing one closes both.
func (d *Dir) Self() *File { return &File{fd: d.fd} }

// do checks the name and adds it to the error.
func (d *Dir) do(op, name string, f func() error) error {
	if err := checkName(name); err != nil {
		return err
	}
	return pathError(op, name, f())
}

// checkName keeps names from becoming paths.
func checkName(name string) error {
	if name != "" && name != "." && name != ".." && !strings.ContainsRune(name, '/') {
		return nil
	}
	return fmt.Errorf("use %q as a name in a directory: it is none: %w", name, errdefs.ErrInvalidArgument)
}

// readXattrs reads the values; those that went away meanwhile are left out.
func readXattrs(attrs []string, get func(attr string) (string, error)) (map[string]string, error) {
	var values map[string]string
	for _, attr := range attrs {
		value, err := get(attr)
		if errors.Is(err, sys.ErrNoXattr) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", attr, err)
		}
		if values == nil {
			values = make(map[string]string, len(attrs))
		}
		values[attr] = value
	}
	return values, nil
}
