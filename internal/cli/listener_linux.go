package cli

import (
	"syscall"
)

// Control is for a net.ListenConfig: a socket in the file system is this user's alone from the moment it is there. Linux
// gives it the mode that the descriptor has when it is bound (unix_bind_bsd in the kernel's net/unix/af_unix.c).
func (l Listener) Control(_, _ string, c syscall.RawConn) error {
	if l.Network != "unix" {
		return nil
	}
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}
