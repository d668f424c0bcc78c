package container

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/wire"
)

// Security says how far a system's processes are kept from the machine. The
// zero value is what docker has.
type Security struct {
	// CapAdd and CapDrop change the capabilities that are left to root: names with
	// or without CAP_, in capitals or not, or ALL. Where ALL is added, CapDrop
	// counts more, else CapAdd.
	CapAdd  []string `json:"capAdd,omitempty"`
	CapDrop []string `json:"capDrop,omitempty"`
	// NoNewPrivileges keeps setuid bits and file capabilities from giving any.
	NoNewPrivileges bool `json:"noNewPrivileges,omitempty"`
	// Seccomp is which system calls there are.
	Seccomp Seccomp `json:"seccomp,omitempty"`
}

// Seccomp says which system calls processes have.
type Seccomp string

const (
	// SeccompDefault leaves out those that docker does, for the capabilities.
	SeccompDefault Seccomp = ""
	// SeccompUnconfined leaves out none.
	SeccompUnconfined Seccomp = "unconfined"
)

// capabilityNames are all there are, by their numbers (linux/capability.h).
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
	"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

const allCapabilities = "ALL"

func capability(name string) string {
	name = strings.ToUpper(name)
	if name != allCapabilities && !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	return name
}

func (s *Security) check() error {
	if s.Seccomp != SeccompDefault && s.Seccomp != SeccompUnconfined {
		return fmt.Errorf("seccomp %q: use %q or nothing", s.Seccomp, SeccompUnconfined)
	}
	for _, name := range slices.Concat(s.CapAdd, s.CapDrop) {
		if c := capability(name); c != allCapabilities && !slices.Contains(capabilityNames, c) {
			return fmt.Errorf("capability %q: there is none of that name", name)
		}
	}
	if len(s.CapAdd) == 0 {
		return nil
	}
	may := givable()
	for _, name := range s.CapAdd {
		if c := capability(name); c != allCapabilities && !slices.Contains(may, c) {
			return fmt.Errorf("capability %q: this process cannot give what it may not have itself", name)
		}
	}
	return nil
}

// capabilities returns what is left to the root of a system. May tells what
// there is to give.
func (s *Security) capabilities(may func() []string) []string {
	add, drop := set(s.CapAdd), set(s.CapDrop)
	var all []string
	if add[allCapabilities] {
		all = may()
	}
	keep := func(c string) bool {
		switch {
		case add[allCapabilities]:
			return !drop[c] && slices.Contains(all, c)
		case add[c]:
			return true
		}
		return !drop[c] && !drop[allCapabilities] && slices.Contains(defaultCapabilities, c)
	}
	return slices.DeleteFunc(slices.Clone(capabilityNames), func(c string) bool { return !keep(c) })
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[capability(name)] = true
	}
	return m
}

// givable returns the capabilities in this process's bounding set, or, where
// that cannot be read, all: others are not passed on, and runtimes fail.
func givable() []string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return capabilityNames
	}
	for line := range strings.Lines(string(text)) {
		mask, ok := strings.CutPrefix(line, "CapBnd:")
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if !ok || err != nil {
			continue
		}
		var list []string
		for i, name := range capabilityNames {
			if bits>>i&1 != 0 {
				list = append(list, name)
			}
		}
		return list
	}
	return capabilityNames
}

// Device is a device of the host's.
type Device struct {
	Source string `json:"source"`           // path on the host
	Target string `json:"target,omitempty"` // path in the system; empty is Source
	Access string `json:"access,omitempty"` // of r, w and m, for mknod; empty is all
}

func (d *Device) target() string {
	if d.Target == "" {
		return path.Clean(d.Source)
	}
	return path.Clean(d.Target)
}

func (d *Device) access() string {
	if d.Access == "" {
		return "rwm"
	}
	return d.Access
}

func (s *Spec) checkDevices() error {
	for _, d := range s.Devices {
		switch {
		case !path.IsAbs(d.Source) || d.Target != "" && !path.IsAbs(d.Target) || d.target() == "/":
			return fmt.Errorf("device %q at %q: both must be absolute paths", d.Source, d.Target)
		case strings.Trim(d.Access, "rwm") != "":
			return fmt.Errorf("device %q: access %q: use r, w and m", d.Source, d.Access)
		case reserved(d.target()) != "":
			return fmt.Errorf("device %q: %s", d.Source, reserved(d.target()))
		}
	}
	return nil
}

// Ulimit is a limit as setrlimit(2) has it.
type Ulimit struct {
	Name string `json:"name"` // "nofile", "core", …
	Soft int64  `json:"soft"` // Unlimited, or 0 and more
	Hard int64  `json:"hard"`
}

// Unlimited is a Ulimit that is none.
const Unlimited = -1

var ulimitNames = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
	"sigpending", "stack",
}

func (s *Spec) checkUlimits() error {
	seen := make(map[string]bool)
	for _, u := range s.Ulimits {
		switch {
		case !slices.Contains(ulimitNames, u.Name):
			return fmt.Errorf("ulimit %q: use one of %s", u.Name, strings.Join(ulimitNames, ", "))
		case seen[u.Name]:
			return fmt.Errorf("ulimit %s: given twice", u.Name)
		case u.Soft < Unlimited || u.Hard < Unlimited:
			return fmt.Errorf("ulimit %s: %d:%d: at least 0, or -1 for none", u.Name, u.Soft, u.Hard)
		case uint64(u.Soft) > uint64(u.Hard): // Unlimited is the largest
			return fmt.Errorf("ulimit %s: the soft limit %d is above the hard one, %d", u.Name, u.Soft, u.Hard)
		case u.isForProcesses() && s.Resources.Pids > 0 && s.Resources.Pids < launcherPids:
			return fmt.Errorf("ulimit %s: %d:%d, and a limit of %d processes: at least %d, as setting it takes threads, which count",
				u.Name, u.Soft, u.Hard, s.Resources.Pids, launcherPids)
		}
		seen[u.Name] = true
	}
	return nil
}

// agentNeeds are the limits, by their names, below which neither the agent nor
// an OCI runtime works, or not for long. Such a limit is not theirs but only that
// of each process that the agent starts, by way of a launcher.
var agentNeeds = map[string]uint64{
	"cpu": 1<<64 - 1, "data": 256 << 20, "fsize": 1 << 20, "nofile": 64, "nproc": 64, "sigpending": 64,
}

// launcherPids is how many processes and threads have to be allowed for a
// launcher to work.
const launcherPids = 8

func (u *Ulimit) isForProcesses() bool { return uint64(u.Soft) < agentNeeds[u.Name] }

// processLimits are the limits that the system as a whole does not begin with.
func (s *Spec) processLimits() []wire.Rlimit {
	var list []wire.Rlimit
	for i := range s.Ulimits {
		if u := &s.Ulimits[i]; u.isForProcesses() {
			list = append(list, u.wire())
		}
	}
	return list
}

// wire returns the limit with its number.
func (u *Ulimit) wire() wire.Rlimit {
	o := u.oci()
	return wire.Rlimit{Name: o.Type, Resource: uint32(slices.Index(rlimitNames, o.Type)), Soft: o.Soft, Hard: o.Hard}
}

func (u *Ulimit) oci() specs.POSIXRlimit {
	return specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
}
