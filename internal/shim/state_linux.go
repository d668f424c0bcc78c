package shim

import (
	"slices"
	"syscall"

	"github.com/hostcompute/hcs/internal/wire"
)

// servedIn says in which states a request is served. What is not here always
// is: it asks, waits, or ends the system.
var servedIn = map[wire.Type][]wire.State{
	wire.Spawn:       {wire.Running},
	wire.Signal:      {wire.Running, wire.Stopping},
	wire.Pause:       {wire.Running, wire.Paused},
	wire.Resume:      {wire.Running, wire.Paused},
	wire.Modify:      {wire.Running, wire.Paused, wire.Stopping},
	wire.OpenRoot:    {wire.Running, wire.Paused, wire.Stopping},
	wire.OpenNetwork: {wire.Running, wire.Paused, wire.Stopping},
	wire.Shutdown:    {wire.Starting, wire.Running, wire.Stopping},
}

// refuses says why a request is not served in this state, if it is not. s.mu
// is held.
func (s *shim) refuses(t wire.Type) *wire.Failure {
	states, some := servedIn[t]
	if !some || slices.Contains(states, s.status.State) {
		return nil
	}
	return &wire.Failure{Class: wire.Wrong, Text: "the system is " + string(s.status.State)}
}

// shutdown asks the system to end: by a signal to its main process, or to all
// where there is none. There are no new processes from then on. SIGKILL, and a
// system that only starts, end it at once.
func (s *shim) shutdown(c *wire.Conn, m wire.Message) *wire.Failure {
	var r wire.SignalRequest
	if err := r.Decode(m.Body); err != nil {
		return &wire.Failure{Class: wire.Invalid, Text: err.Error()}
	}
	request, f := s.beginShutdown(syscall.Signal(r.Signal))
	if f != nil {
		return f
	}
	if request != nil {
		request.Body = m.Body
		if err := s.agent.Send(*request); err != nil { // the agent is gone, and so is the system
			note("shut down", err)
		}
	}
	s.reply(c, wire.Message{Type: wire.OK})
	return nil
}

// beginShutdown returns what the agent is to be told, or nothing where the
// system ends without it.
func (s *shim) beginShutdown(sig syscall.Signal) (*wire.Message, *wire.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig == syscall.SIGKILL || s.status.State == wire.Starting {
		s.stopLocked("")
		return nil, nil
	}
	if f := s.refuses(wire.Shutdown); f != nil {
		return nil, f
	}
	s.status.State = wire.Stopping
	s.awaitStarts() // those that were asked for before are to get the signal, too
	if s.stopping() {
		return nil, nil
	}
	if main := s.table.main; main != nil {
		return &wire.Message{Type: wire.Signal, Seq: main.seq}, nil
	}
	return &wire.Message{Type: wire.Shutdown}, nil
}
