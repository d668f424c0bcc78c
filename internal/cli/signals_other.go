//go:build !linux

package cli

import (
	"os"
	"syscall"
)

var (
	endSignals    = []os.Signal{os.Interrupt, syscall.SIGTERM}
	passedSignals = endSignals
)

// Linux's numbers: they are for a process in a container.
const (
	windowChanged = syscall.Signal(28)
	brokenPipe    = syscall.Signal(13)
)
