package container

import (
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// oci finds out which device it is now.
func (d *Device) oci() (specs.LinuxDevice, error) {
	info, err := os.Stat(d.Source)
	if err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("use device: %w", missing(err))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&os.ModeDevice == 0 {
		return specs.LinuxDevice{}, fault(errdefs.ErrInvalidArgument, "use device %s: it is not a device", d.Source)
	}
	dev := specs.LinuxDevice{Path: d.target(), Type: "b"}
	if info.Mode()&os.ModeCharDevice != 0 {
		dev.Type = "c"
	}
	dev.Major, dev.Minor = major(st.Rdev), minor(st.Rdev)
	mode := info.Mode().Perm()
	dev.FileMode, dev.UID, dev.GID = &mode, &st.Uid, &st.Gid
	return dev, nil
}

// major and minor take a device number of the kernel's apart (makedev(3)).
func major(dev uint64) int64 { return int64(dev>>8&0xfff | dev>>32&^0xfff) }
func minor(dev uint64) int64 { return int64(dev&0xff | dev>>12&^0xff&0xffffffff) }
