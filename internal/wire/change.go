package wire

// Change is what a shim is to change of its running system: all of it, or, if
// anything fails, nothing.
type Change struct {
	Limits *LimitsChange `json:",omitempty"`
	// Detach are the targets of mounts to take away, of Spec.Targets or of an
	// earlier Attach; Attach and Disks are to be mounted.
	Detach []string     `json:",omitempty"`
	Attach []Mount      `json:",omitempty"`
	Mapped []string     `json:",omitempty"` // those of Attach, by target, whose owners are shown as Native.IDs has them
	Disks  []Disk       `json:",omitempty"`
	Remove []DeviceNode `json:",omitempty"`
	Make   []DeviceNode `json:",omitempty"`
	Record Replacement
}

// LimitsChange are the limits that the system has, and is to have.
type LimitsChange struct{ From, To Limits }

// Replacement is a file that a new one is to take the place of when all is
// done, so that it says what is, whoever dies when. If the file is not what it
// is said to be, somebody else was faster, and nothing is changed.
type Replacement struct {
	Path string
	Is   []byte
	New  string // the new file's name
}
