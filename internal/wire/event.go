package wire

// EventKind says what happened.
type EventKind string

// The kinds. The library writes EventCreated, EventLost and EventDeleted, the
// last one only where the shim does not remove the system; the shim the others.
const (
	EventCreated        EventKind = "created"
	EventStarted        EventKind = "started"
	EventPaused         EventKind = "paused"
	EventResumed        EventKind = "resumed"
	EventModified       EventKind = "modified"
	EventProcessCreated EventKind = "process created"
	EventProcessExited  EventKind = "process exited"
	EventOOM            EventKind = "out of memory"
	EventExited         EventKind = "exited"
	EventLost           EventKind = "lost"
	EventDeleted        EventKind = "deleted"
)

// Event is a record of the journal that the library and all shims write to, as
// JSON.
type Event struct {
	Kind   EventKind `json:"kind"`
	Time   int64     `json:"time"` // Unix nanoseconds
	ID     string    `json:"id"`   // of the system
	Name   string    `json:"name,omitempty"`
	Image  string    `json:"image,omitempty"`
	Pid    uint32    `json:"pid,omitempty"` // of the process, in the container
	Main   bool      `json:"main,omitempty"`
	Status uint32    `json:"status,omitempty"` // of the process, as wait(2) has it
	UserUS uint64    `json:"userUS,omitempty"` // CPU time of the process, in microseconds
	SysUS  uint64    `json:"sysUS,omitempty"`
	OOM    bool      `json:"oom,omitempty"`    // the kernel killed the process for lack of memory
	Code   int       `json:"code,omitempty"`   // exit code of the system
	Reason string    `json:"reason,omitempty"` // why it ended, where nobody asked for that
}
