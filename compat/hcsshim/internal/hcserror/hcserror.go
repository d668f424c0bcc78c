// Package hcserror is the error that the layer and network calls of the Host Compute System return, and the one table in
// which this project's classes of error become Windows' codes.
package hcserror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/regf"
)

// The codes that layer calls return: Windows' system error codes
// (https://learn.microsoft.com/windows/win32/debug/system-error-codes) and one NTSTATUS of the filter manager.
const (
	FileNotFound        = syscall.Errno(0x2)
	PathNotFound        = syscall.Errno(0x3)
	AccessDenied        = syscall.Errno(0x5)
	InvalidData         = syscall.Errno(0xd)
	NotReady            = syscall.Errno(0x15)
	GenFailure          = syscall.Errno(0x1f)
	SharingViolation    = syscall.Errno(0x20)
	NotSupported        = syscall.Errno(0x32)
	DevNotExist         = syscall.Errno(0x37)
	InvalidParameter    = syscall.Errno(0x57)
	DiskFull            = syscall.Errno(0x70)
	ProcNotFound        = syscall.Errno(0x7f)
	Busy                = syscall.Errno(0xaa)
	AlreadyExists       = syscall.Errno(0xb7)
	BadDB               = syscall.Errno(0x3f1)
	NotRegistryFile     = syscall.Errno(0x3f9)
	ElementNotFound     = syscall.Errno(0x490)
	Cancelled           = syscall.Errno(0x4c7)
	FileCorrupt         = syscall.Errno(0x570)
	Timeout             = syscall.Errno(0x5b4)
	InvalidState        = syscall.Errno(0x139f)
	FltInstanceNotFound = syscall.Errno(0x801f0015)
)

// codes is what a cause is on Windows. The first row that fits decides.
var codes = []struct {
	class error
	code  syscall.Errno
}{
	{context.DeadlineExceeded, Timeout},
	{context.Canceled, Cancelled},
	{regf.ErrCorrupt, BadDB},
	{regf.ErrUnsupported, NotRegistryFile},
	{errdefs.ErrNotImplemented, NotSupported},
	{errdefs.ErrDataLoss, FileCorrupt},
	{errdefs.ErrResourceExhausted, DiskFull},
	{errdefs.ErrInvalidArgument, InvalidParameter},
	{errdefs.ErrOutOfRange, InvalidParameter},
	{errdefs.ErrUnavailable, SharingViolation},
	{errdefs.ErrFailedPrecondition, InvalidState},
	{errdefs.ErrConflict, InvalidState},
	{errdefs.ErrPermissionDenied, AccessDenied},
	{fs.ErrPermission, AccessDenied},
	{errdefs.ErrAlreadyExists, AlreadyExists},
	{fs.ErrExist, AlreadyExists},
	{errdefs.ErrNotFound, PathNotFound},
	{fs.ErrNotExist, PathNotFound},
	{errdefs.ErrInternal, GenFailure},
}

// A Coded error knows its code on Windows.
type Coded struct {
	Code syscall.Errno
	Err  error // the cause, for people; may be nil
}

// Error returns the cause, or the code's text.
func (c *Coded) Error() string {
	if c.Err == nil {
		return Text(c.Code)
	}
	return c.Err.Error()
}

// Unwrap returns the code and the cause.
func (c *Coded) Unwrap() []error {
	if c.Err == nil {
		return []error{c.Code}
	}
	return []error{c.Code, c.Err}
}

// Code returns what an error is on Windows: the code it carries, else that of its class, else GenFailure. Codes of the
// local system are no codes of Windows', so a bare syscall.Errno counts only inside an HcsError or a Coded.
func Code(err error) syscall.Errno {
	if e, ok := errors.AsType[*HcsError](err); ok {
		if code, ok := errors.AsType[syscall.Errno](e.Err); ok {
			return code
		}
		return Code(e.Err)
	}
	if c, ok := errors.AsType[*Coded](err); ok {
		return c.Code
	}
	for _, row := range codes {
		if errors.Is(err, row.class) {
			return row.code
		}
	}
	return GenFailure
}

// HcsError is a failed call of the layer or the network API. Err is always a syscall.Errno with a code of Windows', which
// callers compare with ==; errors.Is finds that and the cause.
type HcsError struct {
	title string // the call: "hcsshim::ActivateLayer"
	rest  string // what it was called with
	Err   error

	cause error
}

// New returns the error of a call that failed, and nil where err is nil.
func New(err error, title, rest string) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*HcsError); ok { //nolint:errorlint // one inside of another error is that error's cause
		return e
	}
	return &HcsError{title: title, rest: rest, Err: Code(err), cause: err}
}

// Error returns the text as hcsshim has it, "TITLE failed in Win32: TEXT (0xCODE) REST", and the cause where it says more.
func (e *HcsError) Error() string {
	s := e.title
	if s != "" && s[len(s)-1] != ' ' {
		s += " "
	}
	s += "failed in Win32: "
	if code, ok := errors.AsType[syscall.Errno](e.Err); ok {
		s += fmt.Sprintf("%s (0x%x)", Text(code), uintptr(code))
	} else {
		s += fmt.Sprintf("%v (0x%x)", e.Err, uintptr(GenFailure))
	}
	if e.rest != "" {
		s += " " + e.rest
	}
	if e.cause != nil && e.cause.Error() != Text(Code(e)) {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the code and the cause. Windows' own type has no such method; programs that do not know of it lose nothing.
func (e *HcsError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.cause}
}
