package shim

import (
	"sync"
	"time"

	"github.com/hostcompute/hcs/internal/wire"
)

// open finds a process for a client that did not create it, which is told of
// its end on the same connection.
func (s *shim) open(c *wire.Conn, m wire.Message) *wire.Failure {
	var r wire.OpenRequest
	if err := r.Decode(m.Body); err != nil {
		return &wire.Failure{Class: wire.Invalid, Text: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.table.findPid(r.Pid)
	if p == nil || r.Pid == 0 { // one without a number has not begun
		return noProcess()
	}
	found := wire.OpenReply{Flags: p.request.Flags, Ended: !p.ended.IsZero()}
	s.reply(c, wire.Message{Type: wire.Opened, Seq: p.seq, Body: found.Encode()})
	if found.Ended {
		s.reply(c, p.endMessage())
	} else {
		p.waiters = append(p.waiters, c)
	}
	return nil
}

// attach gives a client a process's streams, too.
func (s *shim) attach(c *wire.Conn, m wire.Message) *wire.Failure {
	var r wire.AttachRequest
	if err := r.Decode(m.Body); err != nil {
		return &wire.Failure{Class: wire.Invalid, Text: err.Error()}
	}
	l, f := s.relayOf(m.Seq, r.Flags)
	if f != nil {
		return f
	}
	body := l.attach(r.Flags, m.Files).Encode()
	s.reply(c, wire.Message{Type: wire.Attached, Seq: m.Seq, Body: body})
	return nil
}

// closeInput ends a process's input, whoever writes to it. That of one which
// has ended is no more.
func (s *shim) closeInput(c *wire.Conn, m wire.Message) *wire.Failure {
	l, f := s.relayOf(m.Seq, wire.Stdin)
	if f != nil {
		return f
	}
	l.closeInput()
	s.reply(c, wire.Message{Type: wire.OK})
	return nil
}

// relayOf returns what holds those streams of a process that has begun.
func (s *shim) relayOf(seq uint32, streams wire.SpawnFlags) (*relay, *wire.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.target(seq)
	switch {
	case p == nil || p.pid == 0:
		return nil, noProcess()
	case p.relay == nil || streams&^p.request.Flags.Attachable() != 0:
		return nil, &wire.Failure{Class: wire.Wrong, Text: "its streams are with its creator alone"}
	}
	return p.relay, nil
}

// relaySet holds the relays that have something to copy.
type relaySet struct {
	mu  sync.Mutex
	set map[*relay]bool
}

func (r *relaySet) add(l *relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.set == nil {
		r.set = make(map[*relay]bool)
	}
	r.set[l] = true
}

func (r *relaySet) remove(l *relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.set, l)
}

// finish finishes all of them.
func (r *relaySet) finish(patience time.Duration) {
	r.mu.Lock()
	var all sync.WaitGroup
	for l := range r.set {
		all.Go(func() { l.finish(patience) })
	}
	r.mu.Unlock()
	all.Wait()
}

// oomCount attributes what the kernel killed for lack of memory. It says how
// many processes of the control group those were, not which: so a process that
// died of SIGKILL, which no client had sent, was one if the number has grown
// since it was last looked at, and by more than was attributed since.
type oomCount struct {
	seen  uint64
	spare uint64 // grown by that much, and not attributed
	last  time.Time
}

// spareTime is how long after the number has grown another process's end may
// be due to that: several that are killed at once end one by one.
const spareTime = time.Second

func (o *oomCount) claim(count uint64) bool {
	now := time.Now()
	if now.Sub(o.last) > spareTime {
		o.spare = 0
	}
	if count > o.seen {
		o.spare += count - o.seen
		o.seen, o.last = count, now
	}
	if o.spare == 0 {
		return false
	}
	o.spare--
	return true
}
