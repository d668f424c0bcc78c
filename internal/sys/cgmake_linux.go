package sys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Make makes the group in every hierarchy, and the groups above it that are
// missing, with these limits. What there is already is used.
func (c *Cgroup) Make(l CgroupLimits) error {
	if c.path == "" {
		return nil
	}
	for _, root := range c.h.dirs {
		if err := c.makeIn(root); err != nil {
			return c.wrap("make", err)
		}
	}
	if err := c.limit(l); err != nil {
		return c.wrap("limit", err)
	}
	return nil
}

// makeIn makes the group in one hierarchy. Mostly those above it are there.
// Somebody may be removing an empty one meanwhile.
func (c *Cgroup) makeIn(root string) error {
	const attempts = 100
	err := c.makeOne(root, filepath.Join(root, c.path))
	for n := 0; n < attempts && gone(err); n++ {
		dir := root
		for name := range strings.SplitSeq(strings.Trim(c.path, "/"), "/") {
			dir = filepath.Join(dir, name)
			if err = c.makeOne(root, dir); err != nil {
				break
			}
			c.shareCpuset(root, dir)
		}
	}
	return err
}

// makeOne makes a group in one that there is.
func (c *Cgroup) makeOne(root, dir string) error {
	if err := c.openUp(root, filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return c.inheritCpuset(root, dir)
}

// openUp makes the controllers of a v2 group available to the groups below it.
// One that it cannot is missed when a limit is to be set.
func (c *Cgroup) openUp(root, dir string) error {
	if root != c.h.unified {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(text)) {
		if slices.Contains(v2Controllers, controller) {
			_ = writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
		}
	}
	return nil
}

var v2Controllers = []string{"cpu", "cpuset", "io", "memory", "pids"}

// shareCpuset has the kernel give new groups below a v1 cpuset its processors
// and memory nodes (cgroup-v1/cgroups.rst, "clone_children"); where it does not,
// that is inheritCpuset's.
func (c *Cgroup) shareCpuset(root, dir string) {
	if root == c.h.v1["cpuset"] {
		_ = writeFile(filepath.Join(dir, "cgroup.clone_children"), "1")
	}
}

// inheritCpuset gives a new v1 cpuset, which nobody could join, its parent's
// processors and memory nodes.
func (c *Cgroup) inheritCpuset(root, dir string) error {
	if root != c.h.v1["cpuset"] {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(own)) != "" {
			if err != nil {
				return err
			}
			continue
		}
		parent := filepath.Dir(dir)
		parents, err := os.ReadFile(filepath.Join(parent, name))
		if err == nil && strings.TrimSpace(string(parents)) == "" && parent != root { // who has made it is not done
			if err = c.inheritCpuset(root, parent); err == nil {
				parents, err = os.ReadFile(filepath.Join(parent, name))
			}
		}
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, name), strings.TrimSpace(string(parents))); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes to a file of the kernel's, which takes it in one piece.
func writeFile(path, text string) error { return writeEach(path, []string{text}) }

// writeEach writes one text after the other to a file that takes one at a time.
func writeEach(path string, texts []string) error {
	if len(texts) == 0 {
		return nil
	}
	fd, err := OpenAt(CWD, path, syscall.O_WRONLY, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = Close(fd) }()
	for _, text := range texts {
		if _, err := retry(func() (int, error) { return syscall.Write(fd, []byte(text)) }); err != nil {
			return &os.PathError{Op: "write " + strconv.Quote(text) + " to", Path: path, Err: err}
		}
	}
	return nil
}

// JoinV1 moves the calling thread, to which its goroutine must be locked, into
// the group in every v1 hierarchy; what it starts is born there. It is not the
// process that is moved: whoever writes a process's number to cgroup.procs
// waits, on an idle machine, some 10 ms for the other processors, as the
// kernel keeps all processes from changing; a thread that moves itself keeps
// nobody (cgroup_procs_write_start in kernel/cgroup/cgroup.c, Linux 5.5).
func (c *Cgroup) JoinV1() error {
	if c.path == "" {
		return nil
	}
	for _, root := range c.h.dirs {
		if root == c.h.unified {
			continue
		}
		if err := writeFile(filepath.Join(root, c.path, "tasks"), "0"); err != nil {
			return c.wrap("join", err)
		}
	}
	return nil
}

// OpenUnified opens the group's directory in the v2 tree, for a process to be
// born in (CLONE_INTO_CGROUP). It is nil where there is no such tree.
func (c *Cgroup) OpenUnified() (*os.File, error) {
	if c.path == "" || c.h.unified == "" {
		return nil, nil
	}
	return os.Open(filepath.Join(c.h.unified, c.path))
}

// V1Dirs returns the group's directory in every v1 hierarchy, by the last name
// of where the hierarchy is mounted.
func (c *Cgroup) V1Dirs() map[string]string {
	dirs := make(map[string]string)
	for _, root := range c.h.dirs {
		if c.path != "" && root != c.h.unified {
			dirs[filepath.Base(root)] = filepath.Join(root, c.path)
		}
	}
	return dirs
}
