package bundle

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// classed gives an error a class of errdefs that its text does not name.
type classed struct{ err, class error }

func (c *classed) Error() string   { return c.err.Error() }
func (c *classed) Unwrap() []error { return []error{c.err, c.class} }

func invalid(format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), errdefs.ErrInvalidArgument}
}

func exists(format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), errdefs.ErrAlreadyExists}
}
