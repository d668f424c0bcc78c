package shim

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

func (s *shim) accept(l *wire.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed: the shim goes
		}
		go s.serve(c)
	}
}

// serve answers a client until it goes.
func (s *shim) serve(c *wire.Conn) {
	defer s.leave(c)
	for {
		m, err := c.Receive()
		if errors.Is(err, wire.ErrVersion) || errors.Is(err, wire.ErrMalformed) {
			s.reply(c, failureMessage(wire.Invalid, err))
		}
		if err != nil {
			return
		}
		if s.isOver() { // as if the shim were gone already: those who ask again find that it is
			wire.CloseFiles(m.Files)
			return
		}
		if f := s.handle(c, m); f != nil {
			wire.CloseFiles(m.Files)
			s.reply(c, wire.Message{Type: wire.Error, Seq: m.Seq, Body: f.Encode()})
		}
	}
}

// isOver reports whether the last status is left behind and told.
func (s *shim) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.State == wire.Stopped
}

func (s *shim) leave(c *wire.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == s.starting && s.spec.NeedsProcess && s.table.last == 0 {
		s.stopLocked("its client died before it had a process")
	}
	s.table.leave(c)
	s.waiters = slices.DeleteFunc(s.waiters, func(w *wire.Conn) bool { return w == c })
	c.Close()
}

// reply sends to a client. One that does not take what it asked for is cut
// off rather than waited for: nobody else may have to wait for it.
func (s *shim) reply(c *wire.Conn, m wire.Message) {
	if err := c.SendNow(m); err != nil {
		c.Close()
	}
}

// handle does what a message asks for, and answers unless it returns a
// failure. Descriptors are closed by then unless it fails.
func (s *shim) handle(c *wire.Conn, m wire.Message) *wire.Failure {
	switch m.Type {
	case wire.Spawn:
		return s.spawn(c, m)
	case wire.Attach:
		return s.attach(c, m)
	}
	wire.CloseFiles(m.Files)
	m.Files = nil
	switch m.Type {
	case wire.Signal:
		return s.signal(c, m)
	case wire.Resize:
		return s.resize(c, m)
	case wire.Open:
		return s.open(c, m)
	case wire.CloseInput:
		return s.closeInput(c, m)
	case wire.WaitOne:
		return s.waitOne(c, m)
	case wire.WaitAll:
		s.waitAll(c)
	case wire.Query:
		s.query(c)
	case wire.Pause:
		return s.pause(c)
	case wire.Resume:
		return s.resume(c)
	case wire.OpenRoot:
		return s.openOfFirst(c, m, itsRoot)
	case wire.OpenNetwork:
		return s.openOfFirst(c, m, itsNetwork)
	case wire.Modify:
		return s.modify(c, m)
	case wire.Shutdown:
		return s.shutdown(c, m)
	case wire.Terminate:
		s.stop("")
		s.waitAll(c)
	case wire.Revoke:
		s.revoke()
		s.waitAll(c)
	default:
		return &wire.Failure{Class: wire.Invalid, Text: "unknown request " + m.Type.String()}
	}
	return nil
}

func (s *shim) spawn(c *wire.Conn, m wire.Message) *wire.Failure {
	p := &process{client: c}
	if err := p.request.Decode(m.Body); err != nil || len(p.request.Args) == 0 {
		return &wire.Failure{Class: wire.Invalid, Text: "malformed request"}
	}
	if f := s.admit(p); f != nil {
		return f
	}
	theirs, body := m.Files, m.Body
	if p.request.Flags.Held() {
		held, err := s.hold(p, m.Files)
		if err != nil { // and they are closed
			s.notBegun(p, &wire.Failure{Class: wire.Internal, Text: err.Error()})
			return nil
		}
		defer closeAll(held)
		theirs, body = fds(held), p.request.Encode()
	} else {
		defer wire.CloseFiles(theirs)
	}
	p.request.Env = nil // which may be large, and nobody asks for
	s.giveAway(theirs)
	// Without s.mu: an agent that takes nothing must hold up this client alone.
	err := s.agent.Send(wire.Message{Type: wire.Spawn, Seq: p.seq, Body: body, Files: theirs})
	if err != nil { // the agent is gone: the system is about to end
		s.notBegun(p, tooLate())
	}
	return nil
}

// hold gives the process a relay, and returns what the process gets of it.
func (s *shim) hold(p *process, fds []int) ([]*os.File, error) {
	l, theirs, err := newRelay(&p.request, fds, s.log)
	if err != nil {
		return nil, err
	}
	l.gone = func() { s.relays.remove(l) }
	s.relays.add(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.relay = l
	return theirs, nil
}

// giveAway makes pipes those of the container's root where its ids are others:
// opening /dev/stdout by name would not work, and the agent could not give them
// on to the user who is to have them.
func (s *shim) giveAway(fds []int) {
	if s.spec.Native == nil || s.spec.Native.IDs == nil {
		return
	}
	root := int(s.spec.Native.IDs.First)
	for _, fd := range fds {
		sys.ChownPipe(fd, root, root)
	}
}

// admit enters the process in the table, if it may be started now.
func (s *shim) admit(p *process) *wire.Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.mayRun(&p.request); f != nil {
		return f
	}
	s.table.add(p)
	return nil
}

// notBegun is told that a process does not start.
func (s *shim) notBegun(p *process, f *wire.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse(p, f)
}

func fds(files []*os.File) []int {
	list := make([]int, len(files))
	for i, f := range files {
		list[i] = int(f.Fd())
	}
	return list
}

// mayRun says what keeps a process from being started now. s.mu is held.
func (s *shim) mayRun(r *wire.SpawnRequest) *wire.Failure {
	if f := s.refuses(wire.Spawn); f != nil {
		return f
	}
	switch {
	case s.pausing:
		return &wire.Failure{Class: wire.Wrong, Text: "the system is paused"}
	case r.Flags&wire.Main != 0 && s.table.main != nil:
		return &wire.Failure{Class: wire.Wrong, Text: "the system has a main process already"}
	}
	return nil
}

func (s *shim) signal(c *wire.Conn, m wire.Message) *wire.Failure {
	var r wire.SignalRequest
	if err := r.Decode(m.Body); err != nil {
		return &wire.Failure{Class: wire.Invalid, Text: err.Error()}
	}
	p, f := s.signalled(m.Seq, syscall.Signal(r.Signal))
	if f != nil {
		return f
	}
	if p == nil {
		s.reply(c, wire.Message{Type: wire.OK})
		return nil
	}
	m.Seq = p.seq
	if err := s.agent.Send(m); err != nil { // the agent passes over one that has ended
		return tooLate()
	}
	s.reply(c, wire.Message{Type: wire.OK})
	return nil
}

// signalled returns the process that the agent is to send a signal to; none
// where ending the system does as well.
func (s *shim) signalled(seq uint32, sig syscall.Signal) (*process, *wire.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State == wire.Starting {
		return nil, s.refuses(wire.Signal)
	}
	p := s.target(seq)
	if p == nil {
		return nil, noProcess()
	}
	kill := sig == syscall.SIGKILL
	if f := s.refuses(wire.Signal); f != nil {
		if kill && p.request.Flags&wire.Main != 0 { // which the agent, paused too, could not do
			s.stopLocked("")
			return nil, nil
		}
		return nil, f
	}
	p.killed = p.killed || kill
	return p, nil
}

// target returns the process with the number; 0 is the main process. s.mu is
// held.
func (s *shim) target(seq uint32) *process {
	if seq == 0 {
		return s.table.main
	}
	return s.table.find(seq)
}

func tooLate() *wire.Failure {
	return &wire.Failure{Class: wire.Wrong, Text: "the system is stopping"}
}

func noProcess() *wire.Failure {
	return &wire.Failure{Class: wire.NotFound, Text: "no such process"}
}

func (s *shim) resize(c *wire.Conn, m wire.Message) *wire.Failure {
	var r wire.ResizeRequest
	if err := r.Decode(m.Body); err != nil {
		return &wire.Failure{Class: wire.Invalid, Text: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.target(m.Seq)
	if p == nil || p.relay == nil || p.relay.master == nil {
		return &wire.Failure{Class: wire.NotFound, Text: "no such terminal"}
	}
	if err := sys.SetWindowSize(p.relay.master, r.Rows, r.Cols); err != nil {
		return &wire.Failure{Class: wire.Wrong, Text: err.Error()}
	}
	s.reply(c, wire.Message{Type: wire.OK})
	return nil
}

func (s *shim) waitOne(c *wire.Conn, m wire.Message) *wire.Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.target(m.Seq)
	switch {
	case p == nil:
		return noProcess()
	case p.ended.IsZero():
		p.waiters = append(p.waiters, c)
	default:
		s.reply(c, p.endMessage())
	}
	return nil
}

func (s *shim) waitAll(c *wire.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State == wire.Stopped {
		s.reply(c, wire.Message{Type: wire.StatusReply, Body: s.encodeStatus()})
		return
	}
	s.waiters = append(s.waiters, c)
}

func (s *shim) query(c *wire.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Processes = s.table.statuses()
	s.reply(c, wire.Message{Type: wire.StatusReply, Body: s.encodeStatus()})
}

// freezeTimeout bounds how long processes may take to stop: one in an
// uninterruptible wait does not.
const freezeTimeout = 10 * time.Second

func (s *shim) pause(c *wire.Conn) *wire.Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pausing = true
	s.awaitStarts()
	s.pausing = false
	if f := s.refuses(wire.Pause); f != nil { // what is frozen does not die
		return f
	}
	if s.status.State == wire.Running {
		if err := s.cgroup.Freeze(freezeTimeout); err != nil {
			return asFailure(err)
		}
		s.status.State, s.frozen = wire.Paused, true
		s.events.tell(wire.Event{Kind: wire.EventPaused})
	}
	return s.settled(c)
}

// awaitStarts lets processes begin that the agent was asked for: their clients would wait for a frozen agent's answer. An agent
// that gives none is not waited for longer than freezeTimeout. s.mu is held, but not meanwhile.
func (s *shim) awaitStarts() {
	late := false
	timer := time.AfterFunc(freezeTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.begun.Broadcast()
	})
	defer timer.Stop()
	for s.table.starting() && !s.stopping() && !late {
		s.begun.Wait()
	}
}

func (s *shim) stopping() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

func (s *shim) resume(c *wire.Conn) *wire.Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.refuses(wire.Resume); f != nil {
		return f
	}
	if s.status.State == wire.Paused {
		if err := s.cgroup.Thaw(); err != nil {
			return &wire.Failure{Text: err.Error()}
		}
		s.status.State, s.frozen = wire.Running, false
		s.events.tell(wire.Event{Kind: wire.EventResumed})
	}
	return s.settled(c)
}

// openOfFirst gives a client the container's root as its processes see it, or its network namespace. Only the shim knows for sure
// which process the first one is, and may look at it where both are an ordinary user's. Who comes too late is told when the
// system has stopped.
func (s *shim) openOfFirst(c *wire.Conn, m wire.Message, what string) *wire.Failure {
	s.mu.Lock()
	f := s.refuses(m.Type)
	s.mu.Unlock()
	if f != nil {
		return f
	}
	file, err := s.first.open(what)
	switch {
	case errors.Is(err, errFirstEnded):
		s.waitAll(c)
		return nil
	case err != nil:
		return &wire.Failure{Text: err.Error()}
	}
	defer file.Close()
	s.reply(c, wire.Message{Type: wire.OK, Seq: m.Seq, Files: []int{int(file.Fd())}})
	return nil
}

// settled answers that the system is in the state that was asked for. s.mu is
// held.
func (s *shim) settled(c *wire.Conn) *wire.Failure {
	if err := s.writeStatus(); err != nil {
		return &wire.Failure{Text: err.Error()}
	}
	s.events.settle()
	s.reply(c, wire.Message{Type: wire.OK})
	return nil
}
