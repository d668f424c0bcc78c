package hcsshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/schema1"
)

// TestErrorTexts has the texts that programs match, and what is added to them here.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	c := &container{id: "web"}
	p := &process{container: c, pid: 7}
	events := []schema1.ErrorEvent{
		{Message: "m"}, {Message: "n", StackTrace: "s", Provider: "p", EventID: 3, Flags: 4, Source: "x"},
	}
	const state = "failure in a Windows system call: The requested compute system operation is not valid in the current state. (0xc0370105)"
	for _, e := range []struct {
		err  error
		want string
	}{
		{(*ContainerError)(nil), "<nil>"},
		{(*ProcessError)(nil), "<nil>"},
		{&ContainerError{Err: ErrTimeout}, "unexpected nil container for error: hcsshim: timeout waiting for notification"},
		{&ContainerError{}, "unexpected nil container for error: <nil>"},
		{&ProcessError{Err: ErrTimeout}, "unexpected nil process for error: hcsshim: timeout waiting for notification"},
		{&ContainerError{Container: c}, "container web"},
		{&ContainerError{Container: c, Operation: "Start"}, "container web encountered an error during Start"},
		{&ContainerError{Container: c, Operation: "Start", Err: ErrVmcomputeOperationInvalidState}, "container web encountered an error during Start: " + state},
		{&ContainerError{Container: c, Err: ErrTimeout, ExtraInfo: "{}"}, "container web: hcsshim: timeout waiting for notification extra info: {}"},
		{
			&ContainerError{Container: c, Events: events, ExtraInfo: "i"},
			"container web\n[Event Detail: m]\n[Event Detail: n Stack Trace: s Provider: p EventID: 3 flags: 4 Source: x] extra info: i",
		},
		{
			&ProcessError{Process: p, Operation: "Kill", Err: ErrElementNotFound, ExtraInfo: "not shown", Events: events[:1]},
			"process 7 in container web encountered an error during Kill: failure in a Windows system call: Element not found. (0x490)\n[Event Detail: m]",
		},
		{
			c.fail("Pause", fmt.Errorf("it is created: %w", errdefs.ErrFailedPrecondition)),
			"container web encountered an error during Pause: " + state + ": it is created: failed precondition",
		},
		{
			systemFailure(fs.ErrPermission, "web", "CreateComputeSystem", "{}"),
			"CreateComputeSystem web: failure in a Windows system call: Access is denied. (0x5): permission denied\n(extra info: {})",
		},
	} {
		if got := e.err.Error(); got != e.want {
			t.Errorf("got  %q\nwant %q", got, e.want)
		}
	}
}

// TestErrorsOfCalls follows causes to what callers compare with.
func TestErrorsOfCalls(t *testing.T) {
	t.Parallel()
	c := &container{id: "web"}
	p := &process{container: c}
	for _, e := range []struct{ cause, want error }{
		{ErrVmcomputeOperationPending, ErrVmcomputeOperationPending},
		{ErrAlreadyClosed, ErrAlreadyClosed},
		{fmt.Errorf("wait: %w", ErrHandleClose), ErrHandleClose},
		{context.DeadlineExceeded, ErrTimeout},
		{errdefs.ErrUnavailable, ErrUnexpectedProcessAbort},
		{errdefs.ErrAlreadyExists, syscall.Errno(0xc037010f)},
		{errdefs.ErrFailedPrecondition, ErrVmcomputeOperationInvalidState},
		{errdefs.ErrNotImplemented, ErrNotSupported},
		{errdefs.ErrNotFound, syscall.Errno(0x3)},
		{coded(ErrNotSupported, "no %s", "networks"), ErrNotSupported},
	} {
		for _, err := range []error{c.fail("x", e.cause), p.fail("x", e.cause), systemFailure(e.cause, "web", "x", "")} {
			if !errors.Is(err, e.want) || errors.Unwrap(err) != e.want { //nolint:errorlint // as clients do it
				t.Errorf("%v became %v", e.cause, err)
			}
			if _, code := e.cause.(syscall.Errno); !code && !errors.Is(err, e.cause) && errors.Unwrap(e.cause) == nil { //nolint:errorlint // bare
				t.Errorf("%v is lost in %v", e.cause, err)
			}
		}
	}
	// 13 is ERROR_INVALID_DATA there and EACCES here.
	denied := c.fail("x", &fs.PathError{Op: "open", Path: "/x", Err: syscall.Errno(13)})
	if IsNotSupported(denied) || errors.Is(denied, ErrInvalidData) {
		t.Errorf("a local number is taken for one of Windows': %v", denied)
	}
	if c.fail("x", nil) != nil || p.fail("x", nil) != nil || systemFailure(nil, "", "", "") != nil {
		t.Error("no error became one")
	}
}
