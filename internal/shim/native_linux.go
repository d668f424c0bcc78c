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
// groups and namespaces, makes the rest from inside (internal/native).
type native struct {
	spec   *wire.Spec
	reaper *reap.Reaper
	cgroup *sys.Cgroup
	reaped func(pid int, status syscall.WaitStatus) // is told that the first process has been

	pid  int
	done chan struct{} // closed when the first process has ended
}

func (n *native) start(agent *wire.Conn, agentEnd *os.File, failed func(error)) error {
	defer agentEnd.Close()
	// Through a mount that is read-only and nowhere attached: nobody in the
	// container can write to the agent's file by way of /proc/1/exe, whatever
	// capabilities it has.
	program, err := sys.OpenReadOnly(n.spec.Native.Agent)
	if err != nil {
		return fmt.Errorf("open the agent's program: %w", err)
	}
	defer program.Close()
	sys.OnThreadOfItsOwn(func() { err = n.clone(program, agentEnd, failed) })
	if err != nil {
		return err
	}
	if err := agentEnd.Close(); err != nil { // so that the agent's end is the only one
		return err
	}
	err = n.instruct(agent)
	if errors.Is(err, syscall.EPIPE) { // the first process has ended, and failed tells why
		return nil
	}
	return err
}

// instruct gives the first process, while it begins, what the container is
// made of, and tells it to make it.
func (n *native) instruct(agent *wire.Conn) error {
	var users *os.File
	if n.spec.Native.IDs != nil {
		var err error
		if users, err = sys.OpenUserNamespace(n.pid); errors.Is(err, os.ErrNotExist) {
			return syscall.EPIPE
		} else if err != nil {
			return fmt.Errorf("open the user namespace: %w", err)
		}
		defer users.Close()
	}
	if err := lend(agent, n.spec, users); err != nil {
		return err
	}
	if err := agent.Send(wire.Message{Type: wire.Make, Body: n.spec.Native.Build}); err != nil {
		return fmt.Errorf("tell the first process what to make: %w", err)
	}
	return nil
}

// clone starts the first process. The calling thread is of no other use
// afterwards: it is in the container's control groups.
func (n *native) clone(program, agentEnd *os.File, failed func(error)) error {
	err := errors.Join(n.cgroup.JoinV1(), sys.JoinNewSessionKeyring("hcs-"+n.spec.ID), sys.BoundPrograms(n.spec.Native.Bounding))
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
	n.done = make(chan struct{})
	ended := func(status syscall.WaitStatus, _ *syscall.Rusage) {
		close(n.done)
		failed(fmt.Errorf("the first process ended before it reported, with %s", outcome(status)))
		n.reaped(n.pid, status)
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(program.Fd()))
	begin := func() error {
		return n.reaper.Start(path, n.spec.Native.Args, attr, func(pid int) { n.pid = pid }, ended)
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
	if n.spec.Native.Network {
		flags |= syscall.CLONE_NEWNET
	}
	attr := &syscall.SysProcAttr{
		Setsid: true, Cloneflags: uintptr(flags),
		Credential: &syscall.Credential{NoSetGroups: groupsAreFixed()},
	}
	if ids := n.spec.Native.IDs; ids != nil {
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
