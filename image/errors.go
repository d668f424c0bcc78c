package image

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// classError gives an error a class of errdefs without adding the class's own
// words to a message that says it already.
type classError struct {
	class error
	err   error
}

func (e *classError) Error() string   { return e.err.Error() }
func (e *classError) Unwrap() []error { return []error{e.class, e.err} }

func classed(class error, format string, args ...any) error {
	return &classError{class, fmt.Errorf(format, args...)}
}

func invalid(format string, args ...any) error {
	return classed(errdefs.ErrInvalidArgument, format, args...)
}

func notFound(format string, args ...any) error {
	return classed(errdefs.ErrNotFound, format, args...)
}

func dataLoss(format string, args ...any) error {
	return classed(errdefs.ErrDataLoss, format, args...)
}
