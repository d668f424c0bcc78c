package hcsshim_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
)

// containerCalls are all methods of a Container but Close.
func containerCalls(c hcsshim.Container) map[string]func() error {
	return map[string]func() error{
		"Start": c.Start, "Shutdown": c.Shutdown, "Terminate": c.Terminate, "Wait": c.Wait, "Pause": c.Pause, "Resume": c.Resume,
		"WaitTimeout":        func() error { return c.WaitTimeout(time.Minute) },
		"HasPendingUpdates":  func() error { _, err := c.HasPendingUpdates(); return err },
		"Statistics":         func() error { _, err := c.Statistics(); return err },
		"ProcessList":        func() error { _, err := c.ProcessList(); return err },
		"MappedVirtualDisks": func() error { _, err := c.MappedVirtualDisks(); return err },
		"CreateProcess": func() error {
			_, err := c.CreateProcess(&hcsshim.ProcessConfig{CommandLine: "true"})
			return err
		},
		"OpenProcess": func() error { _, err := c.OpenProcess(1 << 30); return err },
		"Modify": func() error {
			return c.Modify(&hcsshim.ResourceModificationRequestResponse{Resource: hcsshim.Network, Request: hcsshim.Add})
		},
	}
}

// processCalls are all methods of a Process but Pid and Close.
func processCalls(p hcsshim.Process) map[string]func() error {
	return map[string]func() error{
		"Kill": p.Kill, "Wait": p.Wait, "CloseStdin": p.CloseStdin,
		"WaitTimeout":   func() error { return p.WaitTimeout(time.Minute) },
		"ExitCode":      func() error { _, err := p.ExitCode(); return err },
		"ResizeConsole": func() error { return p.ResizeConsole(80, 24) },
		"Stdio":         func() error { _, _, _, err := p.Stdio(); return err },
	}
}

// TestClose closes handles: what waits is told, what is called later is refused, and what they stand for goes on.
func TestClose(t *testing.T) {
	m := newMachine(t)
	c := m.running("web")
	p := m.shell(c, "sleep 1000")
	pid := p.Pid()
	var wg sync.WaitGroup
	waits := []func() error{
		c.Wait, p.Wait, func() error { return c.WaitTimeout(time.Minute) }, func() error { return p.WaitTimeout(time.Minute) },
	}
	began := make(chan struct{}, len(waits))
	for _, wait := range waits {
		wg.Go(func() {
			began <- struct{}{}
			err := wait()
			if !errors.Is(err, hcsshim.ErrHandleClose) && !errors.Is(err, hcsshim.ErrAlreadyClosed) { // it may be late
				t.Errorf("a wait that is going on: %v", err)
			}
		})
	}
	for range waits {
		<-began
	}
	for range 2 {
		check(t, errors.Join(p.Close(), c.Close()))
	}
	wg.Wait()
	for name, call := range containerCalls(c) {
		expect(t, name, call(), hcsshim.ErrAlreadyClosed)
	}
	for name, call := range processCalls(p) {
		expect(t, name, call(), hcsshim.ErrAlreadyClosed)
	}
	if p.Pid() != pid {
		t.Errorf("the closed process is %d, was %d", p.Pid(), pid)
	}
	again, err := hcsshim.OpenContainer("web")
	check(t, err)
	if p, err = again.OpenProcess(pid); err != nil {
		t.Fatal(err)
	}
	check(t, p.Kill())
	check(t, p.Wait())
	check(t, errors.Join(p.Close(), ended(again), again.Close()))
}

// TestPendingWait closes a handle while it surely waits.
func TestPendingWait(t *testing.T) {
	m := newMachine(t)
	m.running("web")
	for delay := 50 * time.Millisecond; ; delay *= 2 {
		c, err := hcsshim.OpenContainer("web")
		check(t, err)
		done := make(chan error)
		go func() { done <- c.Wait() }()
		select {
		case err := <-done:
			t.Fatalf("the wait is over: %v", err)
		case <-time.After(delay):
		}
		check(t, c.Close())
		if err = <-done; hcsshim.IsAlreadyClosed(err) && delay < testenv.Patience {
			continue // it has not even begun
		}
		expect(t, "wait", err, hcsshim.ErrHandleClose)
		return
	}
}

// TestStates makes the calls that a container's state does not allow.
func TestStates(t *testing.T) {
	m := newMachine(t)
	c := m.created("web")
	other, err := hcsshim.OpenContainer("web")
	check(t, err)
	for _, name := range []string{"Shutdown", "Pause", "Resume", "Statistics", "ProcessList", "CreateProcess", "OpenProcess", "Modify"} {
		expect(t, name+" of a created container", containerCalls(c)[name](), hcsshim.ErrVmcomputeOperationInvalidState)
	}
	expect(t, "wait", c.WaitTimeout(time.Millisecond), hcsshim.ErrTimeout)
	check(t, c.Start())
	expect(t, "start twice", c.Start(), hcsshim.ErrVmcomputeOperationInvalidState)
	expect(t, "no such process", containerCalls(c)["OpenProcess"](), hcsshim.ErrElementNotFound)
	if pending, err := c.HasPendingUpdates(); pending || err != nil {
		t.Errorf("updates: %v, %v", pending, err)
	}
	if disks, err := c.MappedVirtualDisks(); len(disks) > 0 || err != nil {
		t.Errorf("disks: %v, %v", disks, err)
	}
	err = c.Modify(&hcsshim.ResourceModificationRequestResponse{Resource: "Licensing", Request: hcsshim.Add})
	if !hcsshim.IsNotSupported(err) || !strings.Contains(err.Error(), "Licensing") {
		t.Errorf("modify: %v", err)
	}
	if err := containerCalls(c)["Modify"](); err == nil || !strings.Contains(err.Error(), "0x57") {
		t.Errorf("an endpoint without an id: %v", err)
	}
	_, err = c.CreateProcess(&hcsshim.ProcessConfig{CommandLine: "nothing-like-it"})
	if hcsshim.IsNotExist(err) || !strings.Contains(err.Error(), "0x2)") {
		t.Errorf("a program that there is not: %v", err)
	}
	_, err = c.CreateProcess(nil)
	if err == nil || !strings.Contains(err.Error(), "CommandLine") {
		t.Errorf("no configuration: %v", err)
	}
	p := m.shell(c, "exit 7")
	check(t, p.Wait())
	expect(t, "kill", p.Kill(), hcsshim.ErrElementNotFound)
	check(t, p.CloseStdin())
	check(t, p.Close())
	check(t, c.Pause())
	expect(t, "a process of a paused container", containerCalls(c)["CreateProcess"](), hcsshim.ErrVmcomputeOperationInvalidState)
	expect(t, "terminate", c.Terminate(), hcsshim.ErrVmcomputeOperationPending)
	check(t, errors.Join(c.Wait(), c.Wait(), other.Wait()))
	for name, call := range containerCalls(c) {
		if name == "Wait" || name == "WaitTimeout" || name == "HasPendingUpdates" || name == "MappedVirtualDisks" {
			check(t, call())
			continue
		}
		expect(t, name+" of a stopped container", call(), hcsshim.ErrVmcomputeAlreadyStopped)
	}
	check(t, other.Close())
	for _, err := range []error{second(hcsshim.OpenContainer("web")), second(hcsshim.OpenContainer("we")), second(hcsshim.OpenContainer(""))} {
		if !hcsshim.IsNotExist(err) {
			t.Errorf("open what there is not: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestNoTime has others at work on a container for longer than there is time to start, to pause and to resume it.
func TestNoTime(t *testing.T) {
	m := newMachine(t)
	c := m.created("web")
	release := holdRecords(t)
	t.Setenv("HCSSHIM_TIMEOUT_SYSTEMSTART", "1")
	expect(t, "start", c.Start(), hcsshim.ErrTimeout)
	release()
	t.Setenv("HCSSHIM_TIMEOUT_SYSTEMSTART", "")
	check(t, c.Start())
	shim := shimOf(t, "web")
	check(t, syscall.Kill(shim, syscall.SIGSTOP))
	t.Setenv("HCSSHIM_TIMEOUT_SYSTEMPAUSE", "1")
	expect(t, "pause", c.Pause(), hcsshim.ErrTimeout)
	t.Setenv("HCSSHIM_TIMEOUT_SYSTEMRESUME", "1")
	expect(t, "resume", c.Resume(), hcsshim.ErrTimeout)
	check(t, syscall.Kill(shim, syscall.SIGCONT))
	check(t, ended(c))
}

// holdRecords takes the locks of all containers, but for those that this program has itself, as their creator.
func holdRecords(t *testing.T) (release func()) {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(os.Getenv("HCS_RUN"), "locks", "*"))
	check(t, err)
	var held []*os.File
	for _, name := range locks {
		if strings.HasSuffix(name, ".creator") {
			continue
		}
		f, err := os.Open(name)
		check(t, err)
		check(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
		held = append(held, f)
	}
	return func() {
		for _, f := range held {
			check(t, f.Close())
		}
	}
}

// TestNeverStarted ends a container that has never run: Wait returns for all who have it open.
func TestNeverStarted(t *testing.T) {
	m := newMachine(t)
	c := m.created("web")
	other, err := hcsshim.OpenContainer("web")
	check(t, err)
	expect(t, "terminate", c.Terminate(), hcsshim.ErrVmcomputeOperationPending)
	check(t, errors.Join(c.Wait(), other.WaitTimeout(time.Minute)))
	expect(t, "terminate again", c.Terminate(), hcsshim.ErrVmcomputeAlreadyStopped)
	check(t, other.Close())
}

// TestStartedElsewhere waits for a container that another handle starts and ends.
func TestStartedElsewhere(t *testing.T) {
	m := newMachine(t)
	c := m.created("web")
	other, err := hcsshim.OpenContainer("web")
	check(t, err)
	check(t, c.Start())
	check(t, ended(c))
	check(t, other.WaitTimeout(time.Minute))
	check(t, other.Close())
}

// TestStartedByAnother waits for containers that another program starts and ends, much later. They are told by the service's
// events; closing one of the handles leaves the others.
func TestStartedByAnother(t *testing.T) {
	m := newMachine(t)
	var waiting []hcsshim.Container
	for _, id := range []string{"a", "b", "c"} {
		waiting = append(waiting, m.created(id))
	}
	expect(t, "wait", waiting[0].WaitTimeout(300*time.Millisecond), hcsshim.ErrTimeout) // they follow by now
	check(t, waiting[2].Close())
	help(t, "pass", "b")
	check(t, waiting[1].WaitTimeout(time.Minute))
	expect(t, "wait for the first", waiting[0].WaitTimeout(time.Millisecond), hcsshim.ErrTimeout)
	help(t, "pass", "a")
	check(t, waiting[0].WaitTimeout(time.Minute))
	last, err := hcsshim.OpenContainer("c") // nobody followed any more
	check(t, err)
	expect(t, "wait for the last", last.WaitTimeout(300*time.Millisecond), hcsshim.ErrTimeout)
	help(t, "pass", "c")
	check(t, errors.Join(last.WaitTimeout(time.Minute), last.Close()))
}

// pass is a program that starts a container and ends it.
func pass(args []string) error {
	c, err := hcsshim.OpenContainer(args[0])
	if err != nil {
		return err
	}
	return errors.Join(c.Start(), ended(c), c.Close())
}

func init() { helpers["pass"] = pass }

// TestLastHandle has programs die that have the only handles of a container.
func TestLastHandle(t *testing.T) {
	m := newMachine(t)
	config := m.config("web")
	config.TerminateOnLastHandleClosed = true
	c, err := hcsshim.CreateContainer("web", config)
	check(t, err)
	check(t, c.Start())
	holder := exec.CommandContext(t.Context(), os.Args[0], "web")
	holder.Env, holder.Stderr = append(os.Environ(), helper+"=hold"), os.Stderr
	out, err := holder.StdoutPipe()
	check(t, errors.Join(err, holder.Start()))
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other program says %q, %v", line, err)
	}
	check(t, c.Close())
	again, err := hcsshim.OpenContainer("web")
	check(t, err)
	m.output(again, "true") // the other one's handle holds it
	check(t, again.Close())
	check(t, holder.Process.Kill())
	_ = holder.Wait()
	stopped(t, "web")
	if _, err := hcsshim.OpenContainer("web"); !hcsshim.IsNotExist(err) {
		t.Errorf("the container is there: %v", err)
	}
}

// hold has a handle until it is killed.
func hold(args []string) error {
	c, err := hcsshim.OpenContainer(args[0])
	if err != nil {
		return err
	}
	if _, err := fmt.Println("open"); err != nil {
		return err
	}
	testenv.AwaitKill(c)
	return nil
}

func init() { helpers["hold"] = hold }

// TestStdio reads, writes and closes streams in every way.
func TestStdio(t *testing.T) {
	m := newMachine(t)
	c := m.running("web")

	// None was asked for.
	p, err := c.CreateProcess(&hcsshim.ProcessConfig{CommandLine: "true"})
	check(t, err)
	in, out, errs, err := p.Stdio()
	if in != nil || out != nil || errs != nil || err != nil {
		t.Errorf("streams that there are not: %v, %v, %v, %v", in, out, errs, err)
	}
	check(t, errors.Join(p.Wait(), p.Close()))

	// More than a pipe holds, and closing the pipe ends the input.
	p = m.shell(c, "cat; echo end")
	in, out, _, err = p.Stdio()
	check(t, err)
	text := strings.Repeat("0123456789abcdef", 1<<16)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.WriteString(in, text)
		if err = errors.Join(err, in.Close()); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	got, err := io.ReadAll(out)
	wg.Wait()
	if err != nil || string(got) != text+"end\n" {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	check(t, errors.Join(out.Close(), p.Wait(), p.Close()))

	// CloseStdin ends it too, whoever has the other end open. What was written is there after the end.
	p = m.shell(c, "cat; echo end >&2")
	in, out, errs, err = p.Stdio()
	check(t, err)
	_, err = io.WriteString(in, "first")
	check(t, errors.Join(err, p.CloseStdin(), p.Wait()))
	got, err = io.ReadAll(io.MultiReader(out, errs))
	if err != nil || string(got) != "firstend\n" {
		t.Errorf("after the end: %q, %v", got, err)
	}
	if _, err := io.WriteString(in, "late"); err == nil {
		t.Error("something takes what is written after the end")
	}
	check(t, errors.Join(in.Close(), in.Close(), out.Close(), errs.Close(), p.Close()))

	// What somebody leaves running in the background holds nobody up.
	p = m.shell(c, "sleep 1000 & echo started")
	check(t, p.WaitTimeout(time.Minute))
	_, out, _, err = p.Stdio()
	check(t, err)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		t.Errorf("it says %q, %v", line, err)
	}
	if code, err := p.ExitCode(); code != 0 || err != nil {
		t.Errorf("the exit code is %d, %v", code, err)
	}
	check(t, errors.Join(out.Close(), p.Close()))

	// Streams that nobody asks for.
	p = m.shell(c, "echo x; echo y >&2")
	check(t, errors.Join(p.Wait(), p.Close()))
}
