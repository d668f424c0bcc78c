package hcsshim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	"github.com/hostcompute/hcs/compat/hcsshim/internal/schema1"
)

// errAlreadyExists says that there is a container of that id.
const errAlreadyExists = syscall.Errno(0xc037010f)

// computeErrors is what a cause is on Windows where it is about a container or a process; the layers' table has the rest.
// The first row that fits decides. Who looks for a container, or a process, says himself what it is that was not found.
var computeErrors = []struct{ class, err error }{
	{context.DeadlineExceeded, ErrTimeout},
	{errdefs.ErrUnavailable, ErrUnexpectedProcessAbort},
	{errdefs.ErrAlreadyExists, errAlreadyExists},
	{errdefs.ErrFailedPrecondition, ErrVmcomputeOperationInvalidState},
}

// uncoded are the errors that callers get as they are.
var uncoded = []error{
	ErrHandleClose, ErrAlreadyClosed, ErrInvalidProcessState, ErrTimeout, ErrUnexpectedContainerExit, ErrUnexpectedProcessAbort,
	ErrUnexpectedValue, ErrPlatformNotSupported,
}

// A cause is why a call on a container or a process failed.
type cause struct {
	err   error // on Windows: a syscall.Errno with Windows' code, or an error without one
	local error // here; nil where err says it all
}

// causeOf returns the cause of a failure. A bare syscall.Errno is a code of Windows' already.
func causeOf(err error) cause {
	if _, code := err.(syscall.Errno); code { //nolint:errorlint // bare
		return cause{err: err}
	}
	for _, u := range uncoded {
		if errors.Is(err, u) {
			return cause{err: u}
		}
	}
	if c, ok := errors.AsType[*hcserror.Coded](err); ok {
		return cause{c.Code, err}
	}
	for _, row := range computeErrors {
		if errors.Is(err, row.class) {
			return cause{row.err, err}
		}
	}
	return cause{hcserror.Code(err), err}
}

// coded gives an error a code of Windows'.
func coded(code syscall.Errno, format string, args ...any) error {
	return &hcserror.Coded{Code: code, Err: fmt.Errorf(format, args...)}
}

// text returns what hcsshim says of it, with a colon before, and the local cause.
func (c cause) text() string {
	if c.err == nil {
		return ""
	}
	s := ": "
	if code, ok := c.err.(syscall.Errno); ok { //nolint:errorlint // a code inside of another error is that one's
		s += fmt.Sprintf("failure in a Windows system call: %s (0x%x)", hcserror.Text(code), uintptr(code))
	} else {
		s += c.err.Error()
	}
	if c.local != nil {
		s += ": " + c.local.Error()
	}
	return s
}

// is reports whether the local cause is the target. Not by a number: that of an error here is that of another on Windows.
func (c cause) is(target error) bool {
	_, number := target.(syscall.Errno) //nolint:errorlint // the target itself
	return !number && c.local != nil && errors.Is(c.local, target)
}

// systemError is a failed call that makes or finds a container.
type systemError struct {
	id, op, extra string
	cause         cause
	events        []schema1.ErrorEvent
}

// systemFailure returns the error of a call that failed, and nil where err is nil.
func systemFailure(err error, id, op, extra string) error {
	if err == nil {
		return nil
	}
	return &systemError{id: id, op: op, extra: extra, cause: causeOf(err)}
}

// Error returns "OP ID: TEXT", the events in lines of their own, and what the call was made with.
func (e *systemError) Error() string {
	s := e.op + " " + e.id + e.cause.text() + lines(e.events)
	if e.extra != "" {
		s += "\n(extra info: " + e.extra + ")"
	}
	return s
}

// Unwrap returns the error that it is on Windows.
func (e *systemError) Unwrap() error { return e.cause.err }

// Is reports whether it failed here because of the target.
func (e *systemError) Is(target error) bool { return e.cause.is(target) }

func lines(events []schema1.ErrorEvent) string {
	var s strings.Builder
	for i := range events {
		s.WriteString("\n" + events[i].String())
	}
	return s.String()
}
