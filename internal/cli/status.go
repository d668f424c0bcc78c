package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// The exit statuses that are ours, as docker and the shells have them.
const (
	statusFailed      = 125
	statusNotRunnable = 126
	statusNotFound    = 127
	statusSignaled    = 128 // and the signal's number
)

// exitStatus ends the program with a status and says nothing.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// notStarted is the error of a process that could not be started.
type notStarted struct{ error }

func (e notStarted) Unwrap() error { return e.error }

func (e notStarted) status() int {
	switch {
	case errdefs.IsNotFound(e.error):
		return statusNotFound
	case errdefs.IsPermissionDenied(e.error):
		return statusNotRunnable
	}
	return statusFailed
}

// several are the errors of things that were done one by one.
type several []error

func (s several) Error() string { return errors.Join(s...).Error() }

func (s several) Unwrap() []error { return s }

// joined returns the errors that are, as one.
func joined(errs []error) error {
	var s several
	for _, err := range errs {
		if err != nil {
			s = append(s, err)
		}
	}
	if len(s) == 0 {
		return nil
	}
	return s
}

// usage is an error of the command line.
type usage string

func (u usage) Error() string { return string(u) }

func (usage) Unwrap() error { return errdefs.ErrInvalidArgument }

// classed is an error with a class, which its text does not name.
type classed struct{ err, class error }

func (c *classed) Error() string   { return c.err.Error() }
func (c *classed) Unwrap() []error { return []error{c.err, c.class} }

// fault returns an error of the class.
func fault(class error, format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), class}
}

// report prints an error, a line for each, and returns the exit status.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitStatus](err); ok {
		return int(code)
	}
	if sig, ok := errors.AsType[interrupted](err); ok {
		return statusSignaled + int(syscall.Signal(sig))
	}
	list, ok := errors.AsType[several](err)
	if !ok {
		list = several{err}
	}
	for _, err := range list {
		fmt.Fprintln(a.err, a.program()+": "+sentence(err))
	}
	if start, ok := errors.AsType[notStarted](err); ok {
		return start.status()
	}
	return statusFailed
}

// classWords are names of classes that libraries put at the end of an error's text, and that tell people nothing more.
var classWords = strings.NewReplacer(": "+errdefs.ErrFailedPrecondition.Error(), "", ": "+errdefs.ErrDataLoss.Error(), "")

// sentence returns an error as one line.
func sentence(err error) string {
	lines := strings.Split(strings.TrimSpace(classWords.Replace(err.Error())), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "; ")
}
