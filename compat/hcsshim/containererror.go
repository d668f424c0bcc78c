package hcsshim

import (
	"fmt"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/schema1"
)

// ContainerError is a failed call on a container. Err is one of this package's errors or another syscall.Errno with Windows'
// code; errors.Is finds it, and the class of what happened here.
type ContainerError struct {
	Container *container
	Operation string
	ExtraInfo string
	Err       error
	Events    []schema1.ErrorEvent

	local error
}

// Error returns the text as hcsshim has it, and what happened here.
func (e *ContainerError) Error() string {
	switch {
	case e == nil:
		return "<nil>"
	case e.Container == nil:
		return fmt.Sprintf("unexpected nil container for error: %v", e.Err)
	}
	s := failed("container "+e.Container.id, e.Operation, cause{e.Err, e.local}) + lines(e.Events)
	if e.ExtraInfo != "" {
		s += " extra info: " + e.ExtraInfo
	}
	return s
}

// Unwrap returns Err. hcsshim's type has no such method; programs that do not know of it lose nothing.
func (e *ContainerError) Unwrap() error { return e.Err }

// Is reports whether the call failed here because of the target.
func (e *ContainerError) Is(target error) bool { return cause{e.Err, e.local}.is(target) }

// ProcessError is a failed call on a process. See ContainerError.
type ProcessError struct {
	Process   *process
	Operation string
	ExtraInfo string
	Err       error
	Events    []schema1.ErrorEvent

	local error
}

// Error returns the text as hcsshim has it, and what happened here.
func (e *ProcessError) Error() string {
	switch {
	case e == nil:
		return "<nil>"
	case e.Process == nil:
		return fmt.Sprintf("unexpected nil process for error: %v", e.Err)
	}
	who := fmt.Sprintf("process %d in container %s", e.Process.pid, e.Process.container.id)
	return failed(who, e.Operation, cause{e.Err, e.local}) + lines(e.Events)
}

// Unwrap returns Err. hcsshim's type has no such method; programs that do not know of it lose nothing.
func (e *ProcessError) Unwrap() error { return e.Err }

// Is reports whether the call failed here because of the target.
func (e *ProcessError) Is(target error) bool { return cause{e.Err, e.local}.is(target) }

func failed(who, operation string, why cause) string {
	if operation != "" {
		who += " encountered an error during " + operation
	}
	return who + why.text()
}

// fail returns the error of a call on a container, and nil where err is nil.
func (c *container) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	why := causeOf(err)
	return &ContainerError{Container: c, Operation: op, Err: why.err, local: why.local}
}

// fail returns the error of a call on a process, and nil where err is nil.
func (p *process) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	why := causeOf(err)
	return &ProcessError{Process: p, Operation: op, Err: why.err, local: why.local}
}
