// Package wire is the language that the library, the shim and the agent speak:
// versioned messages, one to a packet, with descriptors beside them.
//
// The agent is the first process of every container and links this package,
// so it stands on the standard library alone and avoids its heavy parts: the
// messages on the way of a start and of a process spawn have a small binary form.
// What the shim alone reads, or keeps in files (Status, Change, Event), is JSON.
//
// wire knows how messages look and travel. What they cause is the business of
// internal/shim and internal/agent.
package wire

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// Version is the first byte of every message. A peer that speaks another
// version is answered by an Error in this one, and cut off.
const Version = 3

// Type says what a message is; it decides the form of the body.
type Type uint8

// The messages. "→" gives the direction; a client's request is answered on
// its own connection by exactly one reply, or by Error, unless said otherwise.
const (
	_ Type = iota

	Ready  // agent → shim: the agent serves; no body
	Spawn  // client → shim → agent: SpawnRequest, with the stdio descriptors
	Began  // agent → shim → client: Spawned; a pty's master comes as descriptor
	Ended  // agent → shim → client: Exit; follows Began on the connection that spawned
	Signal // client → shim → agent: SignalRequest; the agent does not answer

	Start     // client → shim: Spec; OK when the agent serves
	Resize    // client → shim: ResizeRequest, for a terminal that the shim holds
	WaitOne   // client → shim: no body; answered by Ended when the process Seq has ended
	WaitAll   // client → shim: no body; answered by StatusReply when the system has stopped
	Query     // client → shim: no body; answered by StatusReply at once
	Pause     // client → shim: no body
	Resume    // client → shim: no body
	Terminate // client → shim: no body; answered like WaitAll

	OK          // shim → client: done; no body
	StatusReply // shim → client: Status as JSON
	Error       // shim → client, agent → shim: Failure

	Make // shim → agent: Build, before all others; Ready follows, or Error

	Open       // client → shim: OpenRequest; answered by Opened, and on the same connection by Ended when the process has ended
	Opened     // shim → client: OpenReply of the process Seq
	Attach     // client → shim: AttachRequest, with descriptors, for the process Seq; answered by Attached
	Attached   // shim → client: Backlog
	Modify     // client → shim: Change as JSON; OK when all of it is done, Error when nothing is
	CloseInput // client → shim: no body; ends the input, which the shim holds, of the process Seq
	Shutdown   // client → shim: SignalRequest, to the main process, or without one → agent: to all; OK when it is on its way
	Idle       // agent → shim: after Shutdown, there is no process left

	OpenRoot // client → shim: no body; answered by OK, with the first process's root directory as descriptor, or, where the system is about to stop, like WaitAll

	Lend // shim → agent: mounts as descriptors, of the Build that came before; no body

	Network     // shim → client that started it: the container's network namespace as descriptor, if Spec.ShowNetwork; the system runs when the client has answered OK
	OpenNetwork // client → shim: no body; answered like OpenRoot, with the network namespace
	Revoke      // client → shim: as Terminate, and where no process has been created the state is that from before Start

	Bear // client → shim: Birth, before a Start that has a Native; no answer

	Join // shim → agent: what the thread that starts processes has to write "0" to, to be counted with them, as descriptor; no body
)

var typeNames = [...]string{
	"nothing", "Ready", "Spawn", "Began", "Ended", "Signal", "Start", "Resize", "WaitOne", "WaitAll",
	"Query", "Pause", "Resume", "Terminate", "OK", "StatusReply", "Error",
	"Make", "Open", "Opened", "Attach", "Attached", "Modify", "CloseInput",
	"Shutdown", "Idle", "OpenRoot",
	"Lend",
	"Network", "OpenNetwork", "Revoke",
	"Bear", "Join",
}

// String returns the type's name.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "message type " + strconv.Itoa(int(t))
}

// Message is one packet. Seq names the process that it is about, as numbered
// by the shim; 0 where it is about none.
type Message struct {
	Type  Type
	Seq   uint32
	Body  []byte
	Files []int // descriptors; whoever receives a message owns them
	From  int   // the sender's process id, where the receiver asked for it
}

// headerSize is version, type, two reserved bytes and Seq.
const headerSize = 8

// MaxBody bounds a message's body, so that a lying peer costs bounded memory.
// It exceeds the kernel's limit on arguments and environment of one process.
const MaxBody = 4 << 20

// MaxFiles bounds the descriptors of one message.
const MaxFiles = 4

// Errors of the encoding.
var (
	ErrVersion   = errors.New("message of another protocol version")
	ErrMalformed = errors.New("malformed message")
	ErrTooLarge  = errors.New("arguments and environment of more than 4 MiB")
)

func appendHeader(b []byte, m Message) []byte {
	b = append(b, Version, byte(m.Type), 0, 0)
	return binary.LittleEndian.AppendUint32(b, m.Seq)
}

func parseHeader(b []byte) (Message, error) {
	if len(b) < headerSize {
		return Message{}, ErrMalformed
	}
	if b[0] != Version {
		return Message{}, ErrVersion
	}
	return Message{Type: Type(b[1]), Seq: binary.LittleEndian.Uint32(b[4:])}, nil
}
