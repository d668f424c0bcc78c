package hcsshim_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostcompute/hcs/compat/hcsshim"
)

// TestLife is what docker's libcontainerd does with a container.
func TestLife(t *testing.T) {
	m := newMachine(t)
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	config := m.config(id)
	shared := m.TempDir()
	config.HostName = "web"
	config.LayerFolderPath = filepath.Join(m.HomeDir, id)
	config.MappedDirectories = []hcsshim.MappedDir{{HostPath: shared, ContainerPath: "/shared"}, {HostPath: shared, ContainerPath: "/fixed", ReadOnly: true}}
	config.MemoryMaximumInMB = 256
	c, err := hcsshim.CreateContainer(id, config)
	check(t, err)
	if _, err := hcsshim.CreateContainer(id, config); err == nil || !strings.Contains(err.Error(), "0xc037010f") {
		t.Errorf("created twice: %v", err)
	}
	list, err := hcsshim.GetContainers(hcsshim.ComputeSystemQuery{Owners: []string{"test"}, IDs: []string{id}})
	if err != nil || len(list) != 1 || list[0].State != "Created" || list[0].Owner != "test" || list[0].ID != id {
		t.Errorf("the list is %+v, %v", list, err)
	}
	check(t, c.Start())

	// The first process, with all streams.
	p := m.shell(c, "echo ready; read line; echo $line $(hostname) >/made; cp /made /shared/made; echo no >&2; touch /fixed/x; exit 3")
	in, out, errs, err := p.Stdio()
	check(t, err)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("it says %q, %v", line, err)
	}
	if _, err := p.ExitCode(); err == nil {
		t.Error("a process that runs has an exit code")
	} else {
		expect(t, "exit code", err, hcsshim.ErrInvalidProcessState)
	}
	expect(t, "wait", p.WaitTimeout(time.Millisecond), hcsshim.ErrTimeout)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := p.Wait(); err != nil {
				t.Errorf("wait: %v", err)
			}
		})
	}
	// The list has it.
	processes, err := c.ProcessList()
	if err != nil || !slices.ContainsFunc(processes, func(i hcsshim.ProcessListItem) bool { return int(i.ProcessId) == p.Pid() }) {
		t.Errorf("process %d is not in %+v, %v", p.Pid(), processes, err)
	}
	_, err = io.WriteString(in, "hello\n")
	check(t, errors.Join(err, in.Close()))
	wg.Wait()
	check(t, p.Wait())
	if code, err := p.ExitCode(); code != 3 || err != nil {
		t.Errorf("the exit code is %d, %v", code, err)
	}
	complaint, err := io.ReadAll(errs) // after the end
	if err != nil || !strings.HasPrefix(string(complaint), "no\n") || !strings.Contains(string(complaint), "Read-only") {
		t.Errorf("it complains %q, %v", complaint, err)
	}
	check(t, errors.Join(out.Close(), errs.Close(), p.Close(), p.Close()))
	if text, err := os.ReadFile(filepath.Join(shared, "made")); err != nil || string(text) != "hello web\n" {
		t.Errorf("it wrote %q, %v", text, err)
	}

	// A terminal, its size, and the end by force.
	p, err = c.CreateProcess(&hcsshim.ProcessConfig{
		CommandLine: `sh -c "stty size; read x; stty size; sleep 1000"`, EmulateConsole: true, ConsoleSize: [2]uint{24, 80},
		CreateStdInPipe: true, CreateStdOutPipe: true,
	})
	check(t, err)
	in, out, errs, err = p.Stdio()
	if err != nil || errs != nil {
		t.Errorf("stdio: %v, %v", errs, err)
	}
	terminal := bufio.NewReader(out)
	line, err = terminal.ReadString('\n')
	check(t, err)
	check(t, p.ResizeConsole(100, 40))
	_, err = io.WriteString(in, "\n")
	check(t, err)
	for err == nil && !strings.HasPrefix(line, "40 ") {
		var next string
		next, err = terminal.ReadString('\n')
		line += next
		if strings.HasPrefix(next, "40 100") {
			break
		}
	}
	if err != nil || !strings.HasPrefix(line, "24 80") {
		t.Errorf("the terminal says %q, %v", line, err)
	}
	check(t, p.Kill())
	check(t, p.Wait())
	if code, err := p.ExitCode(); code != 137 || err != nil {
		t.Errorf("killed: exit code %d, %v", code, err)
	}
	expect(t, "kill again", p.Kill(), hcsshim.ErrElementNotFound)
	check(t, errors.Join(in.Close(), out.Close(), p.Close()))

	// The program starts again and finds the container, and the process in it.
	p = m.shell(c, "read line; echo got $line; exit 5")
	if got := help(t, "restore", id, strconv.Itoa(p.Pid())); got != "got it 5" {
		t.Errorf("after a restart: %q", got)
	}
	check(t, p.Wait())
	check(t, p.Close())

	stats, err := c.Statistics()
	if err != nil || stats.Memory.UsageCommitBytes == 0 || stats.Processor.TotalRuntime100ns == 0 || stats.Uptime100ns == 0 {
		t.Errorf("statistics: %+v, %v", stats, err)
	}
	check(t, errors.Join(c.Pause(), c.Resume()))
	expect(t, "shutdown", c.Shutdown(), hcsshim.ErrVmcomputeOperationPending)
	check(t, c.WaitTimeout(time.Minute))
	check(t, c.Wait())
	expect(t, "shutdown again", c.Shutdown(), hcsshim.ErrVmcomputeAlreadyStopped)
	expect(t, "terminate", c.Terminate(), hcsshim.ErrVmcomputeAlreadyStopped)
	expect(t, "start again", c.Start(), hcsshim.ErrVmcomputeAlreadyStopped)
	check(t, c.Close())
	if _, err := hcsshim.OpenContainer(id); !hcsshim.IsNotExist(err) {
		t.Errorf("open what is gone: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(config.VolumePath, "made")); err != nil || string(text) != "hello web\n" {
		t.Errorf("its root has %q, %v", text, err)
	}
}

// restore is the program of TestLife after a restart.
func restore(args []string) error {
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := hcsshim.OpenContainer(args[0])
	if err != nil {
		return err
	}
	p, err := c.OpenProcess(pid)
	if err != nil {
		return err
	}
	in, out, _, err := p.Stdio()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(in, "it\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	code := 0
	if err == nil {
		err = p.Wait()
	}
	if err == nil {
		code, err = p.ExitCode()
	}
	fmt.Println(strings.TrimSpace(line), code)
	return errors.Join(err, p.Close(), c.Close())
}

func init() { helpers["restore"] = restore }
