package container

import "fmt"

// classed is an error with a class, for errors.Is, which its text says in
// words of its own.
type classed struct{ err, class error }

func (c *classed) Error() string   { return c.err.Error() }
func (c *classed) Unwrap() []error { return []error{c.err, c.class} }

// fault returns an error of the class.
func fault(class error, format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), class}
}
