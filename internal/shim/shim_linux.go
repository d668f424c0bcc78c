package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/reap"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// shim supervises one compute system.
type shim struct {
	spec    *wire.Spec
	cgroup  *sys.Cgroup
	reaper  reap.Reaper
	starter starter
	log     *logFile
	agent   *wire.Conn
	first   *firstProcess
	events  *events

	oomKills atomic.Uint64 // that are told

	changing sync.Mutex        // held by who changes the container: of mounts
	mounts   map[string]uint64 // targets of mounts that may be taken away, and the mounts' numbers

	starting  *wire.Conn // the client that started it
	lock      *os.File   // of the record, until the system runs
	ownMounts bool       // this mount namespace is nobody else's
	before    *leftStatus
	relays    relaySet // those that have something to copy

	mu      sync.Mutex // of all below
	status  wire.Status
	table   table
	waiters []*wire.Conn  // who waits for the system's end
	ending  chan struct{} // closed when the system is to stop
	revoked bool          // as if it had not been started
	pausing bool          // the system is about to be paused
	frozen  bool          // its processes are
	oom     oomCount
	begun   *sync.Cond // a process has begun, or will not
}

// newShim returns one that does not know yet what to start.
func newShim() *shim {
	s := &shim{
		first:  newFirstProcess(),
		status: wire.Status{State: wire.Starting, ShimPid: os.Getpid()},
		ending: make(chan struct{}),
	}
	s.begun = sync.NewCond(&s.mu)
	s.reaper.Orphan = s.first.orphan
	go s.reaper.Run()
	return s
}

// bear has the first process born.
func (s *shim) bear(body []byte) error {
	n := &native{reaper: &s.reaper, reaped: s.first.orphan}
	if err := n.birth.Decode(body); err != nil {
		return err
	}
	var err error
	if n.cgroup, err = sys.NewCgroup(n.birth.Cgroup); err != nil {
		return err
	}
	s.starter = n
	return n.bear()
}

// abandon ends the first process, if there is one, of a shim that has not
// started anything. What was made for it is the client's to take away.
func (s *shim) abandon() error {
	if n, ok := s.starter.(*native); ok {
		return n.kill()
	}
	return nil
}

// plan has the shim know what to start, and be ready to.
func (s *shim) plan(spec *wire.Spec) error {
	s.spec, s.before, s.status.Cgroup = spec, &leftStatus{path: spec.Status}, &spec.Cgroup
	if err := s.chooseStarter(); err != nil {
		return err
	}
	log, err := openLog(spec.Log)
	if err != nil {
		return err
	}
	events, err := newEvents(spec)
	if err != nil {
		return errors.Join(err, log.close())
	}
	s.log, s.events = log, events
	return nil
}

// chooseStarter takes the one that the plan is for.
func (s *shim) chooseStarter() error {
	n, born := s.starter.(*native)
	if born != (s.spec.Native != nil) {
		return errors.New("what to start and the first process that there is do not belong together")
	}
	if born {
		n.spec, s.spec.Native.Birth, s.cgroup = s.spec, n.birth, n.cgroup
		s.spec.ID, s.spec.Cgroup = n.birth.ID, n.birth.Cgroup
	}
	if s.spec.MountsByPath() && !s.ownMounts {
		return errors.New("there is no mount namespace for what is to be mounted")
	}
	if born {
		return nil
	}
	if s.spec.Runtime.Kind == "crun" {
		if err := hideUnified(); err != nil {
			return err
		}
	}
	var err error
	s.cgroup, err = sys.NewCgroup(s.spec.Cgroup)
	s.starter = &ociRuntime{spec: s.spec, reaper: &s.reaper, cgroup: s.cgroup}
	return err
}

// supervise brings the system to life, serves clients while it lives, takes it
// down, and returns when nothing of it is left.
func (s *shim) supervise(client *wire.Conn) error {
	socket := filepath.Join(s.spec.Dir, wire.SocketName)
	listener, err := wire.Listen(socket)
	if err != nil {
		err = errors.Join(err, s.abandon(), s.events.close())
		return errors.Join(err, client.Send(failureMessage(wire.Internal, err)))
	}
	s.starting = client
	go s.accept(listener)
	if err := s.start(); err != nil {
		class := classOf(err)
		if s.stopping() {
			class = wire.Wrong
		}
		err = errors.Join(err, s.undo(othersUnknown), s.before.restore(), listener.Close(), s.events.close())
		return errors.Join(err, client.Send(failureMessage(class, err)))
	}
	s.events.settle()
	if err := s.lock.Close(); err != nil {
		note("let the record's lock go", err)
	}
	s.reply(client, wire.Message{Type: wire.OK})
	go s.listenToAgent()
	go s.watchOOM()
	go s.serve(client)
	if s.spec.Handles != "" {
		go s.awaitHandles()
	}
	logLine{Level: "INFO", Message: "started", Pid: s.first.number()}.write()
	s.keepStatus()
	select {
	case <-s.ending:
	case <-s.first.ended:
		s.stop(s.whyDied()) // unless somebody stopped it before
	}
	err = s.takeDown()
	s.bow(err, listener)
	return err
}

// awaitHandles stops the system when it has no handle left. Who asked for its
// start has one, or is gone already.
func (s *shim) awaitHandles() {
	if err := sys.AwaitUnheld(s.spec.Handles); err != nil {
		note("watch the handles", err)
		return
	}
	s.stop("its last handle was closed")
}

// whyDied says why there is no first process any more.
func (s *shim) whyDied() string {
	if s.cgroup.OOMKills() > 0 {
		return "its first process was killed, maybe for lack of memory"
	}
	return "its first process died"
}

// start has the starter start the agent. It returns when the agent serves.
func (s *shim) start() error {
	if err := s.mountDisks(); err != nil {
		return err
	}
	agent, failed, err := s.starter.start()
	if err != nil {
		return err
	}
	s.agent = agent
	s.noteStarting() // which costs no time: the agent is at work
	pid, err := s.awaitAgent(failed)
	if err == nil {
		err = s.unmountDisks() // the container has them: one that it is rid of then is nobody's
	}
	if err == nil && s.spec.ShowNetwork {
		err = s.showNetwork()
	}
	if err != nil {
		return err
	}
	if s.spec.CountProcesses {
		s.countProcesses()
	}
	if err := s.learnMounts(); err != nil {
		return err
	}
	return s.run(pid)
}

// showNetwork shows the client the network namespace, and returns when it has
// done there what it wants. One that goes does not want the system any more.
func (s *shim) showNetwork() error {
	network, err := s.first.open(itsNetwork)
	if err != nil {
		return err
	}
	err = s.starting.Send(wire.Message{Type: wire.Network, Files: []int{int(network.Fd())}})
	if err = errors.Join(err, network.Close()); err != nil {
		return err
	}
	answered := make(chan error, 1)
	go func() {
		m, err := s.starting.Receive()
		wire.CloseFiles(m.Files)
		if err == nil && m.Type != wire.OK {
			err = fmt.Errorf("the client says %v where it should say %v", m.Type, wire.OK)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-s.first.ended:
		return errFirstEnded
	case <-s.ending:
		return errEnded
	}
}

// run says that the system runs, unless it is to end.
func (s *shim) run(pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping() {
		return errEnded
	}
	s.status.State, s.status.Pid, s.status.Started = wire.Running, pid, time.Now().UnixNano()
	s.events.tell(wire.Event{Kind: wire.EventStarted, Time: s.status.Started})
	return nil
}

// startTimeout bounds how long a starter may take.
const startTimeout = 60 * time.Second

// awaitAgent returns the first process's number when the agent has reported, or
// that the starter failed.
func (s *shim) awaitAgent(failed <-chan error) (int, error) {
	ready := make(chan error, 1)
	var pid int
	go func() {
		m, err := s.agent.Receive()
		wire.CloseFiles(m.Files)
		if err == nil && m.Type == wire.Error {
			ready <- refusal(m.Body)
			return
		}
		if err == nil && m.Type != wire.Ready {
			err = fmt.Errorf("the first process says %v where it should say %v", m.Type, wire.Ready)
		}
		pid = m.From
		ready <- err
	}()
	select {
	case err := <-failed:
		return 0, s.lastWord(ready, err)
	case err := <-ready:
		if _, ok := errors.AsType[*wire.Failure](err); ok {
			return 0, err
		}
		if err != nil {
			return 0, s.whyNot(failed, err)
		}
	case <-s.ending:
		return 0, errEnded
	case <-time.After(startTimeout):
		return 0, fmt.Errorf("the first process has not reported after %v", startTimeout)
	}
	return pid, s.first.found(pid)
}

// countProcesses has all processes that the agent starts from now on counted apart from it.
// Without that it is counted with them, and the limit has room for it.
func (s *shim) countProcesses() {
	join, err := s.cgroup.CountProcesses()
	if err == nil && join != nil {
		err = errors.Join(s.agent.Send(wire.Message{Type: wire.Join, Files: []int{int(join.Fd())}}), join.Close())
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) { // else the agent has ended, which others tell
		note("count processes", err)
	}
}

// errEnded is why a system does not start that a client has ended before it
// had.
var errEnded = errors.New("the system was ended while it started")

// lastWord prefers what an agent that makes the container itself has said to
// the mere end of it.
func (s *shim) lastWord(ready <-chan error, err error) error {
	select {
	case said := <-ready: // at once, where nobody has the agent's end any more
		if f, ok := errors.AsType[*wire.Failure](said); ok {
			return f
		}
	case <-time.After(2 * time.Second):
	}
	return err
}

// refusal is what an agent says that cannot make the container.
func refusal(body []byte) error {
	f := new(wire.Failure)
	if err := f.Decode(body); err != nil {
		return err
	}
	return f
}

// whyNot prefers what the starter says to the mere end of the connection: the
// one follows the other closely.
func (s *shim) whyNot(failed <-chan error, err error) error {
	select {
	case said := <-failed:
		return said
	case <-time.After(2 * time.Second):
		return fmt.Errorf("the first process ended before it reported: %w", err)
	}
}

// stop asks for the end of the system. The first reason counts; it is empty
// where a client or the main process's end asked for it.
func (s *shim) stop(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked(reason)
}

// stopLocked is stop with s.mu held.
func (s *shim) stopLocked(reason string) {
	select {
	case <-s.ending:
	default:
		s.status.Reason, s.status.State = reason, wire.Stopping
		close(s.ending)
		s.begun.Broadcast()
	}
}

// revoke ends a system whose client does not want it any more, and did not
// know yet that it runs. Where no process has been created it has never run.
func (s *shim) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = s.revoked || s.table.last == 0 && !s.stopping()
	s.stopLocked("")
}

// killTimeout bounds how long the kernel may take to end a container: one
// with a process in an uninterruptible wait does not end.
const killTimeout = 30 * time.Second

// takeDown kills what runs, waits until the last output is written, and
// removes what was made.
func (s *shim) takeDown() error {
	s.mu.Lock()
	frozen := s.frozen
	s.mu.Unlock()
	err := s.first.kill()
	if frozen {
		err = errors.Join(err, s.cgroup.Thaw())
	}
	select {
	case <-s.first.ended:
	case <-time.After(killTimeout):
		err = errors.Join(err, fmt.Errorf("the first process outlives SIGKILL for %v", killTimeout), s.cgroup.Kill(killTimeout))
	}
	err = errors.Join(err, s.agent.Close(), s.cgroup.UncountProcesses())
	s.noteOOM()
	s.endAll()
	s.relays.finish(patience)
	if err != nil {
		return errors.Join(err, s.undo(othersUnknown))
	}
	return s.undo(othersEnded)
}

// endAll ends the processes whose end the agent did not live to tell, and
// refuses those of which it did not tell that they began.
func (s *shim) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.main != nil { // which may never have begun, and is forgotten then
		s.status.ExitCode = wire.ByKill().Code()
	}
	for _, p := range s.table.live {
		if p.pid == 0 {
			s.refuse(p, tooLate())
		} else {
			s.end(p, wire.ByKill())
		}
	}
	if m := s.table.main; m != nil {
		s.status.ExitCode = m.exit.Code()
	}
}

// undo takes back what start did, as far as it came.
func (s *shim) undo(others othersState) error {
	return errors.Join(s.starter.undo(others), s.unmountDisks())
}

// bow leaves the last status behind, or, if all went well and nothing is to
// be kept, nothing; and tells those who wait.
//
// As long as there is a socket to connect to, nobody starts the system anew:
// it goes after all is written, and before anything is removed.
func (s *shim) bow(err error, l *wire.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.State, s.status.Ended = wire.Stopped, time.Now().UnixNano()
	s.status.Processes = s.table.statuses()
	if err != nil {
		s.status.Reason = err.Error()
	}
	if werr := errors.Join(s.log.close(), s.leaveStatus()); werr != nil {
		note("leave the status", werr)
	}
	logLine{Level: "INFO", Message: "stopped", ExitCode: &s.status.ExitCode, Reason: s.status.Reason}.write()
	s.events.tell(wire.Event{Kind: wire.EventExited, Time: s.status.Ended, Code: s.status.ExitCode, Reason: s.status.Reason})
	if rerr := s.stopListening(err, l); rerr != nil {
		note("stop listening", rerr)
	}
	if err == nil {
		s.remove()
	}
	if eerr := s.events.close(); eerr != nil {
		note("say that it ends", eerr)
	}
	m := wire.Message{Type: wire.StatusReply, Body: s.encodeStatus()}
	for _, w := range s.waiters {
		_ = w.SendNow(m)
	}
}

// remove removes what is not kept. Of a system that is as if it had not been
// started that is the run directory.
func (s *shim) remove() {
	for _, path := range s.spec.Remove {
		if s.revoked && path != s.spec.Dir+wire.Gone {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			note("remove what is not kept", err)
		}
	}
	if s.spec.Events.Ephemeral && !s.revoked {
		s.events.tell(wire.Event{Kind: wire.EventDeleted})
	}
}

// leaveStatus leaves the last status, or, of a system that has not been
// started, that from before. One that goes with the rest is left too: while that
// is being removed, and nobody answers any more, it is how the system ended.
func (s *shim) leaveStatus() error {
	if s.revoked {
		return s.before.restore()
	}
	return s.writeStatus()
}

// stopListening has nobody find the shim any more. The run directory goes in
// one step with the socket, so that what is removed later is not another's.
func (s *shim) stopListening(err error, l *wire.Listener) error {
	i := slices.Index(s.spec.Remove, s.spec.Dir)
	if err != nil || i < 0 {
		return l.Close()
	}
	gone := s.spec.Dir + wire.Gone
	err = errors.Join(os.RemoveAll(gone), os.Rename(s.spec.Dir, gone))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.spec.Remove[i] = gone
	return l.CloseMoved()
}
