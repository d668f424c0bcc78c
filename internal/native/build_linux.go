package native

import (
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/wire"
)

// firstForeign is the first descriptor that is none of the standard streams and
// not the socket to the shim.
const firstForeign = 4

// CloseForeign closes what somebody let all the way down from the caller's
// caller: it would lead out of the container. It comes before anything else is
// opened.
func CloseForeign() error {
	return fault("close", "inherited descriptors", unix.CloseRange(firstForeign, math.MaxUint32, 0))
}

// Build makes the container. The caller is the first process of new pid,
// mount, ipc and uts namespaces, with all of its threads; after an error it is
// fit for nothing but to end, and the kernel takes away what was made. Borrow
// waits for the mounts that b speaks of, the root first, and hands them over; it
// is called once, as late as can be, for they are being made meanwhile.
func Build(b *wire.Build, borrow func() ([]int, error)) error {
	// One thread for all: the control group namespace is a thread's, until the
	// others follow.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := identify(b); err != nil {
		return err
	}
	unix.Umask(0) // modes are as they are asked for
	if err := furnish(b, borrow); err != nil {
		return err
	}
	unix.Umask(0o022) // what OCI runtimes leave
	if err := useOwnNull(); err != nil {
		return err
	}
	return confine(b)
}

// furnish makes the container's tree.
func furnish(b *wire.Build, borrow func() ([]int, error)) error {
	if err := isolateMounts(); err != nil {
		return err
	}
	mounts, err := prepare(b.Mounts)
	if err != nil {
		return err
	}
	lent, err := borrow()
	if err != nil {
		return err
	}
	if len(lent) == 0 {
		return fault("find", "the root directory", unix.EBADF)
	}
	if err := takeLent(b.Mounts, mounts, lent); err != nil {
		return err
	}
	root, err := enter(lent[0])
	if err != nil {
		return err
	}
	defer root.close()
	if err := attach(root, mounts); err != nil {
		return err
	}
	if err := setParameters(root, b.Sysctls); err != nil {
		return err
	}
	if err := makeDevices(root, b.Devices); err != nil {
		return err
	}
	if err := hide(root, b.Masked); err != nil {
		return err
	}
	if err := fix(root, b.Fixed); err != nil {
		return err
	}
	return finish(root, mounts, b.ReadOnly)
}

// useOwnNull puts the container's own null device in the place of the standard
// streams, the last things that were opened on the host.
func useOwnNull() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault("open", "/dev/null", err)
	}
	defer func() { _ = unix.Close(null) }()
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return fault("redirect", "/dev/null", err)
		}
	}
	return nil
}

func fault(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: object, Err: err}
}
