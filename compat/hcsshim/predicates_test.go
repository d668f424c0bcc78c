package hcsshim_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
)

// TestPredicates tries every error with every predicate.
func TestPredicates(t *testing.T) {
	t.Parallel()
	predicates := map[string]func(error) bool{
		"not exist": hcsshim.IsNotExist, "closed": hcsshim.IsAlreadyClosed, "pending": hcsshim.IsPending,
		"timeout": hcsshim.IsTimeout, "stopped": hcsshim.IsAlreadyStopped, "not supported": hcsshim.IsNotSupported,
	}
	for _, c := range []struct {
		err error
		is  []string
	}{
		{nil, nil},
		{errors.New("x"), nil},
		{hcsshim.ErrComputeSystemDoesNotExist, []string{"not exist"}},
		{hcsshim.ErrElementNotFound, []string{"not exist", "stopped"}},
		{hcsshim.ErrProcNotFound, []string{"not exist", "stopped"}},
		{hcsshim.ErrVmcomputeAlreadyStopped, []string{"stopped"}},
		{hcsshim.ErrVmcomputeOperationPending, []string{"pending"}},
		{hcsshim.ErrVmcomputeOperationInvalidState, nil},
		{hcsshim.ErrVmcomputeOperationAccessIsDenied, nil},
		{hcsshim.ErrVmcomputeInvalidJSON, []string{"not supported"}},
		{hcsshim.ErrVmcomputeUnknownMessage, []string{"not supported"}},
		{hcsshim.ErrNotSupported, []string{"not supported"}},
		{hcsshim.ErrInvalidData, []string{"not supported"}},
		{hcsshim.ErrPlatformNotSupported, nil},
		{hcsshim.ErrAlreadyClosed, []string{"closed"}},
		{hcsshim.ErrHandleClose, nil},
		{hcsshim.ErrTimeout, []string{"timeout"}},
		{fmt.Errorf("wrapped: %w", hcsshim.ErrTimeout), []string{"timeout"}},
		{hcsshim.ErrInvalidNotificationType, nil},
		{hcsshim.ErrInvalidProcessState, nil},
		{hcsshim.ErrUnexpectedContainerExit, nil},
		{hcsshim.ErrUnexpectedProcessAbort, nil},
		{hcsshim.ErrUnexpectedValue, nil},
		{hcsshim.WSAEINVAL, nil},
		{&hcsshim.HcsError{Err: hcsshim.ErrNotSupported}, nil},
		{fmt.Errorf("wrapped: %w", &hcsshim.HcsError{Err: hcsshim.ErrElementNotFound}), nil},
	} {
		// What is true of an error is true of a call on a container or a process that failed because of it.
		for _, err := range []error{c.err, &hcsshim.ContainerError{Err: c.err}, &hcsshim.ProcessError{Err: c.err}} {
			for name, predicate := range predicates {
				if got := predicate(err); got != slices.Contains(c.is, name) {
					t.Errorf("%v: %s is %v", err, name, got)
				}
			}
		}
	}
}
