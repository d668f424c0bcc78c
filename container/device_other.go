//go:build !linux

package container

import (
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func (d *Device) oci() (specs.LinuxDevice, error) {
	return specs.LinuxDevice{}, fault(errdefs.ErrNotImplemented, "use device %s: not supported on %s", d.Source, runtime.GOOS)
}
