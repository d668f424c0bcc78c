package hcsshim

import (
	"errors"
	"syscall"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
)

// HcsError is a failed call of the layer API. Err is a syscall.Errno with Windows' code; errors.Is finds it, and the
// local cause, too.
type HcsError = hcserror.HcsError

// Errors of compute systems and their processes, by Windows' codes.
var (
	// ErrComputeSystemDoesNotExist says that there is no container of that id.
	ErrComputeSystemDoesNotExist = syscall.Errno(0xc037010e)
	// ErrElementNotFound says that there is no such thing, a process for instance.
	ErrElementNotFound = syscall.Errno(0x490)
	// ErrNotSupported says that the system does not support the request.
	ErrNotSupported = syscall.Errno(0x32)
	// ErrInvalidData says that data is not valid, which an older system says of a request that it does not know.
	ErrInvalidData = syscall.Errno(0xd)
	// ErrVmcomputeAlreadyStopped says that the container or the process has ended.
	ErrVmcomputeAlreadyStopped = syscall.Errno(0xc0370110)
	// ErrVmcomputeOperationPending says that a shutdown or a termination is under way: wait for its end.
	ErrVmcomputeOperationPending = syscall.Errno(0xC0370103)
	// ErrVmcomputeOperationInvalidState says that the container cannot do that in its state.
	ErrVmcomputeOperationInvalidState = syscall.Errno(0xc0370105)
	// ErrProcNotFound says that the system lacks the call.
	ErrProcNotFound = syscall.Errno(0x7f)
	// ErrVmcomputeOperationAccessIsDenied says that the container does not let the caller in now.
	ErrVmcomputeOperationAccessIsDenied = syscall.Errno(0x5)
	// ErrVmcomputeInvalidJSON says that the system does not understand the configuration.
	ErrVmcomputeInvalidJSON = syscall.Errno(0xc037010d)
	// ErrVmcomputeUnknownMessage says that the guest does not know the request.
	ErrVmcomputeUnknownMessage = syscall.Errno(0xc037010b)
)

// Errors that have no code.
var (
	ErrHandleClose             = errors.New("hcsshim: the handle generating this notification has been closed")
	ErrAlreadyClosed           = errors.New("hcsshim: the handle has already been closed")
	ErrInvalidNotificationType = errors.New("hcsshim: invalid notification type")
	ErrInvalidProcessState     = errors.New("the process is in an invalid state for the attempted operation")
	ErrTimeout                 = errors.New("hcsshim: timeout waiting for notification")
	ErrUnexpectedContainerExit = errors.New("unexpected container exit")
	ErrUnexpectedProcessAbort  = errors.New("lost communication with compute service")
	ErrUnexpectedValue         = errors.New("unexpected value returned from hcs")
	ErrPlatformNotSupported    = errors.New("unsupported platform request")
)

// Codes that programs compare with.
const (
	// WaitErrExecFailed is the exit code of a process that could not be started.
	WaitErrExecFailed = 32767

	ERROR_GEN_FAILURE          = syscall.Errno(31)
	ERROR_SHUTDOWN_IN_PROGRESS = syscall.Errno(1115)
	WSAEINVAL                  = syscall.Errno(10022)

	// TimeoutInfinite waits without an end, in calls that take milliseconds.
	TimeoutInfinite = 0xFFFFFFFF
)
