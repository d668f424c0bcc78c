package container

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// agentPath is where the system sees its agent: in /dev, which is the system's
// own, so that nothing of it gets into the scratch layer.
const agentPath = "/dev/.hcs-agent"

// cpuPeriod is the span, in microseconds, over which processor time is
// shared out: the kernel's default.
const cpuPeriod = 100_000

// bundle is all that the OCI configuration of a system depends on.
type bundle struct {
	record  *Record
	runDir  string // of the system
	cgroup  string
	agent   string // the agent's program on the host
	seccomp *specs.LinuxSeccomp
	hybrid  bool // the machine has v1 hierarchies: the system shares the host's cgroup namespace

	disk    string              // that Resources.IOPS and Bandwidth are for, "major:minor", or empty
	disks   []ioLimit           // of mounts
	devices []specs.LinuxDevice // of record.Spec.Devices, in that order
	caps    []string            // what is left to root

	user     bool // the system is in a user namespace, where the kernel mounts less
	rootless bool // and so are we
	ttyGroup bool // there is a group ttyGID
}

// ttyGID is the group of terminals, by the habit of all distributions.
const ttyGID = 5

// config returns the OCI configuration: the isolation that users of docker
// expect, and the agent as process.
func (b *bundle) config() *specs.Spec {
	caps := union(b.caps, agentCapabilities)
	return &specs.Spec{
		Version:  "1.0.2", // what Debian's crun still takes
		Hostname: b.hostname(),
		Root:     &specs.Root{Path: path.Join(b.runDir, wire.RootName), Readonly: b.record.Spec.ReadOnly},
		Process: &specs.Process{
			Args: b.agentArgs(), Cwd: "/", Env: []string{"PATH=/"},
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			NoNewPrivileges: b.record.Spec.Security.NoNewPrivileges,
			Rlimits:         b.rlimits(),
		},
		Mounts: b.mounts(),
		Linux: &specs.Linux{
			CgroupsPath:   b.cgroup,
			Namespaces:    b.namespaces(),
			Resources:     b.resources(),
			Sysctl:        b.sysctls(),
			Devices:       b.nodes(),
			Seccomp:       b.seccomp,
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
}

// agentCapabilities are those that the agent does not work without: it starts
// processes as other users, gives them terminals, and signals them.
var agentCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
}

// union returns the capabilities of both lists, in the order of their numbers.
func union(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(capabilityNames), func(c string) bool {
		return !slices.Contains(a, c) && !slices.Contains(b, c)
	})
}

// agentArgs tells the agent, if it has capabilities that other processes are
// not to have, which these are to have.
func (b *bundle) agentArgs() []string {
	if len(union(b.caps, agentCapabilities)) == len(b.caps) {
		return []string{agentPath}
	}
	return []string{agentPath, strconv.FormatUint(capabilityMask(b.caps), 16)}
}

// capabilityMask has a bit for each of the capabilities.
func capabilityMask(names []string) uint64 {
	var mask uint64
	for i, name := range capabilityNames {
		if slices.Contains(names, name) {
			mask |= 1 << i
		}
	}
	return mask
}

func (b *bundle) hostname() string {
	if h := b.record.Spec.Hostname; h != "" {
		return h
	}
	return ShortID(b.record.ID)
}

func (b *bundle) namespaces() []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
	}
	if b.record.Spec.Network != NetworkHost {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	if !b.hybrid {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list
}

func (b *bundle) mounts() []specs.Mount {
	list := b.standard()
	list = append(list, specs.Mount{
		Destination: agentPath, Type: "bind", Source: b.agent,
		Options: []string{"bind", "ro", "nosuid", "nodev"},
	})
	list = append(list, b.networkFiles()...)
	for _, m := range b.record.Spec.Mounts {
		list = append(list, m.oci())
	}
	for i := range b.record.Spec.Disks {
		d := &b.record.Spec.Disks[i]
		m := Mount{Target: d.target(), Source: b.diskDir(i), ReadOnly: d.ReadOnly}
		o := m.oci()
		o.Options = append(o.Options, "nosuid", "nodev")
		list = append(list, o)
	}
	return append(list, b.deviceMounts()...)
}

// networkFiles are those that say how names are found.
func (b *bundle) networkFiles() []specs.Mount {
	file := func(target, source string) specs.Mount {
		return specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"bind", "ro"}}
	}
	var list []specs.Mount
	ofHost := b.record.Spec.Network == NetworkHost && b.record.Spec.RootDir == ""
	if b.record.Spec.DNS.IsSet() {
		list = append(list, file(resolvConf, resolvFile(b.runDir)))
	} else if ofHost {
		list = append(list, file(resolvConf, resolvConf))
	}
	if len(b.record.Spec.Hosts) > 0 {
		list = append(list, file(hostsName, hostsFile(b.runDir)))
	} else if ofHost {
		list = append(list, file(hostsName, hostsName))
	}
	return list
}

// diskDir is where the shim mounts the disk of that number.
func (b *bundle) diskDir(i int) string { return path.Join(b.runDir, "disks", strconv.Itoa(i)) }

// deviceMounts mount devices where nobody can make nodes.
func (b *bundle) deviceMounts() []specs.Mount {
	var list []specs.Mount
	for i := range b.record.Spec.Devices {
		if d := &b.record.Spec.Devices[i]; b.user {
			list = append(list, specs.Mount{
				Destination: d.target(), Type: "bind", Source: d.Source, Options: []string{"bind", "nosuid", "noexec"},
			})
		}
	}
	return list
}

// nodes returns the device nodes to make. In a user namespace nobody can: those
// of the host are mounted there.
func (b *bundle) nodes() []specs.LinuxDevice {
	if b.user {
		return nil
	}
	return b.devices
}

// rlimits are those that the agent begins with, and all that it starts. Where it
// needs more than the soft limit it has the hard one, so that who sets the soft
// one for a process need not raise the other.
func (b *bundle) rlimits() []specs.POSIXRlimit {
	var list []specs.POSIXRlimit
	for i := range b.record.Spec.Ulimits {
		u := &b.record.Spec.Ulimits[i]
		o := u.oci()
		if u.isForProcesses() {
			if o.Hard < agentNeeds[u.Name] {
				continue
			}
			o.Soft = o.Hard
		}
		list = append(list, o)
	}
	return list
}

// sysctls returns the parameters by their names as OCI runtimes have them.
func (b *bundle) sysctls() map[string]string {
	if len(b.record.Spec.Sysctls) == 0 {
		return nil
	}
	m := make(map[string]string)
	for name, value := range b.record.Spec.Sysctls {
		m[strings.NewReplacer(".", "/", "/", ".").Replace(sysctlPath(name))] = value
	}
	return m
}

// standard returns the mounts that every system has, as far as the kernel
// allows them and the caller has none of his own there.
func (b *bundle) standard() []specs.Mount {
	var list []specs.Mount
	for _, m := range standardMounts {
		switch {
		case b.isChosen(m.Destination): // none that others are made in: ownTargets
			continue
		case m.Type == "cgroup" && b.cgroup == "" && b.hybrid: // there is none to show, and the host's are to stay out
			m.Type, m.Source = "tmpfs", "tmpfs"
			m.Options = append(slices.Clone(m.Options), "mode=755")
		case m.Type == "devpts" && b.ttyGroup:
			m.Options = append(slices.Clone(m.Options), "gid="+strconv.Itoa(ttyGID))
		case m.Type == "sysfs" && b.user && b.record.Spec.Network == NetworkHost: // only who owns the network may mount it
			m = specs.Mount{
				Destination: m.Destination, Type: "bind", Source: "/sys",
				Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"},
			}
		}
		list = append(list, m)
	}
	return list
}

func (m *Mount) oci() specs.Mount {
	if m.Type == "tmpfs" {
		o := specs.Mount{
			Destination: m.target(), Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "mode=" + strconv.FormatUint(uint64(cmp.Or(m.Mode, 0o1777)), 8)},
		}
		if m.Size > 0 {
			o.Options = append(o.Options, "size="+strconv.FormatInt(m.Size, 10))
		}
		return m.protect(o)
	}
	return m.protect(specs.Mount{
		Destination: m.target(), Type: "bind", Source: m.Source, Options: []string{"rbind", "rprivate"},
	})
}

func (m *Mount) protect(o specs.Mount) specs.Mount {
	if m.ReadOnly {
		o.Options = append(o.Options, "ro")
	}
	if m.NoExec {
		o.Options = append(o.Options, "noexec")
	}
	return o
}

func (b *bundle) resources() *specs.LinuxResources {
	if b.cgroup == "" {
		return nil
	}
	out := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	for i := range b.devices {
		d := &b.devices[i]
		out.Devices = append(out.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: b.record.Spec.Devices[i].access(),
		})
	}
	l := b.limits()
	if l.Memory > 0 {
		out.Memory = &specs.LinuxMemory{Limit: &l.Memory}
	}
	if l.MemorySwap > 0 {
		out.Memory.Swap = &l.MemorySwap
	}
	if l.CPUQuota > 0 || l.CPUSet != "" || l.CPUWeight > 0 {
		out.CPU = b.cpu(&l)
	}
	if l.Pids > 0 {
		out.Pids = &specs.LinuxPids{Limit: &l.Pids}
	}
	out.BlockIO = b.blockIO()
	if !b.hybrid && l.CPUWeight > 0 { // which runtimes would make of v1's shares in ways of their own
		out.Unified = map[string]string{"cpu.weight": strconv.FormatInt(l.CPUWeight, 10)}
	}
	return out
}

// limits are those of the system's control group, without the devices.
func (b *bundle) limits() wire.Limits {
	r := &b.record.Spec.Resources
	l := wire.Limits{
		Memory: r.Memory, MemorySwap: r.MemorySwap, CPUWeight: r.CPUWeight, CPUSet: r.CPUSet,
		IODevice: b.disk, IOPS: r.IOPS, Bandwidth: r.Bandwidth,
	}
	for _, d := range b.disks {
		l.Disks = append(l.Disks, fmt.Sprintf("%s %d %d", d.disk, d.iops, d.bandwidth))
	}
	if r.CPUs > 0 {
		l.CPUPeriod, l.CPUQuota = cpuPeriod, int64(r.CPUs*cpuPeriod)
	}
	if r.Pids > 0 {
		l.Pids = r.Pids + sys.AgentThreads
	}
	return l
}

func (b *bundle) cpu(l *wire.Limits) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: l.CPUSet}
	if l.CPUQuota > 0 {
		c.Period, c.Quota = &l.CPUPeriod, &l.CPUQuota
	}
	if l.CPUWeight > 0 && b.hybrid {
		shares := uint64(max(2, l.CPUWeight*1024/100)) // v1's own, 1024, is v2's 100
		c.Shares = &shares
	}
	return c
}

// ioLimit is a limit of a system's use of a disk.
type ioLimit struct {
	disk            string // "major:minor"
	iops, bandwidth int64  // the latter in bytes a second; 0 is none
}

func (b *bundle) blockIO() *specs.LinuxBlockIO {
	r := &b.record.Spec.Resources
	all := b.disks
	if b.disk != "" {
		all = append(slices.Clone(all), ioLimit{b.disk, r.IOPS, r.Bandwidth})
	}
	if len(all) == 0 {
		return nil
	}
	var out specs.LinuxBlockIO
	for _, l := range all {
		var d specs.LinuxThrottleDevice
		_, _ = fmt.Sscanf(l.disk, "%d:%d", &d.Major, &d.Minor) // as diskOf has made it
		if d.Rate = uint64(l.bandwidth); d.Rate > 0 {
			out.ThrottleReadBpsDevice = append(out.ThrottleReadBpsDevice, d)
			out.ThrottleWriteBpsDevice = append(out.ThrottleWriteBpsDevice, d)
		}
		if d.Rate = uint64(l.iops); d.Rate > 0 {
			out.ThrottleReadIOPSDevice = append(out.ThrottleReadIOPSDevice, d)
			out.ThrottleWriteIOPSDevice = append(out.ThrottleWriteIOPSDevice, d)
		}
	}
	return &out
}

// standardMounts are those that docker gives a container.
var standardMounts = []specs.Mount{
	{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
	{
		Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
	},
	{
		Destination: "/dev/pts", Type: "devpts", Source: "devpts",
		Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"},
	},
	{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "ro"},
	},
	{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + fmt.Sprint(64<<20)},
	},
}

// defaultCapabilities are those that docker leaves a container's root
// (https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities),
// by their numbers.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

// maskedPaths and readonlyPaths are docker's: files of /proc and /sys that
// tell of, or reach into, the host.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
