package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnheld is the error of taking a share in a file that AwaitUnheld has found without one.
var ErrUnheld = errors.New("nobody held the file, and that was noticed")

// Hold is a share in a file. It is given up by Release, or by the end of the process, however that comes; not by the
// garbage collector.
type Hold struct{ fd int }

// HoldFile takes a share in the file at path, which is made if it is missing. Any number may have one.
func HoldFile(path string) (*Hold, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	err = again(func() error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
	if err == nil {
		return &Hold{fd}, nil
	}
	_ = unix.Close(fd)
	if err == unix.EWOULDBLOCK {
		return nil, ErrUnheld
	}
	return nil, &os.PathError{Op: "lock", Path: path, Err: err}
}

// Release gives the share up.
func (h *Hold) Release() error {
	// Closing is not enough to unlock at once: a child between fork and exec has the same open file.
	err := again(func() error { return unix.Flock(h.fd, unix.LOCK_UN) })
	return errors.Join(os.NewSyscallError("flock", err), os.NewSyscallError("close", unix.Close(h.fd)))
}

// AwaitUnheld returns when nobody has a share in the file at path any more; for as long as this process lives nobody gets
// one again. It keeps a thread waiting.
func AwaitUnheld(path string) error {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := again(func() error { return unix.Flock(fd, unix.LOCK_EX) }); err != nil {
		return errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, unix.Close(fd))
	}
	return nil
}
