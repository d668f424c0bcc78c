//go:build !linux

package shim

import (
	"fmt"
	"os"
	"runtime"
)

// Main returns the exit status of a program that cannot work here.
func Main() int {
	fmt.Fprintf(os.Stderr, "hcs-shim: supervise a compute system: not supported on %s\n", runtime.GOOS)
	return 1
}
