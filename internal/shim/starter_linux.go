package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/reap"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// A starter turns the plan into a running first process that is the agent, or
// stands for it, and undoes that. It is the one seam for other ways of
// isolation: what the rest of the shim knows of a container are the messages on
// its connection, the process that it can kill, and the control group that it
// can freeze and measure.
//
// A starter whose agent is on this kernel hands it its end of the connection as
// descriptor 3. One whose agent is not, in a virtual machine say, keeps that
// end and carries the messages there and back: their descriptors are streams
// of bytes, which it copies, but for a terminal's master, which it makes here.
// The process that the first message comes from, as the kernel tells it, is the
// one to kill: there it is the one that the machine ends with. The root is the
// starter's to make of wire.Root.
type starter interface {
	// start begins, and returns our end of the agent's connection. The agent
	// reports by itself; failed tells, at most once, that it never will.
	start() (agent *wire.Conn, failed <-chan error, err error)
	// undo takes away what start made, at any point: after the first process has
	// ended, and all others with it, or where none is known.
	undo(others othersState) error
}

// connectAgent returns both ends of a connection. Ours tells whom a message is
// from.
func connectAgent() (agent *wire.Conn, agentEnd *os.File, err error) {
	agent, agentEnd, err = wire.Pair()
	if err != nil {
		return nil, nil, err
	}
	if err := agent.ReceiveFrom(); err != nil {
		return nil, nil, errors.Join(err, agent.Close(), agentEnd.Close())
	}
	return agent, agentEnd, nil
}

// othersState says whether the container may still have processes.
type othersState uint8

const (
	othersUnknown othersState = iota
	othersEnded               // as they are when the first process of a pid namespace has ended
)

// ociRuntime starts the first process with an OCI runtime.
type ociRuntime struct {
	spec   *wire.Spec
	reaper *reap.Reaper
	cgroup *sys.Cgroup

	pid  int
	done chan struct{} // closed when the runtime's own process has ended
}

// stateDir is the runtime's own state, private to this one container: it goes
// with the run directory. That and taking the control groups away leaves
// nothing that the runtime's "delete" would have had to do, at a tenth of the
// time.
func (o *ociRuntime) stateDir() string { return filepath.Join(o.spec.Dir, "runtime") }

func (o *ociRuntime) logFile() string { return filepath.Join(o.spec.Dir, "runtime.log") }

func (o *ociRuntime) start() (_ *wire.Conn, _ <-chan error, err error) {
	agent, agentEnd, err := connectAgent()
	if err != nil {
		return nil, nil, err
	}
	failed := make(chan error, 1)
	err = errors.Join(o.begin(agentEnd, failed), agentEnd.Close())
	if err != nil {
		return nil, nil, errors.Join(err, agent.Close())
	}
	return agent, failed, nil
}

func (o *ociRuntime) begin(agentEnd *os.File, failed chan<- error) error {
	if err := mountRoot(o.spec); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	stderr, err := os.OpenFile(o.logFile()+".stderr", os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer stderr.Close()
	attr := &syscall.ProcAttr{
		Dir: o.spec.Dir, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true},
		Files: []uintptr{null.Fd(), null.Fd(), stderr.Fd(), agentEnd.Fd()},
	}
	o.done = make(chan struct{})
	ended := func(status syscall.WaitStatus, _ *syscall.Rusage) {
		close(o.done)
		if status != 0 {
			failed <- o.failure(status)
		}
	}
	if err := o.run(attr, ended); err != nil {
		o.done = nil
		return fmt.Errorf("start runtime %s: %w", o.spec.Runtime.Path, err)
	}
	return nil
}

// run starts the runtime, which is killed with the shim: else it would go on
// to make what nobody takes away. The kernel takes for its parent the thread
// that started it (prctl(2), PR_SET_PDEATHSIG), which is kept until it ends.
func (o *ociRuntime) run(attr *syscall.ProcAttr, ended reap.Ended) error {
	attr.Sys.Pdeathsig = syscall.SIGKILL
	begun := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := o.reaper.Start(o.spec.Runtime.Path, o.command(), attr, func(pid int) { o.pid = pid }, ended)
		begun <- err
		if err == nil {
			<-o.done
		}
	}()
	return <-begun
}

// command returns the runtime's command line.
func (o *ociRuntime) command() []string {
	argv := []string{
		filepath.Base(o.spec.Runtime.Path), "--root", o.stateDir(), "--log", o.logFile(), "--log-format", "json",
	}
	if o.spec.Cgroup == "" && o.spec.Runtime.Kind == "crun" {
		argv = append(argv, "--cgroup-manager", "disabled") // runc finds out by itself
	}
	return append(argv, "run", "--detach", "--preserve-fds", "1", "--bundle", o.spec.Dir, o.spec.ID)
}

// undo waits for the runtime's process first: it goes on for a moment after
// the first process runs. One whose container is not to be any more is not
// waited for.
func (o *ociRuntime) undo(others othersState) error {
	if o.done != nil {
		patience := 5 * time.Second
		if others == othersUnknown {
			patience = 0
		}
		select {
		case <-o.done:
		case <-time.After(patience):
			_ = o.reaper.Signal(o.pid, syscall.SIGKILL)
			<-o.done
		}
	}
	var err error
	if others == othersUnknown {
		err = o.cgroup.Kill(5 * time.Second)
	}
	return errors.Join(err, o.cgroup.Remove(), unmountRoot(o.spec))
}

// failure says what the runtime said: the last error of its log, or of its
// standard error.
func (o *ociRuntime) failure(status syscall.WaitStatus) error {
	said := lastError(o.logFile())
	if said == "" {
		said = lastLine(o.logFile() + ".stderr")
	}
	if said == "" {
		said = fmt.Sprintf("exit status %d", status.ExitStatus())
	}
	return fmt.Errorf("%s: %s", o.spec.Runtime.Kind, said)
}

func lastError(path string) string {
	text, _ := os.ReadFile(path)
	var said string
	for line := range bytes.Lines(text) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			said = entry.Msg
		}
	}
	return strings.Join(strings.Fields(said), " ")
}

func lastLine(path string) string {
	text, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// hideUnified puts an empty tmpfs over a v2 tree beside v1 hierarchies, in
// this mount namespace: crun gives up on machines that have both as soon as
// the v2 tree has any controller ("cgroups in hybrid mode not supported").
// Where there is none crun still makes its directories: they go with the
// tmpfs.
func hideUnified() error {
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified); err != nil {
		return nil
	}
	return sys.MountTmpfs(unified)
}
