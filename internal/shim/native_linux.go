package shim

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/reap"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// native starts the first process itself: the agent, born into its control
// groups and namespaces, makes the rest from inside (internal/native). It is
// born before the plan is there.
type native struct {
	birth  wire.Birth
	reaper *reap.Reaper
	cgroup *sys.Cgroup
	reaped func(pid int, status syscall.WaitStatus) // is told that the first process has been

	spec *wire.Spec // the plan, as soon as there is one

	agent  *wire.Conn
	pid    int
	done   chan struct{} // closed when the first process has ended
	failed chan error    // why it has
}

// bear starts the first process, which waits for what it is to make.
func (n *native) bear() error {
	agent, agentEnd, err := connectAgent()
	if err != nil {
		return err
	}
	defer agentEnd.Close() // so that the agent's end is the only one
	n.agent = agent
	// Through a mount that is read-only and nowhere attached: nobody in the
	// container can write to the agent's file by way of /proc/1/exe, whatever
	// capabilities it has.
	program, err := sys.OpenReadOnly(n.birth.Agent)
	if err != nil {
		return fmt.Errorf("open the agent's program: %w", err)
	}
	defer program.Close()
	sys.OnThreadOfItsOwn(func() { err = n.clone(program, agentEnd) })
	return err
}

func (n *native) start() (*wire.Conn, <-chan error, error) {
	err := n.instruct()
	if errors.Is(err, syscall.EPIPE) { // the first process has ended, and failed tells why
		err = nil
	}
	return n.agent, n.failed, err
}

// instruct tells the first process what to make, and gives it what the
// container is made of.
func (n *native) instruct() error {
	var users *os.File
	if n.birth.IDs != nil {
		var err error
		if users, err = sys.OpenUserNamespace(n.pid); errors.Is(err, os.ErrNotExist) {
			return syscall.EPIPE
		} else if err != nil {
			return fmt.Errorf("open the user namespace: %w", err)
		}
		defer users.Close()
	}
	if err := n.agent.Send(wire.Message{Type: wire.Make, Body: n.spec.Native.Build}); err != nil {
		return fmt.Errorf("tell the first process what to make: %w", err)
	}
	return lend(n.agent, n.spec, users)
}

// clone starts the first process. The calling thread is of no other use
// afterwards: it is in the container's control groups.
func (n *native) clone(program, agentEnd *os.File) error {
	err := errors.Join(n.cgroup.JoinV1(), sys.JoinNewSessionKeyring("hcs-"+n.birth.ID), sys.BoundPrograms(n.birth.Bounding))
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	group, err := n.cgroup.OpenUnified()
	if err != nil {
		return fmt.Errorf("open the control group: %w", err)
	}
	attr := &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/"}, Sys: n.attributes(),
		Files: []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd(), agentEnd.Fd()},
	}
	if group != nil {
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	n.done, n.failed = make(chan struct{}), make(chan error, 1)
	ended := func(status syscall.WaitStatus, _ *syscall.Rusage) {
		close(n.done)
		n.failed <- fmt.Errorf("the first process ended before it reported, with %s", outcome(status))
		n.reaped(n.pid, status)
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(program.Fd()))
	begin := func() error {
		return n.reaper.Start(path, n.birth.Args, attr, func(pid int) { n.pid = pid }, ended)
	}
	err = begin()
	if errors.Is(err, syscall.EACCES) && attr.Sys.UseCgroupFD && sys.HasV1Cgroups() {
		// Whoever was given control groups may not be able to leave the v2 group
		// it is in for them. Beside v1 hierarchies that tree limits nothing.
		attr.Sys.UseCgroupFD = false
		err = begin()
	}
	if err != nil {
		n.done = nil
		return fmt.Errorf("start the first process: %w", err)
	}
	return nil
}

// attributes says what the first process is born with. Its control group
// namespace comes later: this one's would be that of the group it leaves.
func (n *native) attributes() *syscall.SysProcAttr {
	flags := syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	if n.birth.Network {
		flags |= syscall.CLONE_NEWNET
	}
	attr := &syscall.SysProcAttr{
		Setsid: true, Cloneflags: uintptr(flags),
		Credential: &syscall.Credential{NoSetGroups: groupsAreFixed()},
	}
	if ids := n.birth.IDs; ids != nil {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: int(ids.First), Size: int(ids.Size)}}
		attr.GidMappings, attr.GidMappingsEnableSetgroups = attr.UidMappings, true
	}
	return attr
}

// groupsAreFixed reports whether the kernel lets nobody here set supplementary
// groups (user_namespaces(7)).
func groupsAreFixed() bool {
	text, _ := os.ReadFile("/proc/self/setgroups")
	return string(text) == "deny\n"
}

func outcome(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal " + strconv.Itoa(int(status.Signal()))
	}
	return "status " + strconv.Itoa(status.ExitStatus())
}

func (n *native) undo(others othersState) error {
	var err error
	if others == othersUnknown {
		err = errors.Join(n.kill(), n.cgroup.Kill(5*time.Second))
	}
	return errors.Join(err, n.cgroup.Remove())
}

// kill ends the first process, if it runs, and all others with it.
func (n *native) kill() error {
	if n.done == nil {
		return nil
	}
	_ = n.reaper.Signal(n.pid, syscall.SIGKILL) // reaped already is as good
	select {
	case <-n.done:
		return nil
	case <-time.After(killTimeout):
		return fmt.Errorf("the first process outlives SIGKILL for %v", killTimeout)
	}
}
