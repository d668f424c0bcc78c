//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package image

import (
	"errors"
	"os"
	"syscall"
)

func openNoFollow(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// openOwn opens or creates a file of our own for writing, with the same care.
func openOwn(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
}

func tryLock(f *os.File, mode lockMode) error {
	err := flock(f, mode, syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

func waitLock(f *os.File, mode lockMode) error { return flock(f, mode, 0) }

// flock locks the open file, not the process: two goroutines that open the
// same file exclude each other like two processes.
func flock(f *os.File, mode lockMode, how int) error {
	how |= syscall.LOCK_SH
	if mode == lockExclusive {
		how = how&^syscall.LOCK_SH | syscall.LOCK_EX
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = conn.Control(func(fd uintptr) {
		for {
			if ferr = syscall.Flock(int(fd), how); ferr != syscall.EINTR {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return ferr
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
