package cli

import (
	"os"
	"syscall"
)

// become has another program take this process: its streams, its signals, and
// its exit status.
func become(program string, args []string) error {
	return syscall.Exec(program, append([]string{program}, args...), os.Environ())
}
