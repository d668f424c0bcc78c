package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// IsMountPoint reports whether something is mounted on name. What is not there is no mount point.
func IsMountPoint(name string) (bool, error) {
	var st unix.Statx_t
	err := again(func() error {
		return unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	})
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for a mount on %q: %w", name, err)
	case st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0:
		return false, fmt.Errorf("look for a mount on %q: the kernel does not tell: %w", name, errdefs.ErrNotImplemented)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// UnmountIdle unmounts what is mounted on target unless it is in use, which is an error of class errdefs.ErrUnavailable.
// Where nothing is mounted, or nothing exists, there is nothing to do. It tries again for a moment: a program that some other
// thread of ours is about to execute holds all our descriptors until then, also those that we have closed meanwhile.
func UnmountIdle(target string) error {
	deadline := time.Now().Add(500 * time.Millisecond)
	err := again(func() error { return unix.Unmount(target, unix.UMOUNT_NOFOLLOW) })
	for wait := 100 * time.Microsecond; err == unix.EBUSY && time.Now().Before(deadline); wait *= 2 {
		time.Sleep(wait)
		err = again(func() error { return unix.Unmount(target, unix.UMOUNT_NOFOLLOW) })
	}
	switch {
	case err == nil || err == unix.EINVAL || err == unix.ENOENT:
		return nil
	case err == unix.EBUSY:
		return fmt.Errorf("unmount %q: %w: %w", target, errdefs.ErrUnavailable, err)
	}
	return fmt.Errorf("unmount %q: %w", target, err)
}

// MountBind mounts the directory dir, without the mounts below it, on target too. Reading through the new mount does not
// change the time of last access, unless the mount that dir is in is another user namespace's, which keeps that to itself
// (mount_namespaces(7), "Restrictions on mount namespaces").
func MountBind(dir, target string) error {
	keepTimes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := mountBind(dir, target, &keepTimes); err != nil {
		return fmt.Errorf("mount %q on %q: %w", dir, target, err)
	}
	return nil
}

// MountDir mounts the directory dir, without the mounts below it, on target too. What is mounted or unmounted in one place
// later is not in the other.
func MountDir(dir, target string) error {
	if err := mountBind(dir, target, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return fmt.Errorf("mount %q on %q: %w", dir, target, err)
	}
	return nil
}

func mountBind(dir, target string, attr *unix.MountAttr) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr)
	if err == unix.EPERM && attr.Attr_set == unix.MOUNT_ATTR_NOATIME {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("set the mount's attributes: %w", err)
	}
	return attach(fd, target)
}

// MountImage mounts the file system of the given type in a file on target. The loop device that this takes goes with the
// mount. Reading does not change the time of last access.
func MountImage(image, fstype, target string) error {
	if err := mountImage(image, fstype, target); err != nil {
		return fmt.Errorf("mount image %q on %q: %w", image, target, err)
	}
	return nil
}

func mountImage(image, fstype, target string) error {
	mnt, err := imageMount(&Image{Path: image, Type: fstype}, unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(mnt) }()
	return attach(mnt, target)
}

// NewImage makes a mount, nowhere attached, of the file system in a file. The
// loop device that this takes goes with the last user of the mount, however
// that ends. Attributes and users are as for NewBind.
func NewImage(image Image, attributes uint64, users *os.File) (*os.File, error) {
	fd, err := imageMount(&image, attributes)
	if err != nil {
		return nil, fmt.Errorf("mount image %q: %w", image.Path, err)
	}
	return privateMount(fd, image.Path, users)
}

// imageMount makes a mount that is attached nowhere.
func imageMount(image *Image, attributes uint64) (fd int, err error) {
	loop, err := attachLoop(image)
	if err != nil {
		return -1, err
	}
	defer func() { _ = loop.Close() }() // the device stays until the mount goes, too
	if image.ReadOnly {
		return fileSystem(image.Type, loop.Name(), []string{"ro"}, attributes|AttrReadOnly)
	}
	return fileSystem(image.Type, loop.Name(), nil, attributes)
}

// attachLoop returns a loop device for a file, open; it is free again when nobody has it open.
func attachLoop(image *Image) (*os.File, error) {
	how := os.O_RDWR
	if image.ReadOnly {
		how = os.O_RDONLY
	}
	backing, err := os.OpenFile(image.Path, how, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = backing.Close() }()
	if err := claim(backing, image.ReadOnly); err != nil {
		return nil, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := configureLoop(fmt.Sprintf("/dev/loop%d", n), image, backing)
		if !errors.Is(err, unix.EBUSY) { // another process may have taken it first
			return loop, err
		}
	}
}

// claim takes the lock of an image, shared if it is only read. It is the open file's, which the loop device keeps: so it goes
// with the device, however that ends. The kernel frees a device some time after the last unmount.
func claim(backing *os.File, readOnly bool) error {
	const patience = 5 * time.Second
	how := unix.LOCK_EX
	if readOnly {
		how = unix.LOCK_SH
	}
	deadline := time.Now().Add(patience)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := again(func() error { return unix.Flock(int(backing.Fd()), how|unix.LOCK_NB) })
		switch {
		case err == nil, err == unix.ENOLCK, err == unix.EOPNOTSUPP: // its file system has no locks
			return nil
		case err != unix.EWOULDBLOCK:
			return &os.PathError{Op: "lock", Path: backing.Name(), Err: err}
		case time.Now().After(deadline):
			return ErrImageInUse
		}
		time.Sleep(wait)
	}
}

func configureLoop(device string, image *Image, backing *os.File) (*os.File, error) {
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if image.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	config.Info.Sizelimit = uint64(image.Size)
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Path) // for people: losetup shows it
	if err := again(func() error { return unix.IoctlLoopConfigure(int(loop.Fd()), &config) }); err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s: %w", device, err), loop.Close())
	}
	return loop, nil
}

// GrowXFS gives the XFS that MountImage mounted on target all the room that its image has by now. Others may use it
// meanwhile.
func GrowXFS(target string) error {
	if err := growXFS(target); err != nil {
		return fmt.Errorf("grow file system on %q: %w", target, err)
	}
	return nil
}

func growXFS(target string) error {
	dir, err := os.Open(target)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	st, err := StatFD(int(dir.Fd()))
	if err != nil {
		return err
	}
	name, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return err
	}
	loop, err := os.OpenFile("/dev/"+filepath.Base(name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = loop.Close() }()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("have %s read its size: %w", loop.Name(), err)
	}
	var size uint64
	if err := ioctl(int(loop.Fd()), unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return fmt.Errorf("read size of %s: %w", loop.Name(), err)
	}
	return growXFSTo(int(dir.Fd()), size)
}

// The requests of XFS: XFS_IOC_FSGEOMETRY_V1 and XFS_IOC_FSGROWFSDATA of fs/xfs/libxfs/xfs_fs.h, which have the same numbers
// on all machines but mips, powerpc and sparc.
const (
	xfsGeometry = 0x80705864 // _IOR('X', 100, struct xfs_fsop_geom_v1)
	xfsGrow     = 0x4010586e // _IOW('X', 110, struct xfs_growfs_data)
)

// xfsGeometryV1 is the start of struct xfs_fsop_geom_v1 and its length.
type xfsGeometryV1 struct {
	BlockSize uint32
	_         [6]uint32
	MaxInodes uint32 // percent
	Blocks    uint64
	_         [72]byte
}

type xfsGrowData struct {
	Blocks    uint64
	MaxInodes uint32
	_         uint32
}

func growXFSTo(fd int, size uint64) error {
	var geometry xfsGeometryV1
	if err := ioctl(fd, xfsGeometry, unsafe.Pointer(&geometry)); err != nil {
		return fmt.Errorf("read its geometry: %w", err)
	}
	data := xfsGrowData{Blocks: size / uint64(geometry.BlockSize), MaxInodes: geometry.MaxInodes}
	if data.Blocks <= geometry.Blocks {
		return nil
	}
	return ioctl(fd, xfsGrow, unsafe.Pointer(&data))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	return again(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	})
}
