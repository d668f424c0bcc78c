package container

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/wire"
)

// birth returns how the first process comes into being where no OCI runtime
// starts it.
func (b *bundle) birth() wire.Birth {
	birth := wire.Birth{
		ID: b.record.ID, Cgroup: b.cgroup, Agent: b.agent, Args: []string{agentPath, wire.NativeArgument},
		Network: b.record.Spec.Network != NetworkHost, Bounding: capabilityMask(b.caps), // the agent's own are for nobody else
	}
	for _, l := range b.rlimits() {
		if l.Type == openFiles { // which counts from the beginning
			birth.Args = append(birth.Args, fmt.Sprintf("%d:%d", l.Soft, l.Hard))
		}
	}
	if ids := b.record.IDs; !ids.isHost() {
		birth.IDs = &wire.IDs{First: ids.First, Size: ids.Size}
	}
	return birth
}

// openFiles is the limit that is set before all others.
const openFiles = "RLIMIT_NOFILE"

// native returns what the shim is to do where no OCI runtime does it, for the
// same container: it is made of the same configuration. V1 are the directories
// of the system's control group in the v1 hierarchies, by their names; filter
// is what the configuration's list of system calls is, compiled.
func (b *bundle) native(v1 map[string]string, filter []byte) (*wire.Native, error) {
	c := b.config()
	build := wire.Build{
		ReadOnly: c.Root.Readonly, Hostname: c.Hostname,
		Loopback:     hasNamespace(c, specs.NetworkNamespace),
		Cgroup:       hasNamespace(c, specs.CgroupNamespace),
		Masked:       c.Linux.MaskedPaths,
		Fixed:        c.Linux.ReadonlyPaths,
		Bounding:     capabilityMask(b.caps),
		Capabilities: capabilityMask(c.Process.Capabilities.Permitted), NoNewPrivileges: c.Process.NoNewPrivileges,
		Seccomp: filter,
		Sysctls: nativeSysctls(b.record.Spec.Sysctls),
	}
	for i := range c.Mounts {
		list, err := nativeMounts(&c.Mounts[i], v1)
		if err != nil {
			return nil, err
		}
		build.Mounts = append(build.Mounts, list...)
	}
	b.nativeDevices(&build, c.Linux.Devices)
	for _, l := range c.Process.Rlimits {
		if l.Type == openFiles {
			continue
		}
		build.Rlimits = append(build.Rlimits, wire.Rlimit{
			Name: l.Type, Resource: uint32(slices.Index(rlimitNames, l.Type)), Soft: l.Soft, Hard: l.Hard,
		})
	}
	n := &wire.Native{Lent: b.lent(build.Mounts)}
	n.Build = build.Encode()
	return n, nil
}

// lent takes those mounts off the first process's that only the shim can make:
// of disks, which it mounts when the first process has its own view of the
// host's already, and, for ids that have no rights on the host and may not even
// find them, of all of the host's files. What the caller chose to show has the
// owners that it has for the system; devices and the host's own few files cannot
// be, or need not.
func (b *bundle) lent(mounts []wire.Mount) []wire.Lent {
	var list []wire.Lent
	for i := range mounts {
		m := &mounts[i]
		if m.Type != "" || b.record.IDs.isHost() && !b.isDisk(m.Target) {
			continue
		}
		list = append(list, wire.Lent{
			Source: m.Source, Recursive: m.Recursive, Attributes: m.Attributes, Mapped: b.isChosen(m.Target),
		})
		*m = wire.Mount{Target: m.Target, Lent: uint64(len(list))}
	}
	return list
}

// isChosen reports whether the caller chose what is mounted at the target.
func (b *bundle) isChosen(target string) bool {
	spec := &b.record.Spec
	return slices.ContainsFunc(spec.Mounts, func(m Mount) bool { return m.target() == target }) || b.isDisk(target)
}

func (b *bundle) isDisk(target string) bool {
	return slices.ContainsFunc(b.record.Spec.Disks, func(d Disk) bool { return d.target() == target })
}

func hasNamespace(c *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(c.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

// attributes are the options of a mount that are no file system's
// (include/uapi/linux/mount.h).
var attributes = map[string]uint64{
	"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x10, "strictatime": 0x20,
}

// nativeMounts returns what makes the mount. Private they all are.
func nativeMounts(m *specs.Mount, v1 map[string]string) ([]wire.Mount, error) {
	out := wire.Mount{Target: m.Destination, Type: m.Type, Source: m.Source}
	for _, option := range m.Options {
		switch attribute, ok := attributes[option]; {
		case ok:
			out.Attributes |= attribute
		case option == "bind", option == "rprivate":
		case option == "rbind":
			out.Recursive = true
		case m.Type == "bind":
			return nil, fault(errdefs.ErrNotImplemented, "mount on %s: option %s", m.Destination, option)
		default:
			out.Options = append(out.Options, option)
		}
	}
	switch {
	case m.Type == "bind":
		out.Type = ""
	case m.Type == "cgroup" && len(v1) > 0:
		return cgroupMounts(out, v1), nil
	case m.Type == "cgroup":
		out.Type = "cgroup2"
	}
	return []wire.Mount{out}, nil
}

// cgroupMounts shows each v1 hierarchy's own group, in a directory of the
// hierarchy's name.
func cgroupMounts(m wire.Mount, v1 map[string]string) []wire.Mount {
	list := []wire.Mount{{
		Target: m.Target, Type: "tmpfs", Source: "tmpfs", Attributes: m.Attributes, Options: []string{"mode=755"},
	}}
	for _, name := range slices.Sorted(maps.Keys(v1)) {
		list = append(list, wire.Mount{Target: path.Join(m.Target, name), Source: v1[name], Attributes: m.Attributes})
	}
	return list
}

// rlimitNames are all limits, by their numbers on the machines that
// seccomp.Supported knows (include/uapi/asm-generic/resource.h).
var rlimitNames = []string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
	"RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE",
	"RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

// standardDevices are those that every container has, character devices of
// everybody's: by an OCI runtime without being asked
// (https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices).
var standardDevices = []wire.DeviceNode{
	{Path: "/dev/null", Major: 1, Minor: 3},
	{Path: "/dev/zero", Major: 1, Minor: 5},
	{Path: "/dev/full", Major: 1, Minor: 7},
	{Path: "/dev/random", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Major: 1, Minor: 9},
	{Path: "/dev/tty", Major: 5, Minor: 0},
}

// The types of nodes (mknod(2)).
const (
	charDevice  = 0o020000
	blockDevice = 0o060000
)

// nativeDevices adds the standard devices and these, or, where nobody can make
// nodes, the host's standard ones.
func (b *bundle) nativeDevices(build *wire.Build, devices []specs.LinuxDevice) {
	for _, n := range standardDevices {
		own := func(d specs.LinuxDevice) bool { return d.Path == n.Path }
		switch {
		case b.user:
			build.Mounts = append(build.Mounts, wire.Mount{Target: n.Path, Source: n.Path})
		case !slices.ContainsFunc(devices, own):
			n.Mode = charDevice | 0o666
			build.Devices = append(build.Devices, n)
		}
	}
	for i := range devices {
		build.Devices = append(build.Devices, deviceNode(&devices[i]))
	}
}

func deviceNode(d *specs.LinuxDevice) wire.DeviceNode {
	n := wire.DeviceNode{Path: d.Path, Mode: charDevice, Major: uint32(d.Major), Minor: uint32(d.Minor)}
	if d.Type == "b" {
		n.Mode = blockDevice
	}
	if d.UID != nil && d.GID != nil && d.FileMode != nil { // of the host's device
		n.UID, n.GID, n.Mode = *d.UID, *d.GID, n.Mode|uint32(d.FileMode.Perm())
	}
	return n
}

// standardRules are the devices that processes may use without being asked for:
// the standard ones and terminals. Nodes may be made of all.
var standardRules = []string{
	"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
}

func (b *bundle) nativeLimits(r *specs.LinuxResources) wire.Limits {
	if r == nil {
		return wire.Limits{}
	}
	l := b.limits()
	if b.rootless { // the rules are not for it to set, and it has no devices but the host's
		return l
	}
	l.Devices = slices.Clone(standardRules)
	for i := range r.Devices {
		if d := &r.Devices[i]; d.Allow {
			l.Devices = append(l.Devices, deviceRule(d))
		}
	}
	return l
}

func deviceRule(d *specs.LinuxDeviceCgroup) string {
	number := func(n *int64) string {
		if n == nil {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	return strings.Join([]string{d.Type, fmt.Sprintf("%s:%s", number(d.Major), number(d.Minor)), d.Access}, " ")
}
