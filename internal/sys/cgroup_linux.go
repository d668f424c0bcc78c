package sys

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is one path in every control group hierarchy of this machine: the
// v1 hierarchies, the v2 tree, or both (cgroups(7)).
type Cgroup struct {
	path string
	h    hierarchies
}

// hierarchies says where the controllers are mounted.
type hierarchies struct {
	dirs    []string          // every hierarchy, each once
	v1      map[string]string // controller → mount point
	unified string            // mount point of the v2 tree, or empty
}

// NewCgroup names the group at path, which starts with a slash. It need not
// exist. The empty path is for those who may have none: there is nothing to
// end or to remove then, and freezing and measuring fail with ErrNoCgroup.
func NewCgroup(path string) (*Cgroup, error) {
	if path == "" {
		return new(Cgroup), nil
	}
	h, err := mountedHierarchies()
	if err != nil {
		return nil, fmt.Errorf("find the control group hierarchies: %w", err)
	}
	return &Cgroup{path: filepath.Clean("/" + path), h: h}, nil
}

var mountedHierarchies = sync.OnceValues(func() (hierarchies, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return hierarchies{}, err
	}
	defer f.Close()
	h := hierarchies{v1: make(map[string]string)}
	for s := bufio.NewScanner(f); s.Scan(); {
		h.add(s.Text())
	}
	if len(h.v1) > 0 && h.covered() {
		h.dirs = slices.DeleteFunc(h.dirs, func(d string) bool { return d == h.unified })
		h.unified = ""
	}
	if len(h.dirs) == 0 {
		return h, errors.New("no cgroup file system is mounted")
	}
	return h, nil
})

// add takes one line of mountinfo (proc(5)): the mount point is its fifth
// field; after " - " come the type, the source and the super options, which
// for v1 name the controllers.
func (h *hierarchies) add(line string) {
	before, after, _ := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 5 || len(right) < 3 {
		return
	}
	dir := left[4]
	switch right[0] {
	case "cgroup2":
		h.unified = dir
	case "cgroup":
		for c := range strings.SplitSeq(right[2], ",") {
			h.v1[c] = dir
		}
	default:
		return
	}
	h.dirs = append(h.dirs, dir)
}

// covered reports whether something else is mounted over the v2 tree.
func (h *hierarchies) covered() bool {
	var st unix.Statfs_t
	return h.unified != "" && unix.Statfs(h.unified, &st) == nil && st.Type != unix.CGROUP2_SUPER_MAGIC
}

func (c *Cgroup) wrap(op string, err error) error {
	if c.path == "" {
		return fmt.Errorf("%s processes: %w", op, err)
	}
	return fmt.Errorf("%s control group %s: %w", op, c.path, err)
}

// Path returns the group's path below each hierarchy.
func (c *Cgroup) Path() string { return c.path }

// Dirs returns the group's directory in every hierarchy, whether it exists or
// not.
func (c *Cgroup) Dirs() []string {
	list := make([]string, len(c.h.dirs))
	for i, d := range c.h.dirs {
		list[i] = filepath.Join(d, c.path)
	}
	return list
}

// file returns the path of a file of the v1 controller, or of the v2 tree
// where that controller is not mounted as v1.
func (c *Cgroup) file(controller, v1, v2 string) string {
	if dir, ok := c.h.v1[controller]; ok {
		return filepath.Join(dir, c.path, v1)
	}
	return filepath.Join(c.h.unified, c.path, v2)
}

// Exists reports whether the group is there in any hierarchy.
func (c *Cgroup) Exists() bool {
	for _, dir := range c.Dirs() {
		if _, err := os.Lstat(dir); err == nil {
			return true
		}
	}
	return false
}

// Children returns the names of the groups below it.
func (c *Cgroup) Children() ([]string, error) {
	var names []string
	seen := make(map[string]bool)
	for _, dir := range c.Dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}

// Processes returns the processes in the group, by their numbers here.
func (c *Cgroup) Processes() ([]int, error) {
	seen := make(map[int]bool)
	var pids []int
	for _, dir := range c.Dirs() {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && !gone(err) {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err == nil && pid > 0 && !seen[pid] {
				seen[pid] = true
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// gone reports whether the error says that the group is not there (any more).
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) }

// Kill kills every process in the group, frozen ones too, and returns when
// none is left. It does not kill its own process, which has a thread there
// while it starts one (JoinV1).
func (c *Cgroup) Kill(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := c.Processes()
		if err != nil {
			return fmt.Errorf("kill control group %s: %w", c.path, err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if pid == os.Getpid() {
				continue
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
		}
		_ = c.setFrozen(thawed) // a frozen process dies when it is thawed
		if time.Now().After(deadline) {
			return fmt.Errorf("kill control group %s: %d processes outlive SIGKILL", c.path, len(pids))
		}
		time.Sleep(wait)
	}
}

// Remove removes the group, and the groups below it, from every hierarchy. A
// group that is not there is no error; one with processes in it is.
func (c *Cgroup) Remove() error {
	errs := []error{c.UncountProcesses()}
	for _, dir := range c.Dirs() {
		if err := removeGroup(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
	}
	return errors.Join(errs...)
}

// RemoveEmpty removes the group from every hierarchy where it has neither
// processes nor groups: those may be somebody's who is just making them.
func (c *Cgroup) RemoveEmpty() error {
	var errs []error
	for _, dir := range c.Dirs() {
		switch err := syscall.Rmdir(dir); err {
		case nil, syscall.ENOENT, syscall.EBUSY, syscall.ENOTEMPTY:
		default:
			errs = append(errs, fmt.Errorf("remove control group: %w", &os.PathError{Op: "rmdir", Path: dir, Err: err}))
		}
	}
	return errors.Join(errs...)
}

// removeGroup tries again for a moment: the kernel counts a process out of its
// group slightly after its parent has seen it end.
func removeGroup(dir string) error {
	deadline := time.Now().Add(time.Second)
	for wait := 100 * time.Microsecond; ; wait *= 2 {
		err := syscall.Rmdir(dir)
		if err == nil || err == syscall.ENOENT {
			return nil
		}
		if err == syscall.EBUSY {
			removeChildren(dir)
		}
		if err != syscall.EBUSY || time.Now().After(deadline) {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(wait)
	}
}

func removeChildren(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			child := filepath.Join(dir, e.Name())
			removeChildren(child)
			_ = syscall.Rmdir(child) // the parent's rmdir tells
		}
	}
}

type freezerState int

const (
	thawed freezerState = iota
	frozen
)

// Freeze stops every process in the group and returns when all have stopped.
func (c *Cgroup) Freeze(timeout time.Duration) error {
	if err := c.setFrozen(frozen); err != nil {
		return c.wrap("freeze", err)
	}
	deadline := time.Now().Add(timeout)
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		switch ok, err := c.isFrozen(); {
		case err != nil:
			return fmt.Errorf("freeze control group %s: %w", c.path, err)
		case ok:
			return nil
		case time.Now().After(deadline):
			return errors.Join(fmt.Errorf("freeze control group %s: not frozen after %v", c.path, timeout), c.setFrozen(thawed))
		}
		time.Sleep(wait)
	}
}

// Thaw lets the group's processes run again.
func (c *Cgroup) Thaw() error {
	if err := c.setFrozen(thawed); err != nil {
		return c.wrap("thaw", err)
	}
	return nil
}

func (c *Cgroup) setFrozen(s freezerState) error {
	if c.path == "" {
		return ErrNoCgroup
	}
	value := [...]string{thawed: "THAWED", frozen: "FROZEN"}[s]
	if _, v1 := c.h.v1["freezer"]; !v1 {
		value = strconv.Itoa(int(s))
	}
	return os.WriteFile(c.file("freezer", "freezer.state", "cgroup.freeze"), []byte(value), 0)
}

func (c *Cgroup) isFrozen() (bool, error) {
	text, err := os.ReadFile(c.file("freezer", "freezer.state", "cgroup.events"))
	if err != nil {
		return false, err
	}
	s := string(text)
	return strings.HasPrefix(s, "FROZEN") || strings.Contains(s, "frozen 1"), nil
}

// MayMakeCgroup reports whether this process may make the group at path, or
// groups in it if it exists, in every hierarchy.
func MayMakeCgroup(path string) bool {
	c, err := NewCgroup(path)
	if err != nil || path == "" {
		return false
	}
	for i, dir := range c.Dirs() {
		for dir != c.h.dirs[i] && unix.Access(dir, unix.F_OK) == unix.ENOENT {
			dir = filepath.Dir(dir)
		}
		if unix.Access(dir, unix.W_OK) != nil {
			return false
		}
	}
	return true
}

// HasV1Cgroups reports whether any v1 hierarchy is mounted.
func HasV1Cgroups() bool {
	h, err := mountedHierarchies()
	return err == nil && len(h.v1) > 0
}
