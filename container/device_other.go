//go:build !linux

package container

import (
	"fmt"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func (d *Device) oci() (specs.LinuxDevice, error) {
	return specs.LinuxDevice{}, fmt.Errorf("use device %s: not supported on %s: %w", d.Source, runtime.GOOS, errdefs.ErrNotImplemented)
}
