package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountAgain makes another mount, private and nowhere attached, of what the
// open file is the root of, with what is mounted below it.
func MountAgain(f *os.File) (*os.File, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	fd, err := unix.OpenTree(int(f.Fd()), "", flags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: f.Name(), Err: err}
	}
	return privateMount(fd, f.Name(), nil)
}

// privateMount makes a file of a mount that is nowhere attached, and has its
// owners shown as the user namespace has them, unless that is nil.
func privateMount(fd int, name string, users *os.File) (*os.File, error) {
	f := os.NewFile(uintptr(fd), name)
	if err := mapOwners(f, users); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// NewFileSystem makes a mount, nowhere attached, of a new file system, whose
// options are "key=value" or "flag". Attributes and users are as for NewBind.
func NewFileSystem(fstype, source string, options []string, attributes uint64, users *os.File) (*os.File, error) {
	fd, err := fileSystem(fstype, source, options, attributes)
	if err != nil {
		return nil, err
	}
	return privateMount(fd, fstype, users)
}

func fileSystem(fstype, source string, options []string, attributes uint64) (fd int, err error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", fstype, err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return -1, explain(fs, fmt.Errorf("set its source: %w", err))
	}
	for _, option := range options {
		key, value, hasValue := strings.Cut(option, "=")
		if hasValue {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, explain(fs, fmt.Errorf("set option %s: %w", option, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, explain(fs, fmt.Errorf("set up %s: %w", fstype, err))
	}
	fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attributes))
	if err != nil {
		return -1, explain(fs, fmt.Errorf("make the mount: %w", err))
	}
	return fd, nil
}

// MountID returns the number of the mount that the open file is on, and whether
// the file is that mount's root.
func MountID(f *os.File) (id uint64, isRoot bool, err error) { return mountID(int(f.Fd())) }

// mountIDUnique is STATX_MNT_ID_UNIQUE (Linux 6.8): numbers that are not used
// again.
const mountIDUnique = 0x4000

func mountID(fd int) (id uint64, isRoot bool, err error) {
	var st unix.Statx_t
	err = again(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|mountIDUnique, &st) })
	if err != nil {
		return 0, false, os.NewSyscallError("statx", err)
	}
	return st.Mnt_id, st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Namespace is the mount namespace of a process, entered by a thread.
type Namespace struct {
	fds int // this process's directory of descriptors, as its own procfs has it
}

// InMountNamespace calls f on a thread of its own in the mount namespace of the
// process, with its root directory as the thread's. What f makes belongs to the
// owner, a user and a group of that id.
func (p Pidfd) InMountNamespace(owner uint32, f func(n *Namespace) error) error {
	fds, err := OpenAt(CWD, "/proc/self/fd", OpenDirectory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/self/fd", Err: err}
	}
	defer func() { _ = unix.Close(fds) }()
	OnThreadOfItsOwn(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil { // else no thread may leave
			err = os.NewSyscallError("unshare", err)
			return
		}
		if err = unix.Setns(p.fd, unix.CLONE_NEWNS); err != nil {
			err = os.NewSyscallError("setns", err)
			return
		}
		if owner != 0 {
			if err = useFileIDs(owner); err != nil {
				return
			}
		}
		err = f(&Namespace{fds})
	})
	runtime.KeepAlive(p)
	return err
}

// Detach takes the mount whose root the open file is out of the namespace.
// What is open in it stays usable until it is closed.
func (n *Namespace) Detach(f *os.File) error {
	// There is no call that takes a descriptor. A name leads to what has it now;
	// this one, in the host's procfs, to the file and nothing else.
	err := unix.Fchdir(n.fds)
	if err == nil {
		err = again(func() error { return unix.Unmount(strconv.Itoa(int(f.Fd())), unix.MNT_DETACH) })
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: f.Name(), Err: err}
	}
	return nil
}
