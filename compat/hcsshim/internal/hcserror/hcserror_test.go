package hcserror_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	"github.com/hostcompute/hcs/regf"
)

func TestCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code syscall.Errno
	}{
		{errors.New("x"), 0x1f},
		{fmt.Errorf("layer: %w", errdefs.ErrNotFound), 0x3},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, 0x3},
		{errdefs.ErrNotImplemented, 0x32},
		{errors.Join(errdefs.ErrUnavailable, errdefs.ErrNotFound), 0x20},
		{fmt.Errorf("%w: %w", regf.ErrCorrupt, errdefs.ErrInvalidArgument), 0x3f1},
		{context.DeadlineExceeded, 0x5b4},
		{syscall.EPERM, 0x5}, // by its class, not by its number
		{&hcserror.Coded{Code: 0x37}, 0x37},
		{fmt.Errorf("twice: %w", hcserror.New(errdefs.ErrDataLoss, "t", "r")), 0x570},
	} {
		if got := hcserror.Code(c.err); got != c.code {
			t.Errorf("%v is %#x, want %#x", c.err, uintptr(got), uintptr(c.code))
		}
	}
}

func TestHcsError(t *testing.T) {
	t.Parallel()
	if hcserror.New(nil, "t", "r") != nil {
		t.Error("no error became one")
	}
	err := hcserror.New(fmt.Errorf("open layer x: %w", errdefs.ErrNotFound), "hcsshim::ActivateLayer", "path=/x")
	want := "hcsshim::ActivateLayer failed in Win32: The system cannot find the path specified. (0x3) path=/x: open layer x: not found"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	e, ok := err.(*hcserror.HcsError)                                                                          //nolint:errorlint // as clients do it
	if !ok || e.Err != syscall.Errno(0x3) || !errors.Is(err, syscall.Errno(0x3)) || !errdefs.IsNotFound(err) { //nolint:errorlint // as clients do it
		t.Errorf("the error is %#v", err)
	}
	if again := hcserror.New(err, "other", ""); again != err { //nolint:errorlint // the very same
		t.Errorf("a failed call became %v", again)
	}
}
