package wire

import "cmp"

// SpawnFlags modify a SpawnRequest.
type SpawnFlags uint32

const (
	// Terminal asks for a pseudo terminal as the process's stdio; its master
	// comes back with Began.
	Terminal SpawnFlags = 1 << iota
	// Logged has the shim hold the process's stdio: output goes to the
	// system's log and, as long as they take it, to the descriptors that came
	// with the request.
	Logged
	// Main makes the end of the process the end of the system.
	Main
	// MakeDir has a missing working directory created.
	MakeDir
	// Stdin, Stdout and Stderr say which descriptors come with the request, in
	// this order. A stream without one is /dev/null.
	Stdin
	Stdout
	Stderr
	// HoldStdin, HoldStdout and HoldStderr have the shim hold the stream, for
	// clients that Attach to it. One of them is enough for a terminal.
	HoldStdin
	HoldStdout
	HoldStderr
)

// Held reports whether the shim stands between the process and its clients.
func (f SpawnFlags) Held() bool { return f&(Logged|HoldStdin|HoldStdout|HoldStderr) != 0 }

// Attachable returns which of Stdin, Stdout and Stderr clients can Attach to.
func (f SpawnFlags) Attachable() SpawnFlags {
	const fromHeld = 3 // HoldStdin is three bits above Stdin, and so on
	list := f >> fromHeld & (Stdin | Stdout | Stderr)
	if f&Logged != 0 {
		list |= Stdout | Stderr
	}
	if f&Terminal != 0 {
		list &^= Stderr
	}
	return list
}

// WantsPlace reports whether there is output that no descriptor comes with the
// request for, so that its creator has to Attach to it. The shim remembers such
// a process until its creator's connection is closed, or spawns another.
func (f SpawnFlags) WantsPlace() bool {
	outputs := f.Attachable() & (Stdout | Stderr)
	return f&Main == 0 && outputs&^f != 0
}

// SpawnRequest asks for a process.
type SpawnRequest struct {
	Flags      SpawnFlags
	Args       []string
	Env        []string
	Dir        string   // working directory; empty is /
	User       string   // "user", "uid", "user:group", …; names are the container's own; empty is root
	Rows, Cols uint16   // first size of the terminal; 0 leaves it unset
	Path       string   // the program; empty is Args[0]. Without a slash it is looked up in Env's PATH
	Groups     []string // more supplementary groups, names of the container's own or ids
	Limits     []Rlimit // those of the process that are not the agent's too
}

// Program is what to run.
func (r *SpawnRequest) Program() string { return cmp.Or(r.Path, r.Args[0]) }

// Encode returns the body. A program beside the arguments and what follows it
// are fields that shims and agents of systems which have run for long may not
// know.
func (r *SpawnRequest) Encode() []byte {
	var e encoder
	e.uint(uint64(r.Flags))
	e.strings(r.Args)
	e.strings(r.Env)
	e.string(r.Dir)
	e.string(r.User)
	e.uint(uint64(r.Rows))
	e.uint(uint64(r.Cols))
	if r.Path != "" || len(r.Groups)+len(r.Limits) > 0 {
		e.string(r.Path)
	}
	if len(r.Groups)+len(r.Limits) > 0 {
		e.strings(r.Groups)
	}
	if len(r.Limits) > 0 {
		encodeRlimits(&e, r.Limits)
	}
	return e.b
}

// Decode reads the body.
func (r *SpawnRequest) Decode(b []byte) error {
	d := decoder{b: b}
	*r = SpawnRequest{
		Flags: SpawnFlags(d.uint()), Args: d.strings(), Env: d.strings(), Dir: d.string(), User: d.string(),
		Rows: uint16(d.uint()), Cols: uint16(d.uint()),
	}
	last := true // the last of the optional fields that are there is not empty
	if len(d.b) > 0 {
		r.Path = d.string()
		last = r.Path != ""
	}
	if len(d.b) > 0 {
		r.Groups = d.strings()
		last = len(r.Groups) > 0
	}
	if len(d.b) > 0 {
		r.Limits = decodeRlimits(&d)
		last = len(r.Limits) > 0
	}
	if !last {
		d.fail()
	}
	return d.end()
}

// Spawned says that a process runs.
type Spawned struct {
	Pid uint32 // in the container's pid namespace
}

// Encode returns the body.
func (s Spawned) Encode() []byte {
	var e encoder
	e.uint(uint64(s.Pid))
	return e.b
}

// Decode reads the body.
func (s *Spawned) Decode(b []byte) error {
	d := decoder{b: b}
	s.Pid = uint32(d.uint())
	return d.end()
}

// Exit says how a process ended. The agent tells the first three; the shim
// adds the others, by its own clock and counters.
type Exit struct {
	Status  uint32 // as wait(2) has it
	UserUS  uint64 // CPU time in user mode, in microseconds
	SysUS   uint64 // CPU time in the kernel, in microseconds
	Started int64  // Unix nanoseconds
	Ended   int64
	OOM     bool // the kernel killed it for lack of memory
}

// Encode returns the body.
func (x Exit) Encode() []byte {
	var e encoder
	e.uint(uint64(x.Status))
	e.uints(x.UserUS, x.SysUS, uint64(x.Started), uint64(x.Ended))
	e.bool(x.OOM)
	return e.b
}

// Decode reads the body.
func (x *Exit) Decode(b []byte) error {
	d := decoder{b: b}
	*x = Exit{
		Status: uint32(d.uint()), UserUS: d.uint(), SysUS: d.uint(), Started: int64(d.uint()), Ended: int64(d.uint()), OOM: d.bool(),
	}
	return d.end()
}

// Code returns the exit status as a shell gives it: the process's own, or 128
// plus the signal that killed it.
func (x Exit) Code() int {
	if s := x.Signal(); s != 0 {
		return 128 + s
	}
	return int(x.Status >> 8 & 0xff)
}

// Signal returns the signal that killed the process, or 0.
func (x Exit) Signal() int { return int(x.Status & 0x7f) }

// ByKill is the Exit of a process that a SIGKILL ended.
func ByKill() Exit { return Exit{Status: 9} }

// OpenRequest asks for the process that has, or had last, the number.
type OpenRequest struct {
	Pid uint32 // in the container's pid namespace
}

// Encode returns the body.
func (r OpenRequest) Encode() []byte { return Spawned(r).Encode() }

// Decode reads the body.
func (r *OpenRequest) Decode(b []byte) error { return (*Spawned)(r).Decode(b) }

// OpenReply says how a process was asked for.
type OpenReply struct {
	Flags SpawnFlags
	Ended bool // Ended follows at once
}

// Encode returns the body.
func (r OpenReply) Encode() []byte {
	var e encoder
	e.uint(uint64(r.Flags))
	e.bool(r.Ended)
	return e.b
}

// Decode reads the body.
func (r *OpenReply) Decode(b []byte) error {
	d := decoder{b: b}
	r.Flags, r.Ended = SpawnFlags(d.uint()), d.bool()
	return d.end()
}

// AttachRequest says with Stdin, Stdout and Stderr which descriptors come with
// it: what the first gives goes to the process, and output goes to the others.
type AttachRequest struct {
	Flags SpawnFlags
}

// Encode returns the body.
func (r AttachRequest) Encode() []byte {
	var e encoder
	e.uint(uint64(r.Flags))
	return e.b
}

// Decode reads the body.
func (r *AttachRequest) Decode(b []byte) error {
	d := decoder{b: b}
	r.Flags = SpawnFlags(d.uint())
	return d.end()
}

// Backlog is output that no client had taken before.
type Backlog struct {
	Stdout, Stderr []byte
}

// Encode returns the body.
func (l Backlog) Encode() []byte {
	var e encoder
	e.string(string(l.Stdout))
	e.string(string(l.Stderr))
	return e.b
}

// Decode reads the body.
func (l *Backlog) Decode(b []byte) error {
	d := decoder{b: b}
	l.Stdout, l.Stderr = []byte(d.string()), []byte(d.string())
	return d.end()
}

// SignalRequest asks for a signal to the process that Message.Seq names.
type SignalRequest struct {
	Signal uint32
}

// Encode returns the body.
func (s SignalRequest) Encode() []byte {
	var e encoder
	e.uint(uint64(s.Signal))
	return e.b
}

// Decode reads the body.
func (s *SignalRequest) Decode(b []byte) error {
	d := decoder{b: b}
	s.Signal = uint32(d.uint())
	return d.end()
}

// ResizeRequest sets the size of the terminal of the process that Message.Seq
// names.
type ResizeRequest struct {
	Rows, Cols uint16
}

// Encode returns the body.
func (r ResizeRequest) Encode() []byte {
	var e encoder
	e.uint(uint64(r.Rows))
	e.uint(uint64(r.Cols))
	return e.b
}

// Decode reads the body.
func (r *ResizeRequest) Decode(b []byte) error {
	d := decoder{b: b}
	*r = ResizeRequest{Rows: uint16(d.uint()), Cols: uint16(d.uint())}
	return d.end()
}

// Class sorts failures, so that the library can give each its error class and
// the command line its exit status.
type Class uint32

// The classes.
const (
	Internal    Class = iota // ours, or the kernel's
	NotFound                 // no such process, program, user, directory
	Invalid                  // the request makes no sense
	Wrong                    // not in this state
	NotRunnable              // the program is there and cannot be run
	Unsupported              // this system cannot have it
	Conflict                 // somebody else was faster
)

// Failure is the body of Error: what went wrong, as a clause for the receiver
// to put its own verb and object before.
type Failure struct {
	Class Class
	Text  string
}

// Encode returns the body.
func (f Failure) Encode() []byte {
	var e encoder
	e.uint(uint64(f.Class))
	e.string(f.Text)
	return e.b
}

// Decode reads the body.
func (f *Failure) Decode(b []byte) error {
	d := decoder{b: b}
	*f = Failure{Class: Class(d.uint()), Text: d.string()}
	return d.end()
}

// Error returns the text.
func (f *Failure) Error() string { return f.Text }
