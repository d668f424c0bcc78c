package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// BecomeSubreaper hands the orphans among this process's descendants to it.
func BecomeSubreaper() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
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
