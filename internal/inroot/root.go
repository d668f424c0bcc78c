package inroot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
)

// Root is a directory whose tree names are resolved in. Its methods may be called by several goroutines at once.
type Root struct {
	dir  *Dir
	walk bool // openat2 is not to be used
}

// Open opens the root directory dir, which must not be a symbolic link. Components before the last one are trusted. The
// caller closes the Root.
func Open(dir string) (*Root, error) {
	fd, err := sys.OpenAt(sys.CWD, path.Clean(dir), sys.OpenDirectory, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: dir, Err: err}
	}
	d, err := newDir(fd)
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: dir, Err: err}
	}
	return &Root{dir: d}, nil
}

// Adopt makes the open directory fd a root, which closes it.
func Adopt(fd int) (*Root, error) {
	d, err := newDir(fd)
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: fmt.Sprintf("descriptor %d", fd), Err: err}
	}
	return &Root{dir: d}, nil
}

// Close closes the root directory. Directories and files opened in it stay open.
func (r *Root) Close() error { return r.dir.Close() }

// OpenDir opens the directory name; "." or "/" is the root itself.
func (r *Root) OpenDir(name string) (*Dir, error) {
	fd, err := r.open(name, sys.OpenDirectoryFollow)
	if err != nil {
		return nil, pathError("open directory", name, err)
	}
	d, err := newDir(fd)
	if err != nil {
		return nil, pathError("open directory", name, err)
	}
	return d, nil
}

// OpenParent opens the directory that holds name's last component, and returns it with that component, which is not
// looked at. Names that end in "." or "..", or name the root, have none: the error is of class errdefs.ErrInvalidArgument.
func (r *Root) OpenParent(name string) (*Dir, string, error) {
	parent, last, err := splitLast(name)
	if err != nil {
		return nil, "", err
	}
	d, err := r.OpenDir(parent)
	if err != nil {
		return nil, "", err
	}
	return d, last, nil
}

// Open opens a regular file for reading. Symbolic links are followed within the root. Anything but a regular file is an
// error of class errdefs.ErrInvalidArgument, without being waited for or touched otherwise.
func (r *Root) Open(name string) (*os.File, error) {
	fd, err := r.open(name, sys.OpenRead)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if err := checkRegular(fd); err != nil {
		return nil, pathError("open", name, errors.Join(err, sys.Close(fd)))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadFile returns the content of a regular file, as Open finds it. More than limit bytes are an error of class
// errdefs.ErrResourceExhausted.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	file, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes: %w", limit, errdefs.ErrResourceExhausted)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

// Lstat returns what name is; a symbolic link as its last component is not followed.
func (r *Root) Lstat(name string) (sys.Stat, error) {
	return atLast(r, name, (*Dir).Lstat)
}

// Stat returns what name leads to; symbolic links are followed within the root.
func (r *Root) Stat(name string) (sys.Stat, error) {
	fd, err := r.open(name, sys.OpenPathFollow)
	if err != nil {
		return sys.Stat{}, pathError("stat", name, err)
	}
	st, err := sys.StatFD(fd)
	return st, pathError("stat", name, errors.Join(err, sys.Close(fd)))
}

// Readlink returns the target of the symbolic link name.
func (r *Root) Readlink(name string) (string, error) {
	return atLast(r, name, (*Dir).Readlink)
}

// Mkdir makes the directory name. The umask applies.
func (r *Root) Mkdir(name string, mode uint32) error {
	return r.at(name, func(d *Dir, last string) error { return d.Mkdir(last, mode) })
}

// MkdirAll makes the directory name and all that is missing on the way to it, in the places where symbolic links lead, as
// a file opened with O_CREAT would be. It returns the directory, for the caller to close. The umask applies.
func (r *Root) MkdirAll(name string, mode uint32) (*Dir, error) {
	fd, err := r.walkTo(name, ending{flags: sys.OpenDirectoryFollow, mkdir: true, mode: mode})
	if err != nil {
		return nil, pathError("make directory", name, err)
	}
	d, err := newDir(fd)
	if err != nil {
		return nil, pathError("make directory", name, err)
	}
	return d, nil
}

// Create makes the regular file name and opens it for writing. It fails with fs.ErrExist if anything has the name. The
// umask applies.
func (r *Root) Create(name string, mode uint32) (*File, error) {
	return atLast(r, name, func(d *Dir, last string) (*File, error) { return d.Create(last, mode) })
}

// Symlink makes name a symbolic link to target.
func (r *Root) Symlink(target, name string) error {
	return r.at(name, func(d *Dir, last string) error { return d.Symlink(target, last) })
}

// Link makes name another name of the object oldName. A symbolic link is linked itself, not what it leads to.
func (r *Root) Link(oldName, name string) error {
	return r.at2(oldName, name, (*Dir).Link)
}

// Rename gives oldName the new name, replacing what has it.
func (r *Root) Rename(oldName, name string) error {
	return r.at2(oldName, name, (*Dir).Rename)
}

// Mknod makes a device node or a FIFO; mode holds its type.
func (r *Root) Mknod(name string, mode, major, minor uint32) error {
	return r.at(name, func(d *Dir, last string) error { return d.Mknod(last, mode, major, minor) })
}

// Remove removes name, which is not a directory or an empty one.
func (r *Root) Remove(name string) error {
	return r.at(name, (*Dir).Remove)
}

// RemoveAll removes name and everything below it. Nothing of that name is no error.
func (r *Root) RemoveAll(name string) error {
	err := r.at(name, (*Dir).RemoveAll)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Chmod sets the permission bits of name, which must not be a symbolic link.
func (r *Root) Chmod(name string, mode uint32) error {
	return r.at(name, func(d *Dir, last string) error { return d.Chmod(last, mode) })
}

// Chown sets the owner of name, of a symbolic link itself.
func (r *Root) Chown(name string, uid, gid uint32) error {
	return r.at(name, func(d *Dir, last string) error { return d.Chown(last, uid, gid) })
}

// Attach mounts what sys.CloneMount returned on what name leads to.
func (r *Root) Attach(mount int, name string) error {
	fd, err := r.open(name, sys.OpenPathFollow)
	if err != nil {
		return pathError("mount on", name, err)
	}
	return pathError("mount on", name, errors.Join(sys.AttachMount(mount, fd), sys.Close(fd)))
}

// at calls f with name's parent and last component.
func (r *Root) at(name string, f func(d *Dir, last string) error) error {
	d, last, err := r.OpenParent(name)
	if err != nil {
		return err
	}
	return errors.Join(f(d, last), d.Close())
}

func (r *Root) at2(oldName, name string, f func(d *Dir, oldName string, newDir *Dir, name string) error) error {
	return r.at(oldName, func(oldDir *Dir, oldLast string) error {
		return r.at(name, func(newDir *Dir, last string) error { return f(oldDir, oldLast, newDir, last) })
	})
}

func atLast[T any](r *Root, name string, f func(d *Dir, last string) (T, error)) (T, error) {
	var result T
	err := r.at(name, func(d *Dir, last string) error {
		var err error
		result, err = f(d, last)
		return err
	})
	return result, err
}

// open resolves name, which exists, with the root as "/".
func (r *Root) open(name string, flags int) (int, error) {
	if !r.walk {
		fd, err := sys.OpenInRoot(r.dir.fd, name, flags)
		// A name may be longer than the kernel takes at once, and yet each component be fine.
		if !errors.Is(err, sys.ErrNoOpenat2) && !errors.Is(err, sys.ErrNameTooLong) {
			return fd, err
		}
	}
	return r.walkTo(name, ending{flags: flags})
}

// splitLast cuts the last component off.
func splitLast(name string) (parent, last string, err error) {
	parent, last = path.Split(strings.TrimRight(name, "/"))
	if last == "" || last == "." || last == ".." {
		return "", "", fmt.Errorf("open parent of %q: it has no last component: %w", name, errdefs.ErrInvalidArgument)
	}
	if parent == "" {
		parent = "."
	}
	return parent, last, nil
}

func checkRegular(fd int) error {
	st, err := sys.StatFD(fd)
	if err == nil && !st.IsRegular() {
		err = fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
	}
	return err
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
