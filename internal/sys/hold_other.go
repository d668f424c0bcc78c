//go:build !linux

package sys

import "errors"

// ErrUnheld is for Linux.
var ErrUnheld = errors.New("nobody held the file, and that was noticed")

// Hold is for Linux.
type Hold struct{}

// HoldFile is for Linux.
func HoldFile(string) (*Hold, error) { return nil, errNotOnThisOS }

// Release is for Linux.
func (*Hold) Release() error { return errNotOnThisOS }
