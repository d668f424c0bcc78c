package hcsshim

import (
	"path/filepath"
	"strings"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// A deviceClass is a class of Windows' that has devices on Linux too.
type deviceClass struct {
	name  string
	nodes []string // patterns of their paths
}

// deviceClasses are those that Windows has for containers, by their GUIDs
// (https://learn.microsoft.com/virtualization/windowscontainers/deploy-containers/hardware-devices-in-containers). The names of
// the nodes are those of Documentation/admin-guide/devices.txt and of the drivers in drivers/gpio and drivers/gpu/drm.
var deviceClasses = map[string]deviceClass{
	"916ef1cb-8426-468d-a6f7-9ae8076881b3": {"GPIO", []string{"/dev/gpiochip[0-9]*"}},
	"a11ee3c6-8421-4202-a3e7-b91ff90188e4": {"I2C bus", []string{"/dev/i2c-[0-9]*"}},
	"86e0d1e0-8089-11d0-9ce4-08003e301f73": {"COM port", []string{"/dev/ttyS[0-9]*", "/dev/ttyUSB[0-9]*", "/dev/ttyACM[0-9]*", "/dev/ttyAMA[0-9]*"}},
	"dcde6af9-6610-4285-828f-caaf78c424cc": {"SPI bus", []string{"/dev/spidev[0-9]*"}},
	"5b45201d-f2f2-4f3b-85bb-30ff1f953599": {"DirectX GPU", []string{"/dev/dri/card[0-9]*", "/dev/dri/renderD[0-9]*", "/dev/dxg"}},
}

// devices returns the devices that the container may use.
func (c *ContainerConfig) devices() ([]compute.Device, error) {
	var list []compute.Device
	seen := make(map[string]bool)
	for i := range c.AssignedDevices {
		paths, err := c.AssignedDevices[i].paths()
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if !seen[path] {
				list = append(list, compute.Device{Source: path})
			}
			seen[path] = true
		}
	}
	return list, nil
}

// paths returns the nodes of a device, or of all that there are of a class.
func (d *AssignedDevice) paths() ([]string, error) {
	id := d.InterfaceClassGUID
	if filepath.IsAbs(id) {
		return []string{filepath.Clean(id)}, nil
	}
	class, ok := deviceClasses[strings.ToLower(strings.Trim(id, "{}"))]
	if !ok {
		return nil, coded(ErrNotSupported, "AssignedDevices: InterfaceClassGuid %q: use a device's path, or one of the classes GPIO, I2C, COM port, SPI and GPU", id)
	}
	var paths []string
	for _, pattern := range class.nodes {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, coded(hcserror.InvalidParameter, "AssignedDevices: InterfaceClassGuid %q: %w", id, err)
		}
		paths = append(paths, found...)
	}
	if len(paths) == 0 {
		return nil, coded(ErrNotSupported, "AssignedDevices: InterfaceClassGuid %q: the machine has no %s", id, class.name)
	}
	return paths, nil
}
