package hcsshim

import (
	"fmt"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	compute "github.com/hostcompute/hcs/container"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
)

// A kind of container is one way to run what a configuration asks for. Another one, a machine or Windows' own programs, is
// another row in kinds: what makes a specification for the starter that runs it.
type kind struct {
	is   func(*ContainerConfig) bool
	spec func(id string, c *ContainerConfig) (compute.Spec, error)
}

// kinds are the kinds that there are. The first that fits decides.
var kinds = []kind{
	{
		func(c *ContainerConfig) bool { return c.HvPartition },
		unsupported("HvPartition: containers in a utility VM"),
	},
	{
		func(c *ContainerConfig) bool { return c.ContainerType == "Windows" },
		unsupported("ContainerType Windows: what runs Windows' programs"),
	},
	{
		func(c *ContainerConfig) bool { return c.ContainerType == "" || c.ContainerType == "Linux" },
		linuxSpec,
	},
}

// unsupported is the specification of a kind that cannot be run because something is missing here.
func unsupported(missing string) func(string, *ContainerConfig) (compute.Spec, error) {
	return func(string, *ContainerConfig) (compute.Spec, error) {
		return compute.Spec{}, coded(ErrNotSupported, "%s is not there yet", missing)
	}
}

// specOf returns what a container is to be, but for its root.
func specOf(id string, c *ContainerConfig) (compute.Spec, error) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.is(c) })
	if i < 0 {
		return compute.Spec{}, coded(hcserror.InvalidParameter, "ContainerType %q: use Linux", c.ContainerType)
	}
	return kinds[i].spec(id, c)
}

// linuxSpec is the specification of a container of this machine's kernel.
func linuxSpec(id string, c *ContainerConfig) (compute.Spec, error) {
	if err := c.checkSupported(); err != nil {
		return compute.Spec{}, err
	}
	mounts, err := c.mounts()
	if err != nil {
		return compute.Spec{}, err
	}
	disks, err := c.disks()
	if err != nil {
		return compute.Spec{}, err
	}
	devices, err := c.devices()
	if err != nil {
		return compute.Spec{}, err
	}
	return compute.Spec{
		Name: id, Hostname: c.HostName, Mounts: mounts, Disks: disks, Devices: devices, Endpoints: c.EndpointList, RootDir: c.VolumePath, WriteInPlace: true,
		HandleBound: c.TerminateOnLastHandleClosed, Credentials: c.Credentials, DNS: compute.DNS{Search: c.searchList()},
		Resources: compute.Resources{
			Memory: c.MemoryMaximumInMB << 20, CPUs: c.cpus(runtime.NumCPU()), CPUWeight: int64(c.ProcessorWeight),
			IOPS: int64(c.StorageIOPSMaximum), Bandwidth: int64(c.StorageBandwidthMaximum),
		},
	}, nil
}

// checkSupported returns an error that names what this system cannot do.
func (c *ContainerConfig) checkSupported() error {
	for _, field := range []struct {
		asked bool
		name  string
	}{
		{c.NetworkSharedContainerName != "", "NetworkSharedContainerName: networks"},
	} {
		if field.asked {
			return coded(ErrNotSupported, "%s: not supported", field.name)
		}
	}
	switch {
	case c.SystemType != "" && c.SystemType != containerType:
		return coded(ErrNotSupported, "SystemType %q: use %s", c.SystemType, containerType)
	case c.MemoryMaximumInMB < 0 || c.MemoryMaximumInMB > math.MaxInt64>>20:
		return coded(hcserror.InvalidParameter, "MemoryMaximumInMB %d: out of range", c.MemoryMaximumInMB)
	case c.ProcessorWeight > maxWeight:
		return coded(hcserror.InvalidParameter, "ProcessorWeight %d: from 1 to %d", c.ProcessorWeight, maxWeight)
	case c.StorageIOPSMaximum > math.MaxInt64:
		return coded(hcserror.InvalidParameter, "StorageIOPSMaximum %d: out of range", c.StorageIOPSMaximum)
	case c.StorageBandwidthMaximum > math.MaxInt64:
		return coded(hcserror.InvalidParameter, "StorageBandwidthMaximum %d: out of range", c.StorageBandwidthMaximum)
	case c.ProcessorMaximum < 0 || c.ProcessorMaximum > fullProcessor:
		return coded(hcserror.InvalidParameter, "ProcessorMaximum %d: from 1 to %d", c.ProcessorMaximum, fullProcessor)
	}
	return nil
}

// maxWeight is the largest ProcessorWeight, here as on Windows.
const maxWeight = 10_000

// containerType is the SystemType of all containers.
const containerType = "Container"

// fullProcessor is a ProcessorMaximum of all there is: hundredths of a percent.
const fullProcessor = 10_000

// cpus returns how many processors' time the container may take, of those that there are. 0 is all.
func (c *ContainerConfig) cpus(all int) float64 {
	var limit float64
	if c.ProcessorCount > 0 && int64(c.ProcessorCount) < int64(all) {
		limit = float64(c.ProcessorCount)
	}
	if share := float64(c.ProcessorMaximum) / fullProcessor * float64(all); c.ProcessorMaximum > 0 && (limit == 0 || share < limit) {
		limit = share
	}
	return limit
}

// searchList returns the domains of DNSSearchList, which are separated by commas.
func (c *ContainerConfig) searchList() []string {
	return strings.FieldsFunc(c.DNSSearchList, func(r rune) bool { return r == ',' || r == ' ' })
}

// mounts returns what the container sees of the host.
func (c *ContainerConfig) mounts() ([]compute.Mount, error) {
	var list []compute.Mount
	for i := range c.MappedDirectories {
		m, err := c.MappedDirectories[i].mount()
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", c.MappedDirectories[i].HostPath, err)
		}
		list = append(list, m)
	}
	for i := range c.MappedPipes {
		m, err := c.MappedPipes[i].mount()
		if err != nil {
			return nil, fmt.Errorf("map pipe %s: %w", c.MappedPipes[i].HostPath, err)
		}
		list = append(list, m)
	}
	return list, nil
}

func (d *MappedDir) mount() (compute.Mount, error) {
	switch {
	case d.BandwidthMaximum > math.MaxInt64:
		return compute.Mount{}, coded(hcserror.InvalidParameter, "BandwidthMaximum %d: out of range", d.BandwidthMaximum)
	case d.IOPSMaximum > math.MaxInt64:
		return compute.Mount{}, coded(hcserror.InvalidParameter, "IOPSMaximum %d: out of range", d.IOPSMaximum)
	case d.CreateInUtilityVM:
		return compute.Mount{}, coded(ErrNotSupported, "CreateInUtilityVM: there is no utility VM")
	}
	return compute.Mount{
		Source: d.HostPath, Target: d.ContainerPath, ReadOnly: d.ReadOnly,
		IOPS: int64(d.IOPSMaximum), Bandwidth: int64(d.BandwidthMaximum),
	}, nil
}

// pipeDirectory is where a container sees the pipes that have a name alone.
const pipeDirectory = "/run"

func (p *MappedPipe) mount() (compute.Mount, error) {
	info, err := os.Stat(p.HostPath)
	if err == nil && info.Mode()&(os.ModeSocket|os.ModeNamedPipe) == 0 {
		err = coded(hcserror.InvalidParameter, "it is neither a socket nor a named pipe")
	}
	if err != nil {
		return compute.Mount{}, err
	}
	target, err := p.target()
	return compute.Mount{Source: p.HostPath, Target: target}, err
}

// target is where the container sees the pipe.
func (p *MappedPipe) target() (string, error) {
	name := strings.TrimPrefix(p.ContainerPipeName, `\\.\pipe\`)
	switch {
	case name == "":
		return "", coded(hcserror.InvalidParameter, "ContainerPipeName is empty")
	case path.IsAbs(name):
		return name, nil
	}
	return path.Join(pipeDirectory, name), nil
}

// disks returns the disk images that the container sees.
func (c *ContainerConfig) disks() ([]compute.Disk, error) {
	var list []compute.Disk
	for i := range c.MappedVirtualDisks {
		d, err := c.MappedVirtualDisks[i].disk()
		if err != nil {
			return nil, fmt.Errorf("map disk %s: %w", c.MappedVirtualDisks[i].HostPath, err)
		}
		list = append(list, d)
	}
	return list, nil
}

func (d *MappedVirtualDisk) disk() (compute.Disk, error) {
	switch {
	case d.CreateInUtilityVM:
		return compute.Disk{}, coded(ErrNotSupported, "CreateInUtilityVM: there is no utility VM")
	case d.AttachOnly:
		return compute.Disk{}, coded(ErrNotSupported, "AttachOnly: a disk is mounted")
	}
	return compute.Disk{Source: d.HostPath, Target: d.ContainerPath, ReadOnly: d.ReadOnly}, nil
}
