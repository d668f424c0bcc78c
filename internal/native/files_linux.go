package native

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// LimitFiles sets the limits of open files, "soft:hard", and begins again
// without its argument, the second: it returns only an error. The Go runtime
// looks at these limits once, when a program begins: it gives the program
// itself the hard one, which the first process needs, and what that starts
// the soft one.
func LimitFiles(limits string) error {
	soft, hard, _ := strings.Cut(limits, ":")
	var l unix.Rlimit
	var err error
	if l.Cur, err = strconv.ParseUint(soft, 10, 64); err != nil {
		return fault("set limit", "RLIMIT_NOFILE", err)
	}
	if l.Max, err = strconv.ParseUint(hard, 10, 64); err != nil {
		return fault("set limit", "RLIMIT_NOFILE", err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &l, nil); err != nil {
		return fault("set limit", "RLIMIT_NOFILE", err)
	}
	return fault("begin again", "/proc/self/exe", syscall.Exec("/proc/self/exe", os.Args[:2], os.Environ()))
}
