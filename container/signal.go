package container

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// signals are Linux's signal numbers (signal(7)), whatever the system that
// this is built for: they mean something in a container only.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11,
	"USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20,
	"TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29,
	"PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
}

// ParseSignal reads a signal as commands and images have it: "TERM",
// "SIGTERM", "15", "RTMIN+3".
func ParseSignal(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig, ok := signals[name]; ok {
		return sig, nil
	}
	if base, offset, ok := strings.Cut(name, "+"); ok && base == "RTMIN" {
		if n, err := strconv.Atoi(offset); err == nil && n >= 0 && n <= 30 {
			return signals["RTMIN"] + syscall.Signal(n), nil
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	return 0, fault(errdefs.ErrInvalidArgument, "unknown signal %q", s)
}
