package container

import (
	"errors"
	"os"
	"syscall"

	"github.com/hostcompute/hcs/internal/sys"
)

// newTerminal makes a file of a terminal's master that came from the shim;
// reading from it can be interrupted.
func newTerminal(fd int) *os.File {
	_ = syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "terminal")
}

func resizeTerminal(f *os.File, rows, cols uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = sys.SetWindowSize(fd, rows, cols) })
	return errors.Join(cerr, err)
}
