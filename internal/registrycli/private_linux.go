package registrycli

import (
	"strings"
	"syscall"
)

// private is for a net.ListenConfig: a socket in the file system is this user's alone from the moment it is there. Linux
// gives it the mode that the descriptor has when it is bound (unix(7), bind in net/unix/af_unix.c).
func private(network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "unix") {
		return nil
	}
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}
