package container

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
)

// checkSources reports what the spec names of the host's and is not there, as
// an error of class ErrNotFound, or is not what it should be. The starter would
// find that too, in words of its runtime's, and after much else was done.
func (s *Spec) checkSources() error {
	if s.RootDir != "" {
		if err := s.checkRootDir(); err != nil {
			return err
		}
	}
	for _, m := range s.Mounts {
		if m.Type == "tmpfs" {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return fmt.Errorf("mount at %s: %w", m.Target, missing(err))
		}
	}
	for i := range s.Devices {
		if _, err := s.Devices[i].oci(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkRootDir() error {
	info, err := os.Stat(s.RootDir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: not a directory: %w", s.RootDir, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("use root directory: %w", missing(err))
	}
	return nil
}

// missing gives the system's error that something is not there its class,
// without the class's words.
func missing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &classed{err, errdefs.ErrNotFound}
	}
	return err
}

// classed is an error with a class that its text does not repeat.
type classed struct{ err, class error }

func (c *classed) Error() string   { return c.err.Error() }
func (c *classed) Unwrap() []error { return []error{c.err, c.class} }
