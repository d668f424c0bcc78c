package agent

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hostcompute/hcs/internal/native"
	"github.com/hostcompute/hcs/internal/reap"
	"github.com/hostcompute/hcs/internal/wire"
)

// socket is the descriptor that the agent inherits.
const socket = 3

// Main runs the agent and returns its exit status.
func Main() int {
	if len(os.Args) > 1 && os.Args[1] == limitArgument {
		return becomeLimited(os.Args[2:])
	}
	conn := wire.NewBlockingConn(socket)
	switch {
	case len(os.Args) > 1 && os.Args[1] == wire.NativeArgument:
		if err := Build(conn); err != nil {
			f := wire.Failure{Text: err.Error()}
			_ = conn.Send(wire.Message{Type: wire.Error, Body: f.Encode()})
			return 1
		}
	case len(os.Args) > 1: // before protect, which takes away a signal that this needs
		if err := leaveCapabilities(os.Args[1]); err != nil {
			println("hcs-agent: take capabilities from processes:", err.Error())
			return 1
		}
	}
	if err := protect(); err != nil {
		println("hcs-agent: protect the first process:", err.Error())
		return 1
	}
	a := agent{conn: conn, pids: make(map[uint32]int)}
	a.reaper.Idle = a.idle
	go a.reaper.Run()
	if err := a.conn.Send(wire.Message{Type: wire.Ready}); err != nil {
		println("hcs-agent: report to the shim:", err.Error())
		return 1
	}
	return a.serve()
}

// Build makes the container, as the shim says.
func Build(conn *wire.Conn) error {
	if len(os.Args) > 2 {
		return native.LimitFiles(os.Args[2])
	}
	if err := native.CloseForeign(); err != nil {
		return err
	}
	m, err := conn.Receive()
	if err != nil {
		return err
	}
	var b wire.Build
	if err := b.Decode(m.Body); m.Type != wire.Make || err != nil {
		return wire.ErrMalformed
	}
	return native.Build(&b, func() ([]int, error) { return borrow(conn, b.Borrowed()) })
}

// borrow receives that many mounts.
func borrow(conn *wire.Conn, n int) ([]int, error) {
	var lent []int
	for len(lent) < n {
		m, err := conn.Receive()
		if err != nil {
			return nil, err
		}
		if m.Type != wire.Lend || len(m.Files) == 0 {
			return nil, wire.ErrMalformed
		}
		lent = append(lent, m.Files...)
	}
	return lent, nil
}

type agent struct {
	conn   *wire.Conn
	reaper reap.Reaper

	mu   sync.Mutex
	pids map[uint32]int // by the shim's number
	last bool           // there is to be no process after those that there are
}

// serve answers messages until the shim is gone.
func (a *agent) serve() int {
	for {
		m, err := a.conn.Receive()
		if err != nil {
			return 0
		}
		switch m.Type {
		case wire.Spawn:
			if f := a.spawn(m); f != nil {
				a.tell(wire.Message{Type: wire.Error, Seq: m.Seq, Body: f.Encode()})
			}
		case wire.Signal:
			a.signal(m)
		case wire.Shutdown:
			a.shutdown(m)
		case wire.Join:
			if err := join(m.Files); err != nil { // processes would not be counted
				println("hcs-agent: join the group of the processes:", err.Error())
				return 1
			}
		}
		wire.CloseFiles(m.Files)
	}
}

// join has the calling goroutine's thread, and what it starts from now on,
// counted in a control group that no other thread of this process is in. The
// goroutine keeps the thread, which costs it some hundred microseconds after
// each rest: the runtime takes who comes back from the kernel then for one that
// has run for long, and to have it yield is to wake other threads.
func join(files []int) error {
	if len(files) != 1 {
		return wire.ErrMalformed
	}
	runtime.LockOSThread()
	_, err := syscall.Write(files[0], []byte("0"))
	return err
}

// tell sends a message. Should the shim be gone, serve notices and ends all.
func (a *agent) tell(m wire.Message) { _ = a.conn.Send(m) }

// signal delivers a signal to a process. One that has ended meanwhile needs
// none, and its end has been told.
func (a *agent) signal(m wire.Message) {
	var r wire.SignalRequest
	if r.Decode(m.Body) != nil {
		return
	}
	a.mu.Lock()
	pid, ok := a.pids[m.Seq]
	a.mu.Unlock()
	if ok {
		_ = a.reaper.Signal(pid, syscall.Signal(r.Signal))
	}
}

// shutdown delivers a signal to everybody here, whoever started them, and has
// their end told.
func (a *agent) shutdown(m wire.Message) {
	var r wire.SignalRequest
	if r.Decode(m.Body) != nil {
		return
	}
	a.mu.Lock()
	a.last = true
	a.mu.Unlock()
	_ = syscall.Kill(-1, syscall.Signal(r.Signal)) // all but the first process itself; none is as good
	a.reaper.Recheck()
}

// idle is told that there is no process but this one.
func (a *agent) idle() {
	a.mu.Lock()
	last := a.last
	a.mu.Unlock()
	if last {
		a.tell(wire.Message{Type: wire.Idle})
	}
}

// protect takes the first process out of reach of what it will start: no
// descriptor is inherited, /proc/1 shows nothing to those without
// CAP_SYS_PTRACE, and signals have their default disposition, which for a
// first process means that the kernel drops those from inside
// (pid_namespaces(7)). The Go runtime's own handlers would make SIGTERM end
// it, and SIGCHLD wake it in vain. SIGURG stays the runtime's, which preempts
// with it.
func protect() error {
	// A mebibyte of garbage at the most, which is a few hundred processes': by
	// default it would be four.
	debug.SetGCPercent(25)
	syscall.CloseOnExec(socket)
	const prSetDumpable = 4
	if _, _, e := syscall.Syscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); e != 0 {
		return e
	}
	keepLimits()
	const lastSignal = 64
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		switch sig {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGURG:
			continue
		}
		if err := defaultAction(sig); err != nil {
			return err
		}
	}
	return nil
}

// keepLimits gives this process a saved group id of its own, as prlimit(2) is
// for those all of whose ids are the caller's: without open files, say, this
// process is of no use. A user namespace may not have the id; whoever is root
// there can end the container like this.
func keepLimits() {
	const same, nobody = -1, 65534
	_ = syscall.Setresgid(same, same, nobody)
}

// leaveCapabilities takes all capabilities but those of the mask, in
// hexadecimal, out of the bounding set: processes never get them, while this
// one, which has them already, keeps them (capabilities(7)).
func leaveCapabilities(mask string) error {
	keep, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return err
	}
	const prCapbsetRead, prCapbsetDrop = 23, 24
	for c := range uintptr(64) {
		if keep>>c&1 != 0 {
			continue
		}
		there, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prCapbsetRead, c, 0)
		if e == syscall.EINVAL {
			return nil // the kernel knows no more
		}
		if there == 0 {
			continue
		}
		if _, _, e := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, prCapbsetDrop, c, 0); e != 0 {
			return e
		}
	}
	return nil
}

func defaultAction(sig syscall.Signal) error {
	var action struct { // struct sigaction of the kernel; all zero is SIG_DFL
		handler, flags, restorer uintptr
		mask                     uint64
	}
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0,
		unsafe.Sizeof(action.mask), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
