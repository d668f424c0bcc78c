package shim

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// listenToAgent takes the agent's reports until its end. It is what somebody
// hostile in the container would be who got hold of the agent: so it believes
// no report, and the first that the agent cannot have sent ends the system.
func (s *shim) listenToAgent() {
	for {
		m, err := s.agent.Receive()
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrVersion) {
			s.stop(distrust + err.Error())
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !s.stopping() { // then the connection is closed from here, too
				note("listen to the agent", err)
			}
			s.killFirst() // whatever it is, it does not serve any more
			return
		}
		if !s.report(m) {
			return
		}
	}
}

// distrust is why a system ends, with what its agent sent after it.
const distrust = "its agent is not to be trusted: it sent "

// report takes one report. It reports false if there is nothing to be heard
// any more.
func (s *shim) report(m wire.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.table.live[m.Seq]
	ok := false
	switch {
	case m.Type == wire.Idle && s.status.State == wire.Stopping:
		s.stopLocked("")
		ok = true
	case p == nil:
	case m.Type == wire.Began && p.pid == 0:
		if ok = s.began(p, m); ok {
			return true // and the descriptors are closed, or kept
		}
	case m.Type == wire.Ended && p.pid != 0:
		ok = s.agentEnded(p, m)
	case m.Type == wire.Error && p.pid == 0:
		ok = s.refused(p, m)
	}
	wire.CloseFiles(m.Files)
	if !ok {
		s.stopLocked(fmt.Sprintf("%s%v of process %d", distrust, m.Type, m.Seq))
	}
	return ok
}

// killFirst ends a system whose agent is not to be relied upon.
func (s *shim) killFirst() {
	if err := s.first.kill(); err != nil {
		note("kill the first process", err)
	}
}

// began is told that a process runs; it reports whether that can be. If so it
// has the descriptors. s.mu is held.
func (s *shim) began(p *process, m wire.Message) bool {
	var b wire.Spawned
	terminal := p.request.Flags&wire.Terminal != 0
	if b.Decode(m.Body) != nil || terminal != (len(m.Files) == 1) || terminal && !sys.IsTerminalMaster(m.Files[0]) {
		return false
	}
	p.pid, p.started = max(b.Pid, 1), time.Now()
	s.begun.Broadcast()
	if p.relay != nil && terminal {
		p.relay.useTerminal(sys.NewTerminal(m.Files[0]))
		m.Files = nil
	}
	if p.client != nil {
		s.reply(p.client, m)
	}
	wire.CloseFiles(m.Files)
	// Last, as it wakes another thread.
	s.events.tell(wire.Event{
		Kind: wire.EventProcessCreated, Time: p.started.UnixNano(), Pid: p.pid, Main: p.request.Flags&wire.Main != 0,
	})
	return true
}

// agentEnded is told that a process has ended; it reports whether that can be.
// s.mu is held.
func (s *shim) agentEnded(p *process, m wire.Message) bool {
	var x wire.Exit
	if x.Decode(m.Body) != nil {
		return false
	}
	x.OOM = x.Signal() == int(syscall.SIGKILL) && !p.killed && s.oom.claim(s.cgroup.OOMKills())
	s.end(p, x)
	if p.request.Flags&wire.Main != 0 {
		s.stopLocked("")
	}
	return true
}

// end records a process's end and tells who waits for it. s.mu is held.
func (s *shim) end(p *process, x wire.Exit) {
	s.table.end(p, x)
	m := p.endMessage()
	if p.client != nil {
		s.reply(p.client, m)
	}
	for _, w := range p.waiters {
		s.reply(w, m)
	}
	p.client, p.waiters = nil, nil
	if p.relay != nil {
		p.relay.partEnded()
	}
	s.begun.Broadcast()
	if x.Signal() == int(syscall.SIGKILL) {
		s.noteOOM() // which comes before its end
	}
	if p.pid != 0 {
		s.events.tell(wire.Event{
			Kind: wire.EventProcessExited, Time: p.ended.UnixNano(), Pid: p.pid, Main: p.request.Flags&wire.Main != 0,
			Status: x.Status, UserUS: x.UserUS, SysUS: x.SysUS, OOM: x.OOM,
		})
	}
}

// refused is told that a process does not start; it reports whether that can
// be. s.mu is held.
func (s *shim) refused(p *process, m wire.Message) bool {
	var f wire.Failure
	if f.Decode(m.Body) != nil {
		return false
	}
	f.Text = plain(f.Text)
	s.refuse(p, &f)
	return true
}

// refuse tells that a process does not start, and forgets it, unless that has
// been done. s.mu is held.
func (s *shim) refuse(p *process, f *wire.Failure) {
	if s.table.live[p.seq] != p {
		return
	}
	if p.client != nil {
		s.reply(p.client, wire.Message{Type: wire.Error, Seq: p.seq, Body: f.Encode()})
	}
	s.table.drop(p)
	for _, w := range p.waiters { // who did not wait until it had begun
		s.reply(w, wire.Message{Type: wire.Error, Seq: p.seq, Body: noProcess().Encode()})
	}
	p.waiters = nil
	s.begun.Broadcast()
	if p.relay != nil {
		go p.relay.finish(patience)
	}
}

// maxSaid bounds what is told of what the agent says: more than a path.
const maxSaid = 8 << 10

// plain makes a line of what the agent says that a terminal can show.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text[:min(len(text), maxSaid)])
}
