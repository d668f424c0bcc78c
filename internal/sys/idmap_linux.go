package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNoIDMap says that files cannot be shown with other owners than they have.
var ErrNoIDMap = errors.New("its file system, or one that is mounted below it, cannot show its files with other owners")

// OpenUserNamespace opens the user namespace of a process.
func OpenUserNamespace(pid int) (*os.File, error) {
	return os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
}

// NewBind returns another mount, nowhere attached and private, of what is at path, with what is mounted below it if
// tree says so. It has the attributes, MOUNT_ATTR_*, and, unless users is nil, shows each owner as the id that the user
// namespace has for it: id 0 of the files as the namespace's 0, and so on. Not every file system can be shown like this:
// the error is ErrNoIDMap then.
func NewBind(path string, tree MountTree, attributes uint64, users *os.File) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if tree == WholeTree {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	err = setAttributes(f, attributes)
	if err == nil && (tree == WholeTree || users != nil) {
		err = mapOwners(f, users)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// MountTree says what of a tree of mounts is meant.
type MountTree uint8

const (
	// OneMount is the mount alone.
	OneMount MountTree = iota
	// WholeTree is the mount with all that are below it.
	WholeTree
)

func setAttributes(f *os.File, attributes uint64) error {
	attr := unix.MountAttr{Attr_set: attributes, Propagation: unix.MS_PRIVATE}
	if attributes&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
	}
	if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &os.PathError{Op: "mount_setattr", Path: f.Name(), Err: err}
	}
	return nil
}

// mapOwners makes the whole tree of mounts private and, unless users is nil, maps its owners.
func mapOwners(f, users *os.File) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if users != nil {
		attr.Attr_set, attr.Userns_fd = unix.MOUNT_ATTR_IDMAP, uint64(users.Fd())
	}
	err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
	if users != nil && err == unix.EINVAL {
		return fmt.Errorf("show %s with the ids of a user namespace: %w", f.Name(), ErrNoIDMap)
	}
	if err != nil {
		return &os.PathError{Op: "mount_setattr", Path: f.Name(), Err: err}
	}
	return nil
}

// NewMappedOverlay is NewOverlay with all directories shown as the user namespace has their owners; what is written
// is on disk as the namespace sees it, too. First is the id, here, of the namespace's 0. The layers are mounted below stage, an
// existing directory, for a moment: overlayfs before Linux 6.13 takes no mounts that are nowhere attached. The mount
// namespace should be the caller's own.
func NewMappedOverlay(o Overlay, users *os.File, first uint32, stage string) (f *os.File, err error) {
	if err := o.validateLayers(); err != nil {
		return nil, err
	}
	if err := MountTmpfs(stage); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, Unmount(stage)) }()
	if o, err = stageLayers(o, users, stage); err != nil {
		return nil, err
	}
	// Overlayfs does all that it does as whoever mounts it. What it makes for itself has to have an owner whom the mapped
	// mounts know.
	OnThreadOfItsOwn(func() {
		if err = useFileIDs(first); err == nil {
			f, err = NewOverlay(o)
		}
	})
	return f, err
}

// stageLayers returns the overlay of the same directories, by mapped mounts of them below stage.
func stageLayers(o Overlay, users *os.File, stage string) (Overlay, error) {
	mapped := func(name, dir string) (string, error) {
		target := filepath.Join(stage, name)
		if err := os.Mkdir(target, 0o755); err != nil {
			return "", err
		}
		f, err := NewBind(dir, OneMount, 0, users)
		if err != nil {
			return "", err
		}
		return target, errors.Join(attach(int(f.Fd()), target), f.Close())
	}
	staged := o
	staged.Lower = make([]string, len(o.Lower))
	var err error
	for i, dir := range o.Lower {
		if staged.Lower[i], err = mapped(strconv.Itoa(i), dir); err != nil {
			return o, err
		}
	}
	if o.Upper == "" {
		return staged, nil
	}
	// They have to be in one mount.
	scratch, err := mapped("scratch", filepath.Dir(o.Upper))
	staged.Upper, staged.Work = filepath.Join(scratch, filepath.Base(o.Upper)), filepath.Join(scratch, filepath.Base(o.Work))
	return staged, err
}

// useFileIDs has what the calling thread makes be the user's and the group's of that id, and leaves it its capabilities,
// of which the kernel takes some with the user id (capabilities(7)). The kernel reports no failure of the first two.
func useFileIDs(id uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if _, err := unix.SetfsgidRetGid(int(id)); err != nil {
		return os.NewSyscallError("setfsgid", err)
	}
	if _, err := unix.SetfsuidRetUid(int(id)); err != nil {
		return os.NewSyscallError("setfsuid", err)
	}
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}
