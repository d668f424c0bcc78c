package sys

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// BecomeSubreaper hands the orphans among this process's descendants to it.
func BecomeSubreaper() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// CloseInherited closes the descriptors from first on that this process was
// born with. They are those that survive an exec: what Go opens does not.
func CloseInherited(first int) error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the descriptors: %w", err)
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < first {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// DetachMounts takes this process's mount namespace, which must be its own,
// out of the way of others: what is mounted here stays here, while what its
// parent unmounts goes here too.
func DetachMounts() error {
	return os.NewSyscallError("mount", unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""))
}

// MountTmpfs mounts an empty tmpfs on dir, over what is there.
func MountTmpfs(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return &os.PathError{Op: "mount tmpfs on", Path: dir, Err: err}
	}
	return nil
}

// AwaitEnd returns when a child has ended, and leaves it a zombie.
func AwaitEnd(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// Pidfd is a process, not just its number.
type Pidfd struct{ fd int }

// OpenPidfd opens the process that has the number now.
func OpenPidfd(pid int) (Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	return Pidfd{fd}, os.NewSyscallError("pidfd_open", err)
}

// Signal sends a signal; a process that has ended needs none.
func (p Pidfd) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if err == unix.ESRCH {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// Running reports whether the process has not ended: its descriptor is readable
// when it has (pidfd_open(2)).
func (p Pidfd) Running() bool {
	list := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := retry(func() (int, error) { return unix.Poll(list, 0) })
	return n == 0 && err == nil
}

// Close forgets the process.
func (p Pidfd) Close() error { return unix.Close(p.fd) }

// IsTerminalMaster reports whether fd is the master of a pseudo terminal, by
// its device number.
func IsTerminalMaster(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(5, 2)
}

// MakePollable makes a pipe's end non-blocking, so that the runtime can wait
// for it and give up. Other files are left as they are: whoever else has them
// open would get the flag too.
func MakePollable(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		_ = unix.SetNonblock(fd, true)
	}
}

// ChownPipe changes the owner of a pipe, and of nothing else.
func ChownPipe(fd, uid, gid int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		_ = unix.Fchown(fd, uid, gid)
	}
}

// OnThreadOfItsOwn calls f on a thread that ends with it: what f changes of
// its thread nobody else meets.
func OnThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the first thread does not end before the process
			OnThreadOfItsOwn(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// BoundPrograms takes all capabilities but those of the mask out of the calling
// thread's bounding set. The program that it starts next keeps all that the
// thread has, as inheritable ones, and what that starts in its turn, when it has
// let go of them, never has them (capabilities(7)). A thread can do so for
// itself at a system call each; a program of several needs as many for every
// thread, and to stop them all for it.
func BoundPrograms(mask uint64) error {
	bounding, err := boundingSet()
	if err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = data[0].Permitted&uint32(bounding), data[1].Permitted&uint32(bounding>>32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	for c := range uintptr(64) {
		if bounding&^mask>>c&1 == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	return nil
}

func boundingSet() (mask uint64, err error) {
	for c := range uintptr(64) {
		there, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // the kernel knows no more
		}
		if err != nil {
			return 0, os.NewSyscallError("prctl", err)
		}
		mask |= uint64(there) << c
	}
	return mask, nil
}

// JoinNewSessionKeyring gives the calling thread, and what it starts, a session
// keyring without the keys of the one it had (keyrings(7)). A kernel without
// keyrings has nothing to hide.
func JoinNewSessionKeyring(name string) error {
	_, err := unix.KeyctlJoinSessionKeyring(name)
	if err == unix.ENOSYS {
		return nil
	}
	return os.NewSyscallError("keyctl", err)
}

// OpenReadOnly returns a mount, read-only and nowhere attached, of the file at
// path: not even root opens the file for writing through it.
func OpenReadOnly(path string) (*os.File, error) {
	return NewBind(path, OneMount, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, nil)
}

// CheckMountAPI reports what this kernel lacks of what mounts are made with by
// descriptor: fsopen, mount_setattr (Linux 5.12) and what came between,
// openat2, and close_range. Who is not root is not asked to prove that it may
// use them.
func CheckMountAPI() error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err == unix.EPERM && os.Geteuid() != 0 {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fs) }()
	// These are not done to the end: a mount that is made and let go has the kernel wait for all of its processors.
	if _, err := unix.Fsmount(-1, unix.FSMOUNT_CLOEXEC, 0); err != unix.EBADF {
		return os.NewSyscallError("fsmount", err)
	}
	err = unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != unix.EBADF {
		return os.NewSyscallError("mount_setattr", err)
	}
	if !openat2Works() {
		return os.NewSyscallError("openat2", unix.ENOSYS)
	}
	// An empty range, of descriptors that there are not.
	return os.NewSyscallError("close_range", unix.CloseRange(math.MaxInt32, math.MaxInt32, 0))
}
