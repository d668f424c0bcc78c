package wire

// Native has the shim start the container itself, in control groups that are
// there. Without it an OCI runtime does, which makes them.
type Native struct {
	Birth        // comes before, with Bear
	Build []byte // Build, encoded: the shim passes it on to the first process
	Lent  []Lent
}

// Birth says how the first process comes into being. It is what has to be known
// first: while the process begins, the rest is prepared.
type Birth struct {
	ID      string   // of the system
	Cgroup  string   // path below each hierarchy, starting with a slash; it is there, or empty for none
	Agent   string   // the agent's program, absolute
	Args    []string // of the agent
	Network bool     // a network namespace of its own
	// Bounding are capabilities, by their numbers: what the first process starts
	// has no others.
	Bounding uint64
	IDs      *IDs // has the container in a user namespace of its own
}

// Encode returns the body.
func (b *Birth) Encode() []byte {
	var e encoder
	e.strings([]string{b.ID, b.Cgroup, b.Agent})
	e.strings(b.Args)
	e.bool(b.Network)
	e.uint(b.Bounding)
	if e.bool(b.IDs != nil); b.IDs != nil {
		e.uints(uint64(b.IDs.First), uint64(b.IDs.Size))
	}
	return e.b
}

// Decode reads the body.
func (b *Birth) Decode(body []byte) error {
	d := decoder{b: body}
	*b = Birth{}
	d.fixed(&b.ID, &b.Cgroup, &b.Agent)
	b.Args, b.Network, b.Bounding = d.strings(), d.bool(), d.uint()
	if d.bool() {
		b.IDs = &IDs{First: uint32(d.uint()), Size: uint32(d.uint())}
	}
	return d.end()
}

// IDs is a run of user and group ids: those of a user namespace from 0 on are
// the shim's own from First on.
type IDs struct{ First, Size uint32 }

// Lent is something of the host's that the shim makes another mount of, for
// the first process, which may not do so itself, to attach.
type Lent struct {
	Source     string
	Recursive  bool
	Attributes uint64 // MOUNT_ATTR_*
	Mapped     bool   // owners are shown as Native.IDs has them
}

// NativeArgument, as its first, tells the agent that it is to make the
// container. A second one has the limits of open files, "soft:hard".
const NativeArgument = "native"

// Limits are those of a control group; 0 is none.
type Limits struct {
	Memory     int64 // bytes
	MemorySwap int64 // bytes of memory and swap together; not without Memory
	CPUQuota   int64 // microseconds of processor time in each CPUPeriod
	CPUPeriod  uint64
	CPUWeight  int64  // 1 to 10000; 100 is the kernel's default
	CPUSet     string // processors, as "0-3,7"; empty is all
	Pids       int64
	IODevice   string // "major:minor" of the disk that IOPS and Bandwidth are for
	IOPS       int64  // reads, and as many writes, a second
	Bandwidth  int64  // bytes a second that are read, and as many that are written
	// Disks are others with limits: "major:minor IOPS Bandwidth".
	Disks []string `json:",omitempty"`
	// Devices are what processes may use, one rule each as the file
	// devices.allow has them: "c 1:3 rwm", with "*" for any number.
	Devices []string
}

// Build says what the first process makes of the namespaces that it was born
// in, before anything else runs there. The first mount that is lent is the root.
// Paths in the container start with a slash.
type Build struct {
	ReadOnly bool // the root is
	Hostname string
	Loopback bool // the network namespace is new: its loopback device is to be up
	Cgroup   bool // a control group namespace of its own

	Mounts   []Mount // in this order
	Devices  []DeviceNode
	Masked   []string // paths that are to be empty, where they exist
	Fixed    []string // paths that are to be read-only, where they exist
	Sysctls  []Sysctl
	Rlimits  []Rlimit
	Bounding uint64 // capabilities that processes can have, by their numbers
	// Capabilities are the first process's own.
	Capabilities    uint64
	NoNewPrivileges bool
	Seccomp         []byte // instructions of classic BPF, as the kernel takes them; none is no filter
}

// Mount is a mount in the container.
type Mount struct {
	Target string
	// Type is a file system's, or empty for what is mounted at Source on the
	// host, a directory or a file.
	Type, Source string
	Attributes   uint64   // MOUNT_ATTR_*
	Options      []string // of the file system: "key=value", or "flag"
	Recursive    bool     // with what is mounted below Source
	// Lent, if not 0, is which of the mounts that were lent it is; all of the
	// others but Target is done then.
	Lent uint64 `json:",omitempty"`
}

// DeviceNode is a device node to make.
type DeviceNode struct {
	Path         string
	Mode         uint32 // as mknod(2) has it, type and permissions
	Major, Minor uint32
	UID, GID     uint32
}

// Sysctl is a parameter of the container's namespaces.
type Sysctl struct{ Path, Value string } // Path is below /proc/sys: "net/core/somaxconn"

// Rlimit is a limit of setrlimit(2).
type Rlimit struct {
	Name       string // "RLIMIT_NOFILE", for people
	Resource   uint32
	Soft, Hard uint64
}

// Borrowed returns how many mounts come by Lend: the root, and those of Mounts
// that are lent.
func (b *Build) Borrowed() int {
	n := 1
	for i := range b.Mounts {
		if b.Mounts[i].Lent > 0 {
			n++
		}
	}
	return n
}

// Encode returns the body.
func (b *Build) Encode() []byte {
	var e encoder
	e.bool(b.ReadOnly)
	e.string(b.Hostname)
	e.bool(b.Loopback)
	e.bool(b.Cgroup)
	encodeList(&e, b.Mounts, func(m *Mount) {
		e.strings([]string{m.Target, m.Type, m.Source})
		e.uint(m.Attributes)
		e.strings(m.Options)
		e.bool(m.Recursive)
		e.uint(m.Lent)
	})
	encodeList(&e, b.Devices, func(n *DeviceNode) {
		e.string(n.Path)
		e.uints(uint64(n.Mode), uint64(n.Major), uint64(n.Minor), uint64(n.UID), uint64(n.GID))
	})
	e.strings(b.Masked)
	e.strings(b.Fixed)
	encodeList(&e, b.Sysctls, func(s *Sysctl) {
		e.string(s.Path)
		e.string(s.Value)
	})
	encodeRlimits(&e, b.Rlimits)
	e.uints(b.Bounding, b.Capabilities)
	e.bool(b.NoNewPrivileges)
	e.string(string(b.Seccomp))
	return e.b
}

// Decode reads the body.
func (b *Build) Decode(body []byte) error {
	d := decoder{b: body}
	*b = Build{ReadOnly: d.bool(), Hostname: d.string(), Loopback: d.bool(), Cgroup: d.bool()}
	b.Mounts = decodeList(&d, func(m *Mount) {
		d.fixed(&m.Target, &m.Type, &m.Source)
		m.Attributes, m.Options, m.Recursive, m.Lent = d.uint(), d.strings(), d.bool(), d.uint()
	})
	b.Devices = decodeList(&d, func(n *DeviceNode) {
		*n = DeviceNode{
			Path: d.string(), Mode: uint32(d.uint()), Major: uint32(d.uint()), Minor: uint32(d.uint()),
			UID: uint32(d.uint()), GID: uint32(d.uint()),
		}
	})
	b.Masked, b.Fixed = d.strings(), d.strings()
	b.Sysctls = decodeList(&d, func(s *Sysctl) { *s = Sysctl{Path: d.string(), Value: d.string()} })
	b.Rlimits = decodeRlimits(&d)
	b.Bounding, b.Capabilities, b.NoNewPrivileges = d.uint(), d.uint(), d.bool()
	if filter := d.string(); filter != "" {
		b.Seccomp = []byte(filter)
	}
	return d.end()
}

func encodeRlimits(e *encoder, list []Rlimit) {
	encodeList(e, list, func(l *Rlimit) {
		e.string(l.Name)
		e.uints(uint64(l.Resource), l.Soft, l.Hard)
	})
}

func decodeRlimits(d *decoder) []Rlimit {
	return decodeList(d, func(l *Rlimit) {
		*l = Rlimit{Name: d.string(), Resource: uint32(d.uint()), Soft: d.uint(), Hard: d.uint()}
	})
}
