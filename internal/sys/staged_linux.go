package sys

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Staged is a mount namespace that only this process has: what is mounted
// there nobody else sees, and it goes with the process, however that ends.
// Descriptors of what is in it are good for all threads.
type Staged struct {
	leave func()
	done  chan struct{}
	end   func() error
	err   error
}

// Stage makes a mount namespace, a copy of this thread's, and calls build in
// it. Close calls end there, and lets go of it.
func Stage(build, end func() error) (*Staged, error) {
	leave := make(chan struct{})
	s := &Staged{leave: sync.OnceFunc(func() { close(leave) }), done: make(chan struct{}), end: end}
	built := make(chan error, 1)
	go OnThreadOfItsOwn(func() {
		defer close(s.done)
		err := enterStage()
		if err == nil {
			err = build()
		}
		built <- err
		if err != nil {
			return
		}
		<-leave
		s.err = s.end()
	})
	if err := <-built; err != nil {
		<-s.done
		return nil, err
	}
	return s, nil
}

func enterStage() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return DetachMounts()
}

// Close takes the namespace down. It may be called again.
func (s *Staged) Close() error {
	s.leave()
	<-s.done
	return s.err
}

// CloneMount returns a mount, attached nowhere, of what is at path, with the
// mounts below it. ReadOnly concerns all of them. The caller closes it.
func CloneMount(path string, access Access) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	if access == ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return -1, errors.Join(&os.PathError{Op: "mount_setattr", Path: path, Err: err}, unix.Close(fd))
		}
	}
	return fd, nil
}

// OpenImage is NewImage for AttachMount.
func OpenImage(image Image, attributes uint64) (int, error) {
	fd, err := imageMount(&image, attributes)
	if err != nil {
		return -1, fmt.Errorf("mount image %q: %w", image.Path, err)
	}
	return fd, nil
}

// EmptyDirectory returns a mount, attached nowhere, of a directory that is
// empty and stays so. The caller closes it.
func EmptyDirectory() (int, error) {
	return fileSystem("tmpfs", "tmpfs", []string{"mode=755", "size=4k"}, AttrReadOnly|AttrNoDev|AttrNoSuid|AttrNoExec)
}

// ProtectMount makes the mount on target read-only, and not those below it.
func ProtectMount(target string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
		return &os.PathError{Op: "mount_setattr", Path: target, Err: err}
	}
	return nil
}

// AttachMount mounts what CloneMount returned on what target stands for.
func AttachMount(mount, target int) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	return os.NewSyscallError("move_mount", unix.MoveMount(mount, "", target, "", flags))
}
