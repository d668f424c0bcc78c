package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/journal"
	"github.com/hostcompute/hcs/internal/wire"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventCreated        EventKind = "created"         // the system was made
	EventStarted        EventKind = "started"         // it runs
	EventPaused         EventKind = "paused"          // all its processes stand still
	EventResumed        EventKind = "resumed"         // they go on
	EventModified       EventKind = "modified"        // System.Modify changed it
	EventProcessCreated EventKind = "process-created" // CreateProcess made a process
	EventProcessExited  EventKind = "process-exited"  // such a process ended
	EventOOM            EventKind = "oom"             // the kernel killed one of its processes for lack of memory
	EventExited         EventKind = "exited"          // the system stopped
	EventLost           EventKind = "lost"            // its shim died, and with it the system; when somebody noticed
	EventDeleted        EventKind = "deleted"         // nothing of it is kept any more
	// EventGap stands for events that are missing: too old to be kept, or not
	// written as the disk was full. Nothing but Kind and Cursor is set.
	EventGap EventKind = "gap"
)

// Event is something that happened to a system of a service.
type Event struct {
	Cursor Cursor    `json:"cursor"` // where to go on after it
	Time   time.Time `json:"time,omitzero"`
	Kind   EventKind `json:"kind"`
	ID     string    `json:"id,omitempty"` // of the system
	Name   string    `json:"name,omitempty"`
	Image  string    `json:"image,omitempty"`  // Spec.Image
	Pid    int       `json:"pid,omitempty"`    // of the process, in the system
	Main   bool      `json:"main,omitempty"`   // the process is the main one
	Exit   Exit      `json:"exit,omitzero"`    // of EventProcessExited, and the Code of EventExited
	Reason string    `json:"reason,omitempty"` // why the system stopped, where nobody asked for that
}

// Exit says how a process of an event ended: an ExitStatus for JSON.
type Exit struct {
	Code      int            `json:"code"`
	Signal    syscall.Signal `json:"signal,omitempty"`
	User      time.Duration  `json:"user,omitempty"` // CPU time; nanoseconds in JSON
	System    time.Duration  `json:"system,omitempty"`
	OOMKilled bool           `json:"oomKilled,omitempty"`
}

// Cursor is a place between two events of a service. It stays one when all
// programs have ended and the machine was started again. The zero value is the
// end: what comes from now on.
type Cursor string

// Oldest is the place before all events that are kept.
const Oldest Cursor = "0"

// CursorAt returns the place before what happened at that time or later.
func CursorAt(t time.Time) Cursor { return cursor(journal.Seq(max(1, t.UnixNano()-1))) }

func cursor(s journal.Seq) Cursor { return Cursor(strconv.FormatInt(int64(s), 10)) }

// seq returns the number of the event before the cursor.
func (c Cursor) seq(dir string) (journal.Seq, error) {
	if c == "" {
		return journal.Last(dir)
	}
	n, err := strconv.ParseUint(string(c), 10, 63)
	if err != nil {
		return 0, fault(errdefs.ErrInvalidArgument, "cursor %q: not one of an event's", string(c))
	}
	return journal.Seq(n), nil
}

// Events returns what happens to all systems of the service, whichever program
// makes it happen: what follows the cursor, and then whatever comes, in one
// order for everybody, each once. The cursor is looked at now, not when the
// first event is asked for. Some megabytes of events are kept; where there were
// more, or some could not be written, an EventGap stands for them.
//
// It ends with an error, the last pair: context.Cause when ctx is done.
func (s *Service) Events(ctx context.Context, since Cursor) iter.Seq2[Event, error] {
	after, err := since.seq(s.eventsDir())
	return func(yield func(Event, error) bool) {
		if err != nil {
			yield(Event{}, fmt.Errorf("follow events: %w", err))
			return
		}
		err := s.follow(ctx, after, func(e Event) bool { return yield(e, nil) })
		if err != nil {
			yield(Event{}, fmt.Errorf("follow events: %w", err))
		}
	}
}

// PastEvents returns what Events does, as far as it has happened.
func (s *Service) PastEvents(since Cursor) iter.Seq2[Event, error] {
	after, err := since.seq(s.eventsDir())
	return func(yield func(Event, error) bool) {
		if err == nil {
			err = s.readEvents(after, func(e Event) bool { return yield(e, nil) })
		}
		if err != nil {
			yield(Event{}, fmt.Errorf("read events: %w", err))
		}
	}
}

// follow yields events until the caller has enough, which is no error. Who
// follows also watches for shims that die: they cannot tell themselves.
func (s *Service) follow(ctx context.Context, after journal.Seq, yield func(Event) bool) error {
	r := journal.Open(s.eventsDir(), after)
	defer func() { _ = r.Close() }() // only reads
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := s.watchShims(watching); err != nil && watching.Err() == nil {
			s.cfg.Logger.Error("watch for shims that die", "error", err)
		}
	})
	for {
		rec, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if !yield(newEvent(&rec)) {
			return nil
		}
	}
}

func (s *Service) readEvents(after journal.Seq, yield func(Event) bool) error {
	r := journal.Open(s.eventsDir(), after)
	defer func() { _ = r.Close() }() // only reads
	for {
		rec, err := r.Poll()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !yield(newEvent(&rec)) {
			return nil
		}
	}
}

// eventKinds are the kinds by what the journal calls them.
var eventKinds = map[wire.EventKind]EventKind{
	wire.EventCreated: EventCreated, wire.EventStarted: EventStarted, wire.EventPaused: EventPaused,
	wire.EventResumed: EventResumed, wire.EventModified: EventModified,
	wire.EventProcessCreated: EventProcessCreated, wire.EventProcessExited: EventProcessExited, wire.EventOOM: EventOOM,
	wire.EventExited: EventExited, wire.EventLost: EventLost, wire.EventDeleted: EventDeleted,
}

// newEvent makes an event of a record; what is none is as good as missing.
func newEvent(rec *journal.Record) Event {
	e := Event{Cursor: cursor(rec.Seq), Kind: EventGap}
	var w wire.Event
	if rec.Gap || json.Unmarshal(rec.Text, &w) != nil || eventKinds[w.Kind] == "" {
		return e
	}
	e.Kind, e.Time, e.ID, e.Name, e.Image = eventKinds[w.Kind], unix(w.Time), w.ID, w.Name, w.Image
	e.Pid, e.Main, e.Reason, e.Exit.Code = int(w.Pid), w.Main, w.Reason, w.Code
	if e.Kind == EventProcessExited {
		st := exitStatus(wire.Exit{Status: w.Status, UserUS: w.UserUS, SysUS: w.SysUS, OOM: w.OOM})
		e.Exit = Exit{Code: st.Code, Signal: st.Signal, User: st.User, System: st.System, OOMKilled: st.OOMKilled}
	}
	return e
}

func (s *Service) eventsDir() string { return filepath.Join(s.cfg.Root, "events") }

// tell writes an event of the library's. What happened has happened, whether
// or not it can be told.
func (s *Service) tell(kind wire.EventKind, r *Record) { s.tellWhy(kind, r, "") }

func (s *Service) tellWhy(kind wire.EventKind, r *Record, reason string) {
	text, err := json.Marshal(wire.Event{
		Kind: kind, Time: time.Now().UnixNano(), ID: r.ID, Name: r.Name(), Image: r.Spec.Image, Reason: reason,
	})
	if err == nil {
		_, err = s.journal.Append(text)
	}
	if err != nil {
		s.cfg.Logger.Error("tell what happens", "event", string(kind), "container", r.ID, "error", err)
	}
}
