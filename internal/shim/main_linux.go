package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// clientSocket is the descriptor on which the program that started the shim
// sends Start, and on which it is a client from then on.
const clientSocket = 3

// startLock is a descriptor that has the lock of the system's record, which the
// shim keeps until the system runs (state.Lock.File).
const startLock = 4

// Main runs a shim, and returns its exit status.
func Main() int {
	// Collects when there is a mebibyte of garbage, where by default it would be
	// four; systems that have ended by then have none collected.
	time.AfterFunc(time.Second, func() { debug.SetGCPercent(25) })
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	if err := run(); err != nil {
		note("supervise", err)
		return 1
	}
	return 0
}

func run() error {
	// What the caller's caller left open, a lock or a pipe that somebody waits
	// for the end of, would stay open as long as the system lives.
	if err := sys.CloseInherited(startLock + 1); err != nil {
		return err
	}
	syscall.CloseOnExec(startLock)
	client, err := wire.NewConn(clientSocket)
	if err != nil {
		return fmt.Errorf("take over the client's socket: %w", err)
	}
	if err := sys.BecomeSubreaper(); err != nil {
		return fmt.Errorf("prepare the supervisor: %w", err)
	}
	s := newShim()
	if s.ownMounts = len(os.Args) > 2 && os.Args[2] == wire.OwnMounts; s.ownMounts {
		if err := sys.DetachMounts(); err != nil {
			return fmt.Errorf("prepare the supervisor's mounts: %w", err)
		}
	}
	s.lock = os.NewFile(startLock, "lock")
	spec, err := s.receiveSpec(client)
	if err != nil {
		return errors.Join(err, s.abandon())
	}
	if err := s.plan(spec); err != nil {
		return errors.Join(err, s.abandon(), client.Send(failureMessage(wire.Internal, err)))
	}
	return s.supervise(client)
}

// receiveSpec receives the plan. Where the first process is to be born before,
// it is; it is the plan that is answered if it is not.
func (s *shim) receiveSpec(client *wire.Conn) (*wire.Spec, error) {
	m, err := client.Receive()
	var unborn error
	if err == nil && m.Type == wire.Bear {
		unborn = s.bear(m.Body)
		m, err = client.Receive()
	}
	if err == nil && unborn != nil {
		return nil, errors.Join(unborn, client.Send(failureMessage(wire.Internal, unborn)))
	}
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the client went before it said what to start")
	}
	if err != nil {
		return nil, fmt.Errorf("receive what to start: %w", err)
	}
	spec := new(wire.Spec)
	if m.Type != wire.Start {
		return nil, fmt.Errorf("receive what to start: got %v", m.Type)
	}
	if err := spec.Decode(m.Body); err != nil {
		return nil, fmt.Errorf("read what to start: %w", err)
	}
	return spec, nil
}

// asFailure returns the failure that an error carries, with all it says.
func asFailure(err error) *wire.Failure {
	return &wire.Failure{Class: classOf(err), Text: err.Error()}
}

func classOf(err error) wire.Class {
	f, ok := errors.AsType[*wire.Failure](err)
	switch {
	case ok:
		return f.Class
	case errors.Is(err, sys.ErrNoIDMap), errors.Is(err, sys.ErrNoCgroup):
		return wire.Unsupported
	case errors.Is(err, sys.ErrInUse), errors.Is(err, sys.ErrImageInUse):
		return wire.Wrong
	}
	return wire.Internal
}

func failureMessage(c wire.Class, err error) wire.Message {
	f := wire.Failure{Class: c, Text: err.Error()}
	return wire.Message{Type: wire.Error, Body: f.Encode()}
}
