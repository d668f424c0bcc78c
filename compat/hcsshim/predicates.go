package hcsshim

import (
	"errors"
	"slices"
)

// IsNotExist reports whether an error of a container or a process says that there is none such.
//
// This and the other predicates look through wrapped errors, but not into an *HcsError: what failed in a layer call is not
// about a container.
func IsNotExist(err error) bool {
	return is(err, ErrComputeSystemDoesNotExist, ErrElementNotFound, ErrProcNotFound)
}

// IsAlreadyClosed reports whether the handle has been closed before.
func IsAlreadyClosed(err error) bool { return is(err, ErrAlreadyClosed) }

// IsPending reports whether the operation goes on, so that the caller waits for its end.
func IsPending(err error) bool { return is(err, ErrVmcomputeOperationPending) }

// IsTimeout reports whether the time that was given has passed.
func IsTimeout(err error) bool { return is(err, ErrTimeout) }

// IsAlreadyStopped reports whether the container or the process has ended before.
func IsAlreadyStopped(err error) bool {
	return is(err, ErrVmcomputeAlreadyStopped, ErrElementNotFound, ErrProcNotFound)
}

// IsNotSupported reports whether the system cannot do what was asked for.
func IsNotSupported(err error) bool {
	return is(err, ErrVmcomputeInvalidJSON, ErrInvalidData, ErrNotSupported, ErrVmcomputeUnknownMessage)
}

func is(err error, targets ...error) bool {
	if _, ofLayer := errors.AsType[*HcsError](err); ofLayer {
		return false
	}
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}
