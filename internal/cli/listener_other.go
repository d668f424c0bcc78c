//go:build !linux

package cli

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// Control is for a net.ListenConfig: sockets in the file system cannot be kept private here.
func (l Listener) Control(_, _ string, _ syscall.RawConn) error {
	if l.Network == "unix" {
		return fmt.Errorf("keep %s to this user: not on %s: %w", l.Address, runtime.GOOS, errors.ErrUnsupported)
	}
	return nil
}
