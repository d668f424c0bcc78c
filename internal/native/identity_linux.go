package native

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/wire"
)

// identify gives the container what it is known by: names, loopback
// device, and its own view of control groups.
func identify(b *wire.Build) error {
	if err := rename(processName); err != nil {
		return fault("name the first process", processName, err)
	}
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return fault("set host name", b.Hostname, err)
	}
	if b.Loopback {
		if err := raiseLoopback(); err != nil {
			return fault("bring up", "lo", err)
		}
	}
	if b.Cgroup {
		return fault("make a namespace", "cgroup", unshareCgroup())
	}
	return nil
}

// processName is what tools show: the kernel's own choice would be the number
// of the descriptor that the program was found by.
const processName = ".hcs-agent" // as its file in the container

// rename names the first thread, which is the one that has the process's name:
// it is the calling one, unless somebody has waited on the way here.
func rename(name string) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if unix.Gettid() == unix.Getpid() {
		return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0)
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// unshareCgroup makes a control group namespace with the group that the
// process was born in as its root, and has every thread join it: processes are
// started by any. A clone with CLONE_NEWCGROUP would take the parent's group.
func unshareCgroup() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return err
	}
	ns, err := unix.Open("/proc/thread-self/ns/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	return onAllThreads(unix.SYS_SETNS, uintptr(ns), unix.CLONE_NEWCGROUP, 0)
}

// onAllThreads has every thread make a system call, which must give the same
// everywhere.
func onAllThreads(trap, a, b, c uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// raiseLoopback sets the device's IFF_UP (netdevice(7)); a new one has no other
// flag that counts.
func raiseLoopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	request := struct { // struct ifreq
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{name: [unix.IFNAMSIZ]byte{'l', 'o'}, flags: unix.IFF_UP}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
