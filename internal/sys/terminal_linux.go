package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// NewTerminal makes a file of a terminal's master that came as a descriptor.
// Reading from it can be given up.
func NewTerminal(fd int) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "terminal")
}

// SetWindowSize sets the size of the terminal.
func SetWindowSize(f *os.File, rows, cols uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	size := unix.Winsize{Row: rows, Col: cols}
	cerr := raw.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) })
	return errors.Join(cerr, os.NewSyscallError("ioctl", err))
}
