package container

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/state"
)

// Network says which network a system has.
type Network string

const (
	// NetworkNone gives it a network stack of its own with nothing but the
	// loopback device. It is the default.
	NetworkNone Network = "none"
	// NetworkHost leaves it in the host's network stack.
	NetworkHost Network = "host"
)

// Mount is something of the host's that a system sees in its tree.
type Mount struct {
	// Type is "bind", for a file or directory of the host, or "tmpfs". Empty is
	// bind.
	Type string `json:"type,omitempty"`
	// Source is an absolute path of the host, for bind.
	Source string `json:"source,omitempty"`
	// Target is an absolute path in the system. It is made if it is missing. What is masked or read-only in every system cannot be one.
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Size limits a tmpfs, in bytes; 0 leaves it to the kernel (half the memory).
	Size int64 `json:"size,omitempty"`
	// Mode is a tmpfs's permission bits; 0 is 01777.
	Mode uint32 `json:"mode,omitempty"`
	// NoExec keeps programs of the mount from being run.
	NoExec bool `json:"noExec,omitempty"`
	// IOPS and Bandwidth, in bytes a second, bound how much is read, and how much
	// written, on the disk that a bind's source is on, as those of Resources do for
	// the root. The kernel limits disks: whatever else of the system's is on that
	// disk must have the same limits, or the system does not start, with an error
	// of class ErrNotImplemented.
	IOPS      int64 `json:"iops,omitempty"`
	Bandwidth int64 `json:"bandwidth,omitempty"`
}

// Resources are a system's limits. Zero is unlimited.
type Resources struct {
	Memory int64 `json:"memory,omitempty"` // bytes, at least MinMemory
	// MemorySwap is for memory and swap together, in bytes: at least Memory, and
	// not without.
	MemorySwap int64   `json:"memorySwap,omitempty"`
	CPUs       float64 `json:"cpus,omitempty"` // how many processors' time, 1.5 say
	// CPUWeight is the system's share of processors that others want too: 1 to
	// 10000, where 0 is the kernel's own, 100.
	CPUWeight int64 `json:"cpuWeight,omitempty"`
	// CPUSet are the processors that it runs on, "0-3,7" say. Empty is all.
	CPUSet string `json:"cpuSet,omitempty"`
	Pids   int64  `json:"pids,omitempty"` // processes and threads, the agent's not counted
	// IOPS and Bandwidth, in bytes a second, bound how much is read, and how much
	// written, on the disk that the root's files are on. With control groups of
	// version 1 the kernel does not count what it writes later, on its own.
	IOPS      int64 `json:"iops,omitempty"`
	Bandwidth int64 `json:"bandwidth,omitempty"`
}

// Log bounds what is kept of the output of a system's main processes: when a
// file is full it begins another, and the oldest goes.
type Log struct {
	// MaxSize is that of a file, in bytes; one entry may go beyond. 0 is
	// DefaultLogSize, a negative one no limit.
	MaxSize int64 `json:"maxSize,omitempty"`
	// MaxFiles is how many files are kept. 0 is DefaultLogFiles.
	MaxFiles int `json:"maxFiles,omitempty"`
}

// What is kept of a log that says nothing else.
const (
	DefaultLogSize  = 10 << 20
	DefaultLogFiles = 3
)

const maxLogFiles = 1000

func (l Log) maxSize() int64 {
	if l.MaxSize == 0 {
		return DefaultLogSize
	}
	return max(0, l.MaxSize)
}

func (l Log) maxFiles() int {
	if l.MaxFiles == 0 {
		return DefaultLogFiles
	}
	return l.MaxFiles
}

// The kernel's own limits: CONFIG_NR_CPUS and PID_MAX_LIMIT at their largest.
const (
	maxCPUs = 8192
	maxPids = 4 << 20
)

// MinMemory is the least memory that a system can be limited to.
const MinMemory = 8 << 20

// Spec says what a system is to be. The zero value with Layers or RootDir set
// is valid.
type Spec struct {
	// Name is unique among the systems of a service. Empty: the first 12
	// characters of the id.
	Name string `json:"name,omitempty"`
	// Layers are the diffIDs of the read-only layers, lowest first, all of them
	// in the layer store.
	Layers []digest.Digest `json:"layers,omitempty"`
	// RootDir is a directory of the host that stands in for the layers. Mounts
	// below it are not part of it.
	RootDir string `json:"rootDir,omitempty"`
	// WriteInPlace makes RootDir itself the root: what the system writes, and the
	// mount points that it lacks, are made there, and there is no scratch layer.
	// The directory is its owner's: deleting the system leaves it as it is.
	WriteInPlace bool `json:"writeInPlace,omitempty"`
	// RootVolume is the volume that RootDir is the tree of, if the system alone has
	// use for that. Who creates the system mounts it afterwards; who removes the
	// system, Prune too if its creator was killed, takes it down.
	RootVolume *RootVolume `json:"rootVolume,omitempty"`
	// Image is the name of the image that the layers came from, for people, and
	// ImageID the digest of its configuration.
	Image   string        `json:"image,omitempty"`
	ImageID digest.Digest `json:"imageID,omitempty"`
	// Hostname is the system's own; empty is the first 12 characters of the id.
	Hostname string  `json:"hostname,omitempty"`
	Mounts   []Mount `json:"mounts,omitempty"`
	// ReadOnly makes the root read-only; Mounts are not concerned.
	ReadOnly bool    `json:"readOnly,omitempty"`
	Network  Network `json:"network,omitempty"`
	// Endpoints are the network endpoints that the system has while it runs, by
	// the ids that Config.Endpoints knows them by: it brings them into the
	// system's own network stack.
	Endpoints []string `json:"endpoints,omitempty"`
	DNS       DNS      `json:"dns,omitzero"`
	// Hosts are names that the system's /etc/hosts has besides those of the
	// loopback device, or, on the host's network, the host's own. The file is not
	// the image's then, and read-only. Without any it is as the image has it, or
	// the host's.
	Hosts     []Host    `json:"hosts,omitempty"`
	Resources Resources `json:"resources,omitzero"`
	Log       Log       `json:"log,omitzero"`
	Security  Security  `json:"security,omitzero"`
	// Devices of the host's that processes may use.
	Devices []Device `json:"devices,omitempty"`
	// Disks are disk images that are mounted in the system.
	Disks []Disk `json:"disks,omitempty"`
	// Ulimits are the limits that processes start with; those that are not named
	// are the caller's.
	Ulimits []Ulimit `json:"ulimits,omitempty"`
	// IDs are the host's ids that the system's users and groups are, in a user
	// namespace: AutoIDs, or a run. What the system's files are owned by, on disk
	// and in mounts, are its own ids all the same. Zero leaves it the host's.
	IDs IDs `json:"ids,omitzero"`
	// Sysctls are parameters of the system's own namespaces, by their names with
	// dots: "net.core.somaxconn".
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Labels are for people and programs; the service does nothing with them.
	Labels map[string]string `json:"labels,omitempty"`
	// Credentials are kept, in the record, which only the service's owner may read,
	// and given to nobody: what the Host Compute System has as a container's, for
	// a domain's services.
	Credentials string `json:"credentials,omitempty"`
	// StopSignal asks the main process to end. 0 is SIGTERM.
	StopSignal int `json:"stopSignal,omitempty"`
	// StopTimeout is how many seconds the system has to end when it is asked to, or
	// -1, as long as it takes; nil is DefaultStopTimeout. It is for who asks, who
	// may give it another time: StopTime tells.
	StopTimeout *int `json:"stopTimeout,omitempty"`
	// Ephemeral has everything of the system removed when it stops, its record
	// too.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// HandleBound ends the system as soon as nobody has a handle to it any more: a
	// System that Create or Open has returned, that is not closed, and whose
	// program lives. Those that Service.Systems returns are none, unless they start
	// it.
	HandleBound bool `json:"handleBound,omitempty"`
	// Main is the main process of the system, kept for those who start it later:
	// Start does not create it. Its streams are not kept.
	Main *ProcessSpec `json:"main,omitempty"`
}

// Record is what a service keeps of a system.
type Record struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Spec    Spec      `json:"spec"`
	// IDs are what Spec.IDs came to.
	IDs IDs `json:"ids,omitzero"`
	// Revision counts the changes since. No two records of a system are the same,
	// so a change that was asked for by a program which then died cannot be made
	// any more once another has been, even if that has altered nothing.
	Revision uint64 `json:"revision,omitempty"`
}

// Name returns the name of the system.
func (r *Record) Name() string {
	if r.Spec.Name != "" {
		return r.Spec.Name
	}
	return ShortID(r.ID)
}

// ShortID returns the part of an id that people are shown.
func ShortID(id string) string { return id[:min(12, len(id))] }

// validate judges the spec at the door; what it passes is relied upon.
func (s *Spec) validate() error {
	for _, f := range []func() error{
		s.checkName, s.checkRoot, s.checkMounts, s.checkResources, s.Security.check, s.checkDevices, s.checkDisks, s.checkDNS, s.checkHosts, s.checkUlimits,
		s.checkIDs, s.checkSysctls, s.checkEndpoints,
	} {
		err := f()
		if errdefs.IsNotImplemented(err) {
			return err
		}
		if err != nil {
			return fault(errdefs.ErrInvalidArgument, "%w", err)
		}
	}
	return nil
}

func (s *Spec) checkName() error {
	if s.Name != "" && state.CheckID("container", s.Name) != nil {
		return fmt.Errorf("name %q: use letters, digits, and \"_.-\" after the first", s.Name)
	}
	if len(s.Hostname) > 64 || strings.ContainsFunc(s.Hostname, func(r rune) bool { return r <= ' ' || r == '/' || r > '~' }) {
		return fmt.Errorf("hostname %q: at most 64 printable characters without blanks and slashes", s.Hostname)
	}
	if s.StopSignal < 0 || s.StopSignal > 64 {
		return fmt.Errorf("stop signal %d: not a signal", s.StopSignal)
	}
	if t := s.StopTimeout; t != nil && (*t < -1 || *t > maxStopTimeout) {
		return fmt.Errorf("stop timeout of %d seconds: from 0 to %d, or -1 for none", *t, maxStopTimeout)
	}
	return nil
}

func (s *Spec) checkRoot() error {
	switch {
	case len(s.Layers) == 0 && s.RootDir == "":
		return errors.New("nothing to stand on: name an image, layers or a root directory")
	case len(s.Layers) > 0 && s.RootDir != "":
		return fmt.Errorf("root directory %s: there are layers, too: give either", s.RootDir)
	case s.WriteInPlace && s.RootDir == "":
		return fmt.Errorf("write in place: give a root directory, layers are not written to")
	case s.RootVolume != nil && (!s.WriteInPlace || s.Ephemeral):
		return fmt.Errorf("volume %s: it can be the root of a system that writes in place and is not ephemeral", s.RootVolume.Dir)
	case s.RootVolume != nil && !path.IsAbs(s.RootVolume.Dir):
		return fmt.Errorf("volume %q: its directory is not absolute", s.RootVolume.Dir)
	case s.RootDir != "" && !path.IsAbs(s.RootDir):
		return fmt.Errorf("root directory %q is not absolute", s.RootDir)
	case !slices.Contains([]Network{"", NetworkNone, NetworkHost}, s.Network):
		return fmt.Errorf("network %q: use %q or %q", s.Network, NetworkNone, NetworkHost)
	}
	return nil
}

// ownTargets are mounts that a system does not work without.
var ownTargets = []string{"/dev", "/proc", "/sys", agentPath}

// reserved says what keeps everything else from a target, or nothing. What is mounted where paths are masked could not be seen;
// where they are read-only, runtimes make it read-only, or leave what was to be read-only writable, or refuse it.
func reserved(target string) string {
	within := func(p string) bool { return target == p || strings.HasPrefix(target, p+"/") }
	if slices.Contains(ownTargets, target) {
		return "the system's own " + target + " is needed there"
	}
	if i := slices.IndexFunc(maskedPaths, within); i >= 0 {
		return maskedPaths[i] + " is hidden from systems"
	}
	if i := slices.IndexFunc(readonlyPaths, within); i >= 0 {
		return readonlyPaths[i] + " is read-only in systems"
	}
	return ""
}

func (s *Spec) checkMounts() error {
	seen := make(map[string]bool)
	for _, m := range s.Mounts {
		switch {
		case m.Type != "" && m.Type != "bind" && m.Type != "tmpfs":
			return fmt.Errorf("mount at %q: type %q: use bind or tmpfs", m.Target, m.Type)
		case !path.IsAbs(m.Target) || m.target() == "/":
			return fmt.Errorf("mount at %q: the target must be an absolute path other than /", m.Target)
		case reserved(m.target()) != "":
			return fmt.Errorf("mount at %q: %s", m.Target, reserved(m.target()))
		case m.Type != "tmpfs" && !path.IsAbs(m.Source):
			return fmt.Errorf("mount at %q: source %q is not an absolute path", m.Target, m.Source)
		case seen[m.target()]:
			return fmt.Errorf("mount at %q: given twice", m.Target)
		case m.Size < 0:
			return fmt.Errorf("mount at %q: size %d is negative", m.Target, m.Size)
		case m.Size != 0 && m.Type != "tmpfs":
			return fault(errdefs.ErrNotImplemented, "mount at %q: size %d: only that of a tmpfs has a limit, and of a disk image", m.Target, m.Size)
		case m.IOPS < 0 || m.Bandwidth < 0:
			return fmt.Errorf("mount at %q: limit of %d reads and writes and %d bytes a second: at least 1", m.Target, m.IOPS, m.Bandwidth)
		case m.isLimited() && m.Type == "tmpfs":
			return fault(errdefs.ErrNotImplemented, "mount at %q: a tmpfs is on no disk whose use could be limited", m.Target)
		case m.Mode > 0o7777 || m.Mode != 0 && m.Type != "tmpfs":
			return fmt.Errorf("mount at %q: mode %#o: up to 07777, for a tmpfs", m.Target, m.Mode)
		}
		seen[m.target()] = true
	}
	return nil
}

func (s *Spec) checkResources() error {
	r := s.Resources
	switch {
	case r.Memory != 0 && r.Memory < MinMemory:
		return fmt.Errorf("memory limit of %d bytes: at least %d", r.Memory, int64(MinMemory))
	case r.CPUs != 0 && !(r.CPUs >= 0.01 && r.CPUs <= maxCPUs): // NaN is neither
		return fmt.Errorf("limit of %g cpus: from 0.01 to %d", r.CPUs, maxCPUs)
	case r.MemorySwap != 0 && r.Memory == 0:
		return fmt.Errorf("limit of %d bytes of memory and swap: limit the memory, too", r.MemorySwap)
	case r.MemorySwap != 0 && r.MemorySwap < r.Memory:
		return fmt.Errorf("limit of %d bytes of memory and swap: at least that of memory, %d", r.MemorySwap, r.Memory)
	case r.CPUWeight < 0 || r.CPUWeight > 10000:
		return fmt.Errorf("weight of %d for cpus: from 1 to 10000", r.CPUWeight)
	case r.IOPS < 0 || r.Bandwidth < 0:
		return fmt.Errorf("limit of %d reads and writes and %d bytes a second: at least 1", r.IOPS, r.Bandwidth)
	case r.Pids < 0 || r.Pids > maxPids:
		return fmt.Errorf("limit of %d processes: from 1 to %d", r.Pids, maxPids)
	case s.Log.MaxFiles < 0 || s.Log.MaxFiles > maxLogFiles:
		return fmt.Errorf("log of %d files: from 1 to %d", s.Log.MaxFiles, maxLogFiles)
	case r.CPUSet != "":
		_, err := parseCPUs(r.CPUSet)
		return err
	}
	return nil
}
