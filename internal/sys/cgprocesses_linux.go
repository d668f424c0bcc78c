package sys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Where a system's processes are limited they are counted in a group of their
// own below the system's, in the hierarchy of the pids controller alone: the
// agent, all threads of which but one are not in it, takes nothing from the
// limit, and has room for threads when processes have used it up. The one thread
// is that which starts the processes, which are born where it is.

// processesDir is the name of that group.
const processesDir = "processes"

// spawners is how many threads of the agent are counted with the processes.
const spawners = 1

// CountProcesses makes the group of the system's processes, with the limit that
// the system's group has, less what that allows the agent. It returns the file
// by which the agent's thread joins: it writes "0" there (cgroups(7); cgroup-v2.rst,
// "Threads"). It is nil where nothing is counted.
func (c *Cgroup) CountProcesses() (*os.File, error) {
	dir := c.processes()
	if dir == "" {
		return nil, nil
	}
	join, err := c.countProcesses(dir)
	if err != nil {
		return nil, errors.Join(c.wrap("count the processes of", err), c.UncountProcesses())
	}
	return join, nil
}

func (c *Cgroup) countProcesses(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if !c.countsV1() {
		if err := writeFile(filepath.Join(dir, "cgroup.type"), "threaded"); err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"), "+pids"); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "pids.max"))
	if err != nil {
		return nil, err
	}
	if n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil {
		if err := writeFile(filepath.Join(dir, "pids.max"), processesLimit(n)); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(filepath.Join(dir, c.tasks()), os.O_WRONLY, 0)
}

// countsV1 reports whether a v1 hierarchy has the controller.
func (c *Cgroup) countsV1() bool {
	_, v1 := c.h.v1["pids"]
	return v1
}

// tasks is the name of the file that has the threads which are in a group.
func (c *Cgroup) tasks() string {
	if c.countsV1() {
		return "tasks"
	}
	return "cgroup.threads"
}

// CountRunning moves what is in the system's group into that of the processes:
// all but the process agent. New ones may come meanwhile, though not many if
// there is a limit on those that there are.
func (c *Cgroup) CountRunning(agent int) error {
	dir, ok := c.countsProcesses()
	if !ok {
		return nil
	}
	const attempts = 1000
	for range attempts {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), c.tasks()))
		if err != nil {
			return c.wrap("count the processes of", err)
		}
		moved, err := moveTasks(text, filepath.Join(dir, "cgroup.procs"), agent)
		if err != nil || moved == 0 {
			return err
		}
	}
	return fmt.Errorf("count the processes of control group %s: they multiply", c.path)
}

// moveTasks moves the processes that have one of the threads, and returns how
// many threads it found.
func moveTasks(tasks []byte, to string, agent int) (found int, err error) {
	for task := range strings.FieldsSeq(string(tasks)) {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/task/%s", agent, task)); err == nil {
			continue
		}
		found++
		if err := writeFile(to, task); err != nil && !errors.Is(err, syscall.ESRCH) { // which has ended
			return found, err
		}
	}
	return found, nil
}

// processes is the directory of the group of the system's processes, or empty
// where there can be none.
func (c *Cgroup) processes() string {
	if c.path == "" {
		return ""
	}
	group := filepath.Dir(c.file("pids", "pids.max", "pids.max"))
	if _, err := os.Lstat(filepath.Join(group, "pids.max")); err != nil { // v2 without the controller, or no group
		return ""
	}
	return filepath.Join(group, processesDir)
}

// processesLimit is the limit of that group where the system's has this one.
func processesLimit(n int64) string {
	if n == 0 {
		return none
	}
	return strconv.FormatInt(max(0, n-AgentThreads)+spawners, 10)
}

// countsProcesses returns the directory of the group if it is there.
func (c *Cgroup) countsProcesses() (dir string, ok bool) {
	if dir = c.processes(); dir == "" {
		return "", false
	}
	_, err := os.Lstat(dir)
	return dir, err == nil
}

// UncountProcesses removes the group, which nobody may be in any more. Who
// removes the system's group does that, too.
func (c *Cgroup) UncountProcesses() error {
	dir, ok := c.countsProcesses()
	if !ok {
		return nil
	}
	if err := removeGroup(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return c.wrap("remove the processes of", err)
	}
	return nil
}
