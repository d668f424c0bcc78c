package wire

import "strconv"

// Spec is what a shim needs to bring a compute system to life and to leave
// nothing behind. The library writes it, as a plan; the shim executes it.
type Spec struct {
	ID      string // with a Native it is that of Birth, and left out here
	Dir     string // run directory of the system, absolute: config.json, socket, runtime state
	Root    Root
	Cgroup  string // path below each hierarchy, starting with a slash; empty for none. Left out like ID
	Runtime Runtime
	Native  *Native  // instead of Runtime
	Log     Log      // of the output of Logged processes
	Status  string   // file that the shim keeps Status in
	Remove  []string // what goes when the system has stopped, Dir among it
	Events  Events
	Disks   []Disk   // to be mounted first, on directories in Dir
	Targets []string // of the mounts in the container that may be taken away while it runs

	// Handles is a file, or empty: the system stops when nobody holds it any more
	// (sys.HoldFile).
	Handles string

	// ShowNetwork has the shim show the client the network namespace before the
	// system runs: Network.
	ShowNetwork bool

	// CountProcesses has the processes counted apart from the agent, as there is a
	// limit on their number.
	CountProcesses bool

	// NeedsProcess has the system stop if the client that started it goes before
	// any process was asked for.
	NeedsProcess bool
}

// Disk is a file with a file system in it.
type Disk struct {
	Image    string
	Type     string // of the file system
	Size     int64  // bytes of the file that are the file system's; 0 is all
	ReadOnly bool
	Target   string // where it is mounted
}

// Log says where output goes, and how much of it is kept.
type Log struct {
	Path     string
	MaxSize  int64 // bytes of one file; 0 is unlimited
	MaxFiles int   // at least 1
}

// LogName returns the name of the log's file that n younger ones followed: its
// path, for the youngest, or that and ".1" and so on.
func LogName(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// Events says where the shim tells what happens.
type Events struct {
	Dir string // of the journal (internal/journal)
	// Alive is a file that the shim holds open for writing, and locked (flock), as
	// long as it lives.
	Alive       string
	Name, Image string // of the system, for who reads the events
	Ephemeral   bool   // the system is deleted when it has stopped
}

// SocketName is the name of the shim's socket in Spec.Dir.
const SocketName = "shim.sock"

// Gone is what follows the name of a run directory that is being removed.
const Gone = ".gone"

// OwnMounts, as its second, tells the shim that it has a mount namespace of its
// own; the first is Spec.Dir, for people to see.
const OwnMounts = "own-mounts"

// MountsByPath reports whether the shim mounts something in its own namespace
// for the starter to find: the root for an OCI runtime, disks, and what is to be
// shown with other owners. All else the native starter is given as descriptors.
func (s *Spec) MountsByPath() bool {
	return s.Native == nil || s.Native.IDs != nil || len(s.Disks) > 0
}

// RootName is the name of the container's root directory in Spec.Dir.
const RootName = "rootfs"

// Root says what the container's root directory is made of: an overlay, or one
// directory as it is, mounted in a mount namespace of the container's own, or,
// for an OCI runtime, of the shim's, so that it cannot outlive shim and
// container.
type Root struct {
	Dir string // the directory; nothing below is used then

	Lower     []string // topmost first
	Upper     string
	Work      string
	UserXattr bool // overlayfs keeps its marks in user.overlay.*
	Volatile  bool // Upper is lost with the machine: unmounting does not flush it
}

// Runtime is the starter of kind "OCI runtime"; config.json in Spec.Dir tells
// it what to make.
type Runtime struct {
	Path string // absolute
	Kind string // "runc" or "crun"
}

// State is the state of a compute system as its shim knows it.
type State string

// The states.
const (
	Starting State = "starting"
	Running  State = "running"
	Paused   State = "paused"
	Stopping State = "stopping" // was asked to stop, or is being taken down
	Stopped  State = "stopped"
	Lost     State = "lost" // left by the library: the shim died, and that is told
)

// Status is what a shim knows of its system; it is also what it leaves on
// disk, to be read after it. Times are Unix nanoseconds, 0 for not yet.
type Status struct {
	State     State           `json:"state"`
	ShimPid   int             `json:"shimPid,omitempty"`
	Pid       int             `json:"pid,omitempty"` // of the first process, on the host
	Started   int64           `json:"started,omitempty"`
	Ended     int64           `json:"ended,omitempty"`
	Reason    string          `json:"reason,omitempty"` // why it stopped, where nobody asked for that
	ExitCode  int             `json:"exitCode"`         // of the main process
	Processes []ProcessStatus `json:"processes,omitempty"`
	// Cgroup is the control group, empty if there is none. Shims that have run for
	// long may not tell.
	Cgroup *string `json:"cgroup,omitempty"`
}

// Remembered is how many processes that have ended a shim can still be asked
// about.
const Remembered = 64

// ProcessStatus is one process that was created in the system.
type ProcessStatus struct {
	Seq     uint32   `json:"seq"`
	Pid     uint32   `json:"pid"` // in the container
	Args    []string `json:"args"`
	Main    bool     `json:"main,omitempty"`
	Started int64    `json:"started"`
	Ended   int64    `json:"ended,omitempty"`
	Status  uint32   `json:"status"` // as wait(2) has it
}
