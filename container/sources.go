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
	for i := range s.Disks {
		if _, err := s.Disks[i].wire(""); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkRootDir() error {
	info, err := os.Stat(s.RootDir)
	if err == nil && !info.IsDir() {
		err = fault(errdefs.ErrInvalidArgument, "%s: not a directory", s.RootDir)
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
