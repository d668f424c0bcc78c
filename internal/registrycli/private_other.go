//go:build !linux

package registrycli

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
)

func private(network, address string, _ syscall.RawConn) error {
	if strings.HasPrefix(network, "unix") {
		return fmt.Errorf("keep %s to this user: not on %s: %w", address, runtime.GOOS, errors.ErrUnsupported)
	}
	return nil
}
