//go:build !linux

package sys

import (
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
)

// Cgroup is a control group; there is none on this system.
type Cgroup struct{}

func noCgroups() error {
	return fmt.Errorf("use a control group: not supported on %s: %w", runtime.GOOS, errdefs.ErrNotImplemented)
}

// NewCgroup returns an error.
func NewCgroup(string) (*Cgroup, error) { return nil, noCgroups() }

// Exists returns false.
func (*Cgroup) Exists() bool { return false }

// Children returns an error.
func (*Cgroup) Children() ([]string, error) { return nil, noCgroups() }

// Kill returns an error.
func (*Cgroup) Kill(time.Duration) error { return noCgroups() }

// Remove returns an error.
func (*Cgroup) Remove() error { return noCgroups() }

// RemoveEmpty returns an error.
func (*Cgroup) RemoveEmpty() error { return noCgroups() }

// CPUs returns an error.
func (*Cgroup) CPUs() (string, error) { return "", noCgroups() }

// CgroupMeter is for Linux.
type CgroupMeter struct{}

// NewMeter returns an error.
func (*Cgroup) NewMeter(int) (*CgroupMeter, error) { return nil, noCgroups() }

// Read returns an error.
func (*CgroupMeter) Read(*CgroupStats) error { return noCgroups() }

// Close does nothing.
func (*CgroupMeter) Close() error { return nil }

// MayMakeCgroup returns false.
func MayMakeCgroup(string) bool { return false }
