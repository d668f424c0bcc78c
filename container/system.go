package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
	"github.com/hostcompute/hcs/rootfs"
)

// killTimeout bounds how long the kernel may take to end processes.
const killTimeout = 30 * time.Second

// State is the state of a system.
type State string

// The states. docs/compute.md says what each call does in each.
const (
	Created  State = "created"  // has never run
	Starting State = "starting" // somebody's Start has not returned
	Running  State = "running"
	Paused   State = "paused"
	Stopping State = "stopping" // was asked to shut down, or is being taken down
	Stopped  State = "stopped"
	Lost     State = "lost" // its shim died; Status.Reason says so
)

// IsUp reports whether the system has, or may yet have, processes: it is in one
// of the states from Starting to Stopping.
func (s State) IsUp() bool {
	return s == Starting || s == Running || s == Paused || s == Stopping
}

// Status is what is known of a system at one moment.
type Status struct {
	State    State
	Started  time.Time // zero if it never ran
	Ended    time.Time // zero unless stopped
	ExitCode int       // of the main process, once stopped
	Reason   string    // why it stopped, where nobody asked for that
	Pid      int       // of its first process, on the host
	ShimPid  int
	// Processes are those that run, and the main one.
	Processes []ProcessInfo
}

// ProcessInfo is one process that was created in a system.
type ProcessInfo struct {
	Pid      int // in the system
	Args     []string
	Main     bool
	Started  time.Time
	Ended    time.Time // zero while it runs
	ExitCode int
}

// System is a compute system. Its methods may be called at once. Several
// Systems, here and in other programs, may stand for the same one.
type System struct {
	service  *Service
	record   Record                 // as it was opened
	modified atomic.Pointer[Record] // as Modify has left it
	meter    meter

	mu      sync.Mutex
	idle    []*wire.Conn // connections to the shim that nobody uses
	closed  bool         // no connection is to be kept any more
	creator *state.Lock  // held from Create to Start: keeps Prune away
	handle  *sys.Hold    // to a HandleBound system

	keepVolume bool // where Delete finds one
}

// errBusy says that somebody else is creating, starting or deleting a system,
// or that it runs.
var errBusy = fault(errdefs.ErrFailedPrecondition, "the container is in use")

// ID returns the system's id: 32 hexadecimal digits.
func (s *System) ID() string { return s.record.ID }

// Name returns the system's name.
func (s *System) Name() string { return s.record.Name() }

// Record returns what is kept of the system, as it was when the System was
// opened, or as its Modify has left it. It is not to be changed.
func (s *System) Record() Record {
	if r := s.modified.Load(); r != nil {
		return *r
	}
	return s.record
}

// Scratch returns the layer that takes what the system writes. One that writes
// in place has none: the error is of class ErrFailedPrecondition.
func (s *System) Scratch() (*rootfs.Scratch, error) {
	if s.record.Spec.WriteInPlace {
		return nil, fault(errdefs.ErrFailedPrecondition, "it has no scratch layer: it writes to %s itself", s.record.Spec.RootDir)
	}
	return s.service.cfg.Layers.OpenScratch(s.record.ID)
}

// Close lets go of connections. The system goes on, unless it is HandleBound
// and this was its last handle.
func (s *System) Close() error {
	errs := []error{s.letGo(), s.dropHandle(), s.meter.close()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		errs = append(errs, c.Close())
	}
	s.idle, s.closed = nil, true
	return errors.Join(errs...)
}

// letGo ends the creator's hold on a system that it has not started.
func (s *System) letGo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lock := s.creator
	s.creator = nil
	if lock == nil {
		return nil
	}
	return lock.Unlock()
}

// creatorLock is the name of the lock that a creator holds.
func creatorLock(id string) string { return id + ".creator" }

func (s *System) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s container %s: %w", op, s.Name(), err)
}

func (s *System) socket() string {
	return filepath.Join(s.service.runDir(s.record.ID), wire.SocketName)
}

func (s *System) dir() string { return s.service.records.Dir(s.record.ID) }

func (s *System) statusFile() string { return filepath.Join(s.dir(), "status.json") }

func (s *System) logFile() string { return filepath.Join(s.dir(), "output.log") }

// conn returns a connection to the shim, an idle one or a new one. There is
// none, of class ErrFailedPrecondition, if the system does not run.
func (s *System) conn() (c *wire.Conn, wasIdle bool, err error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return c, true, nil
	}
	s.mu.Unlock()
	c, err = wire.Dial(s.socket())
	if noShim(err) {
		return nil, false, s.notRunning()
	}
	return c, false, err
}

// noShim reports whether a failure to connect means that nobody listens. Any
// other says nothing about the system.
func noShim(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// maxIdle bounds the idle connections of a System.
const maxIdle = 8

// release makes a connection idle.
func (s *System) release(c *wire.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) < maxIdle && !s.closed {
		s.idle = append(s.idle, c)
		return
	}
	c.Close()
}

// notRunning says why there is no shim to talk to.
func (s *System) notRunning() error {
	st, err := s.rest()
	if err != nil {
		return err
	}
	why := "it is " + string(st.State)
	if st.Reason != "" {
		why += ": " + st.Reason
	}
	return fault(errdefs.ErrFailedPrecondition, "%s", why)
}

// call asks the shim. An idle connection may have been closed meanwhile by a
// shim that ended: the request is then made again on a new one.
func (s *System) call(ctx context.Context, m wire.Message) (wire.Message, error) {
	reply, c, err := s.exchange(ctx, m)
	if c != nil {
		s.release(c)
	}
	return reply, err
}

// exchange is call, but leaves the connection to the caller if it is of
// further use.
func (s *System) exchange(ctx context.Context, m wire.Message) (wire.Message, *wire.Conn, error) {
	for {
		c, wasIdle, err := s.conn()
		if err != nil {
			return wire.Message{}, nil, err
		}
		reply, err := callOn(ctx, c, m)
		if err == nil || asFailure(err) {
			return reply, c, classify(err)
		}
		c.Close()
		switch {
		case ctx.Err() != nil:
			return wire.Message{}, nil, context.Cause(ctx)
		case !isClosed(err):
			return wire.Message{}, nil, requestError(err)
		case !wasIdle: // the shim is going, or does not want us
			return wire.Message{}, nil, s.cutOff()
		}
	}
}

// requestError gives what kept a request from being sent its class.
func requestError(err error) error {
	if errors.Is(err, wire.ErrTooLarge) {
		return fault(errdefs.ErrInvalidArgument, "%s", err.Error())
	}
	return err
}

// cutOff says why a new connection was closed unanswered: the system has
// stopped meanwhile, or, when it should run, its shim would not answer.
func (s *System) cutOff() error {
	if answers, err := s.answers(); err == nil && !answers {
		return s.notRunning()
	}
	return fault(errdefs.ErrUnavailable, "its shim closed the connection")
}

// callOn makes a request; the end of the context closes the connection.
func callOn(ctx context.Context, c *wire.Conn, m wire.Message) (wire.Message, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err := c.Send(m)
	stop()
	if err != nil {
		return wire.Message{}, err
	}
	return replyOn(ctx, c)
}

// replyOn receives a reply; the end of the context closes the connection.
func replyOn(ctx context.Context, c *wire.Conn) (wire.Message, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	reply, err := c.Reply()
	if !stop() && ctx.Err() != nil {
		wire.CloseFiles(reply.Files)
		return wire.Message{}, context.Cause(ctx)
	}
	return reply, err
}

// isClosed reports whether the peer has closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func asFailure(err error) bool {
	_, ok := errors.AsType[*wire.Failure](err)
	return ok
}

// classes are the error classes of what shim and agent refuse.
var classes = map[wire.Class]error{
	wire.Internal: errdefs.ErrInternal, wire.NotFound: errdefs.ErrNotFound, wire.Invalid: errdefs.ErrInvalidArgument,
	wire.Wrong: errdefs.ErrFailedPrecondition, wire.NotRunnable: errdefs.ErrPermissionDenied,
	wire.Unsupported: errdefs.ErrNotImplemented, wire.Conflict: errdefs.ErrConflict,
}

// classify gives a failure its class.
func classify(err error) error {
	f, ok := errors.AsType[*wire.Failure](err)
	if !ok {
		return err
	}
	class := classes[f.Class]
	if class == nil {
		class = errdefs.ErrUnknown
	}
	return fault(class, "%s", f.Text)
}

// Status returns what is known of the system now.
func (s *System) Status(ctx context.Context) (Status, error) {
	m, err := s.call(ctx, wire.Message{Type: wire.Query})
	if errdefs.IsFailedPrecondition(err) {
		return s.look()
	}
	if err != nil {
		return Status{}, s.wrap("inspect", err)
	}
	return s.decode(m.Body)
}

func (s *System) decode(text []byte) (Status, error) {
	var w wire.Status
	if err := json.Unmarshal(text, &w); err != nil {
		return Status{}, s.wrap("inspect", fault(errdefs.ErrDataLoss, "read its status: %w", err))
	}
	st := Status{
		State: State(w.State), Started: unix(w.Started), Ended: unix(w.Ended), ExitCode: w.ExitCode, Reason: w.Reason,
		Pid: w.Pid, ShimPid: w.ShimPid,
	}
	for _, p := range w.Processes {
		st.Processes = append(st.Processes, ProcessInfo{
			Pid: int(p.Pid), Args: p.Args, Main: p.Main, Started: unix(p.Started), Ended: unix(p.Ended),
			ExitCode: wire.Exit{Status: p.Status}.Code(),
		})
	}
	return st, nil
}

func unix(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// rest returns the status of a system without a shim: as the last one left
// it, or lost where that says that it runs.
func (s *System) rest() (Status, error) {
	if err := s.isKept(); err != nil {
		return Status{}, err
	}
	text, err := os.ReadFile(s.statusFile())
	if errors.Is(err, os.ErrNotExist) {
		return Status{State: Created}, s.isKept() // or it has been removed meanwhile, the record first
	}
	if err != nil {
		return Status{}, s.wrap("inspect", err)
	}
	st, err := s.decode(text)
	if err != nil {
		return Status{State: Lost, ExitCode: 137, Reason: "its status is damaged"}, nil
	}
	if st.State != Stopped {
		st = Status{State: Lost, Started: st.Started, ExitCode: 137, Reason: "its shim died"}
	}
	return st, nil
}

// isKept returns why there is no record of the system.
func (s *System) isKept() error {
	_, err := s.service.records.Get(s.record.ID)
	if errdefs.IsNotFound(err) {
		return noSuch(s.Name())
	}
	return err
}

// Pause stops all processes of the system where they are. A paused one stays
// so. One without a control group cannot be paused: the error is of class
// ErrNotImplemented.
func (s *System) Pause(ctx context.Context) error {
	_, err := s.call(ctx, wire.Message{Type: wire.Pause})
	return s.wrap("pause", err)
}

// Resume lets a paused system go on. A running one does so already.
func (s *System) Resume(ctx context.Context) error {
	_, err := s.call(ctx, wire.Message{Type: wire.Resume})
	return s.wrap("resume", err)
}

// Signal sends a signal to the main process.
func (s *System) Signal(ctx context.Context, sig syscall.Signal) error {
	_, err := s.call(ctx, wire.Message{Type: wire.Signal, Body: wire.SignalRequest{Signal: uint32(sig)}.Encode()})
	return s.wrap("signal", err)
}

// Wait returns the system's last status when it has stopped. That of an
// Ephemeral system which is gone altogether is not known: the error is of
// class ErrNotFound. Where its endpoints cannot be detached, the status comes
// with that error.
func (s *System) Wait(ctx context.Context) (Status, error) {
	m, err := s.call(ctx, wire.Message{Type: wire.WaitAll})
	var st Status
	switch {
	case errdefs.IsFailedPrecondition(err):
		st, err = s.look()
	case err != nil:
		err = s.wrap("wait for", err)
	default:
		st, err = s.decode(m.Body)
	}
	if ctx.Err() == nil {
		err = errors.Join(err, s.wrap("wait for", s.detachIfOver(ctx)))
	}
	return st, err
}

// endShim has the shim end the system and go, if there is one.
func (s *System) endShim(ctx context.Context) error {
	c, err := wire.Dial(s.socket())
	if noShim(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := callOn(ctx, c, wire.Message{Type: wire.Terminate}); err != nil && !isClosed(err) {
		return classify(err)
	}
	return nil
}

// cleanUpIfLost takes away what a shim that died has left.
func (s *System) cleanUpIfLost(ctx context.Context) (err error) {
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	st, err := s.rest()
	if err != nil || st.State != Lost {
		return err
	}
	if answers, err := s.answers(); err != nil || answers {
		return err
	}
	s.noteLost()
	return s.service.cleanUp(&s.record)
}

// answers reports whether the system has a shim.
func (s *System) answers() (bool, error) {
	c, err := wire.Dial(s.socket())
	if noShim(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, c.Close()
}

// Delete removes all that is kept of the system, what it has written too. It
// refuses, with class ErrFailedPrecondition, while the system runs.
func (s *System) Delete(ctx context.Context) error {
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return s.wrap("delete", err)
	}
	return s.wrap("delete", errors.Join(s.deleteLocked(ctx, lock), s.letGo()))
}

// deleteIfIdle is Delete, but does not wait for whoever holds the lock.
func (s *System) deleteIfIdle(ctx context.Context) error {
	lock, err := s.service.records.TryLock(s.record.ID)
	if err != nil {
		return errBusy
	}
	creator, err := s.service.records.TryLock(creatorLock(s.record.ID))
	if err != nil {
		return errors.Join(errBusy, lock.Unlock()) // somebody means to start it
	}
	err = s.deleteLocked(ctx, lock)
	return s.wrap("delete", errors.Join(err, creator.Unlock()))
}

func (s *System) deleteLocked(ctx context.Context, lock *state.Lock) (err error) {
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	now, err := s.service.records.Get(s.record.ID) // it may have another name by now
	if err != nil {
		return err
	}
	switch answers, err := s.answers(); {
	case err != nil:
		return err
	case answers:
		return fmt.Errorf("it runs: %w", errBusy)
	}
	s.noteLost()
	if err := errors.Join(s.service.cleanUp(&s.record), s.service.detach(ctx, s.record.ID, nil)); err != nil {
		return err
	}
	if err := s.takeDownVolume(now.Spec.RootVolume); err != nil {
		return err
	}
	if err := s.service.removeFiles(&now); err != nil {
		return err
	}
	s.service.tell(wire.EventDeleted, &now)
	return nil
}
