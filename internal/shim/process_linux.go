package shim

import (
	"os"
	"slices"
	"time"

	"github.com/hostcompute/hcs/internal/wire"
)

// process is a process of the system, from the request on.
type process struct {
	seq     uint32
	request wire.SpawnRequest
	client  *wire.Conn   // who asked for it, while connected
	waiters []*wire.Conn // who else wants to know its end
	relay   *relay       // of one whose streams the shim holds
	place   *wire.Conn   // of its creator, who has not opened its output yet; nil if that is nobody
	killed  bool         // a client has sent it SIGKILL

	pid     uint32 // 0 until it runs
	started time.Time
	ended   time.Time
	exit    wire.Exit
}

// endMessage tells how the process ended.
func (p *process) endMessage() wire.Message {
	return wire.Message{Type: wire.Ended, Seq: p.seq, Body: p.exit.Encode()}
}

func (p *process) status() wire.ProcessStatus {
	s := wire.ProcessStatus{
		Seq: p.seq, Pid: p.pid, Args: p.request.Args, Main: p.request.Flags&wire.Main != 0,
		Started: p.started.UnixNano(), Status: p.exit.Status,
	}
	if !p.ended.IsZero() {
		s.Ended = p.ended.UnixNano()
	}
	return s
}

// findPid returns the live process with the number in the container, or else
// the one that ended last.
func (t *table) findPid(pid uint32) *process {
	for _, p := range t.live {
		if p.pid == pid {
			return p
		}
	}
	for _, p := range slices.Backward(t.ended) {
		if p.pid == pid {
			return p
		}
	}
	return nil
}

// table holds the system's processes.
type table struct {
	last  uint32
	live  map[uint32]*process
	ended []*process // oldest first
	main  *process

	places map[*wire.Conn]*process // those with a place, at most one a connection
}

func (t *table) add(p *process) {
	t.last++
	p.seq = t.last
	if t.live == nil {
		t.live = make(map[uint32]*process)
	}
	t.live[p.seq] = p
	if p.request.Flags&wire.Main != 0 {
		t.main = p
	}
	t.leavePlace(p.client)
	if p.request.Flags.WantsPlace() {
		t.takePlace(p)
	}
}

// takePlace has the process remembered, however many end after it, until its
// creator's connection is closed or used for another.
func (t *table) takePlace(p *process) {
	if t.places == nil {
		t.places = make(map[*wire.Conn]*process)
	}
	t.places[p.client], p.place = p, p.client
}

// leavePlace is told that nobody on that connection will open streams for the
// first time any more.
func (t *table) leavePlace(c *wire.Conn) {
	if p := t.places[c]; p != nil {
		delete(t.places, c)
		p.place = nil
		t.trim()
	}
}

// find returns the process with the number, live or ended.
func (t *table) find(seq uint32) *process {
	if p := t.live[seq]; p != nil {
		return p
	}
	for _, p := range t.ended {
		if p.seq == seq {
			return p
		}
	}
	return nil
}

// drop forgets a process that never ran.
func (t *table) drop(p *process) {
	delete(t.live, p.seq)
	if t.main == p {
		t.main = nil
	}
}

// end moves a process to the ended ones. The oldest of those is forgotten.
func (t *table) end(p *process, x wire.Exit) {
	p.ended = time.Now()
	if x.Ended = p.ended.UnixNano(); !p.started.IsZero() {
		x.Started = p.started.UnixNano()
	}
	p.exit = x
	delete(t.live, p.seq)
	t.ended = append(t.ended, p)
	t.trim()
}

// trim forgets the oldest of the ended processes, but none that has a place.
func (t *table) trim() {
	spare := -wire.Remembered
	for _, p := range t.ended {
		if p.place == nil {
			spare++
		}
	}
	if spare <= 0 {
		return
	}
	t.ended = slices.DeleteFunc(t.ended, func(p *process) bool {
		if spare == 0 || p.place != nil {
			return false
		}
		spare--
		if p.relay != nil {
			p.relay.forget()
		}
		return true
	})
}

// leave takes a client that is gone off every process.
func (t *table) leave(c *wire.Conn) {
	t.leavePlace(c)
	for _, p := range t.live {
		if p.client == c {
			p.client = nil
		}
		p.waiters = slices.DeleteFunc(p.waiters, func(w *wire.Conn) bool { return w == c })
	}
}

// starting reports whether there are processes that have not begun.
func (t *table) starting() bool {
	for _, p := range t.live {
		if p.pid == 0 {
			return true
		}
	}
	return false
}

// statuses lists the live processes and the main one, in the order in which
// they were asked for.
func (t *table) statuses() []wire.ProcessStatus {
	var list []wire.ProcessStatus
	for _, p := range t.live {
		if p.pid != 0 {
			list = append(list, p.status())
		}
	}
	if t.main != nil && !t.main.ended.IsZero() {
		list = append(list, t.main.status())
	}
	slices.SortFunc(list, func(a, b wire.ProcessStatus) int { return int(a.Seq) - int(b.Seq) })
	return list
}

// files makes os.Files of received descriptors.
func files(fds []int) []*os.File {
	list := make([]*os.File, len(fds))
	for i, fd := range fds {
		list[i] = os.NewFile(uintptr(fd), "stdio")
	}
	return list
}
