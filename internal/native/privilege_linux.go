package native

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/wire"
)

// confine takes from every thread what the container is not to have.
func confine(b *wire.Build) error {
	for _, l := range b.Rlimits {
		// The standard library's, which then no longer gives processes the number
		// of files that this one began with.
		err := syscall.Setrlimit(int(l.Resource), &syscall.Rlimit{Cur: l.Soft, Max: l.Hard})
		if err != nil {
			return fault("set", l.Name, err)
		}
	}
	if b.NoNewPrivileges {
		if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
			return fault("set", "no_new_privs", err)
		}
	}
	// Who may gain privileges needs some to install a filter (seccomp(2)): it
	// comes before they go.
	if err := filter(b.Seccomp); err != nil {
		return fault("install", "seccomp filter", err)
	}
	if err := bound(b.Bounding); err != nil {
		return fault("drop", "bounding capabilities", err)
	}
	return fault("set", "capabilities", setCapabilities(b.Capabilities))
}

// filter installs a seccomp filter on all threads.
func filter(program []byte) error {
	const size = unsafe.Sizeof(unix.SockFilter{})
	if len(program) == 0 {
		return nil
	}
	if uintptr(len(program))%size != 0 {
		return unix.EINVAL
	}
	instructions := make([]unix.SockFilter, uintptr(len(program))/size)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&instructions[0])), len(program)), program)
	fprog := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return errno
	case thread != 0: // which could not be brought under it
		return unix.EBUSY
	}
	return nil
}

// bound takes all capabilities but these out of the bounding set. Where there
// is no user namespace, which begins with all of them, who started this process
// has done so already.
func bound(keep uint64) error {
	for c := range uintptr(64) {
		if keep>>c&1 != 0 {
			continue
		}
		there, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL {
			return nil // the kernel knows no more
		}
		if err == nil && there != 0 {
			err = onAllThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setCapabilities makes these the permitted and effective ones, and leaves
// none that are passed on: the kernel takes those that are not inheritable out
// of the ambient set (capabilities(7)).
func setCapabilities(mask uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(mask), uint32(mask>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
