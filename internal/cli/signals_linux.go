package cli

import (
	"os"
	"syscall"
)

var endSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// passedSignals are those that a process in a container gets when we get
// them. Not among them: what stops and continues us, as a shell's job control
// does, what our own parts cause (CHLD, URG, PIPE), and what means a fault.
var passedSignals = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
	syscall.SIGVTALRM, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGIO, syscall.SIGPWR, syscall.SIGWINCH,
}

const (
	windowChanged = syscall.SIGWINCH
	brokenPipe    = syscall.SIGPIPE
)
