package wire

// Spec is what a shim needs to bring a compute system to life and to leave
// nothing behind. The library writes it, as a pure plan; the shim executes it.
type Spec struct {
	ID      string
	Dir     string // the system's run directory: bundle, socket, runtime state; absolute
	Root    Root
	Cgroup  string // path below each hierarchy, starting with a slash
	Runtime Runtime
	Log     string   // log of the processes with the Logged flag
	Status  string   // file that the shim keeps Status in
	Remove  []string // what goes when the system has stopped; nil keeps it all
}

// Root says what the container's root directory is made of: an overlay that
// is mounted at <Dir>/rootfs, in a mount namespace of the shim's own.
type Root struct {
	Lower    []string // topmost first
	Upper    string
	Work     string
	Volatile bool // the upper directory does not survive the machine: no syncs
}

// Runtime is the starter of kind "OCI runtime".
type Runtime struct {
	Path string // absolute
	Kind string // "runc" or "crun"
}

// State is the state of a compute system.
type State string

// The states, as a shim knows them.
const (
	Starting State = "starting"
	Running  State = "running"
	Paused   State = "paused"
	Stopped  State = "stopped"
)

// Status is what a shim knows of its system; it is also what it leaves on
// disk, so that it can be read after it.
type Status struct {
	State     State
	ShimPid   int             `json:",omitempty"`
	Pid       int             `json:",omitempty"` // of the agent, on the host
	Started   int64           `json:",omitempty"` // Unix nanoseconds
	Ended     int64           `json:",omitempty"` // Unix nanoseconds
	Reason    string          `json:",omitempty"` // why it stopped, where that was not asked for
	ExitCode  int             // of the main process
	Processes []ProcessStatus `json:",omitempty"`
}

// ProcessStatus is one process that was created in the system and that has
// not been forgotten yet.
type ProcessStatus struct {
	Seq     uint32
	Pid     uint32
	Args    []string
	Main    bool  `json:",omitempty"`
	Started int64 // Unix nanoseconds
	Ended   int64 `json:",omitempty"` // Unix nanoseconds; 0 while it runs
	Status  uint32
}
