package sys

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/testenv"
)

func newGroup(t *testing.T) *Cgroup {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.Cgroups)
	top := "/hcs-test-sys-" + strconv.Itoa(os.Getpid())
	c, err := NewCgroup(top + "/deep/group")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		all, err := NewCgroup(top)
		if err == nil {
			err = all.Remove()
		}
		if err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestMakeCgroup(t *testing.T) {
	c := newGroup(t)
	limits := CgroupLimits{Memory: 64 << 20, CPUQuota: 50_000, CPUPeriod: 100_000, Pids: 7 + AgentThreads}
	for range 2 { // the second time it is there
		if err := c.Make(limits); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range c.Dirs() {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			t.Error(err)
		}
	}
	s, err := meter(c)
	if err != nil || s.MemoryLimit != 64<<20 || s.PidsLimit != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	if c.h.v1["cpu"] != "" {
		text, err := os.ReadFile(c.file("cpu", "cpu.cfs_quota_us", ""))
		if err != nil || strings.TrimSpace(string(text)) != "50000" {
			t.Errorf("quota %q, %v", text, err)
		}
	}
	for name, l := range map[string]CgroupLimits{
		"quota":  {CPUQuota: 1, CPUPeriod: 1},
		"device": {Devices: []string{"x 1:3 rwm"}},
	} {
		if err := c.Make(l); err == nil || !strings.Contains(err.Error(), c.Path()) {
			t.Errorf("%s that makes no sense: %v", name, err)
		}
	}
}

// TestMakeInHalfMadeCgroup makes a group in one whose maker has come no further than to make directories.
func TestMakeInHalfMadeCgroup(t *testing.T) {
	c := newGroup(t)
	root := c.h.v1["cpuset"]
	if root == "" {
		t.Skip("cpusets are of version 2, where a new one can be joined")
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(root, c.Path())), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.Make(CgroupLimits{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if text, err := os.ReadFile(filepath.Join(root, c.Path(), name)); err != nil || strings.TrimSpace(string(text)) == "" {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
}

// TestRemoveEmptyCgroup removes a group again and again, while groups are made
// in it that have no process yet.
func TestRemoveEmptyCgroup(t *testing.T) {
	c := newGroup(t)
	parent, err := NewCgroup(filepath.Dir(c.Path()))
	if err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error)
	go func() {
		var errs []error
		for {
			select {
			case <-stop:
				ended <- errors.Join(errs...)
				return
			case <-time.After(100 * time.Microsecond): // which is often enough for a maker to meet it at any step
				errs = append(errs, parent.RemoveEmpty())
			}
		}
	}()
	for range 50 {
		if err := c.Make(CgroupLimits{}); err != nil {
			t.Error(err)
		}
		for _, dir := range c.Dirs() {
			if _, err := os.Stat(dir); err != nil {
				t.Error(err)
			}
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := errors.Join(<-ended, parent.RemoveEmpty()); err != nil {
		t.Error(err)
	}
	if parent.Exists() {
		t.Errorf("%s is still there", parent.Path())
	}
}

// TestJoinV1 starts a process from a thread in the group, and sees that the
// process that the thread is of stays where it is.
func TestJoinV1(t *testing.T) {
	c := newGroup(t)
	if err := c.Make(CgroupLimits{}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	OnThreadOfItsOwn(func() {
		if err = c.JoinV1(); err != nil {
			return
		}
		pid, err = syscall.ForkExec("/bin/sleep", []string{"sleep", "100"}, &syscall.ProcAttr{})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}()
	for name, dir := range c.V1Dirs() {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || !strings.Contains(string(text), strconv.Itoa(pid)+"\n") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if after, err := os.ReadFile("/proc/self/cgroup"); err != nil || string(after) != string(before) {
		t.Errorf("this process is in %s, %v, and was in %s", after, err, before)
	}
}

func TestParseDeviceRule(t *testing.T) {
	for _, text := range []string{
		"", "c", "c 1:3", "c 1:3 rwx", "d 1:3 r", "c 1 r", "c x:3 r", "c 1:-1 r", "c 1:2147483648 r", "c 1:3 r more",
	} {
		if r, err := parseDeviceRule(text); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
	}
	r, err := parseDeviceRule("b 8:* rm")
	want := deviceRule{
		kind: unix.BPF_DEVCG_DEV_BLOCK, access: unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_MKNOD, major: 8, anyMinor: true,
	}
	if err != nil || r != want {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestDeviceRulesV2 has the kernel run the program on devices that a process
// in a v2 group opens and makes.
func TestDeviceRulesV2(t *testing.T) {
	c := newGroup(t)
	if err := c.Make(CgroupLimits{}); err != nil {
		t.Fatal(err)
	}
	if c.h.unified == "" {
		return // and nothing to ask the program
	}
	dir := filepath.Join(c.h.unified, c.path)
	if err := attachDeviceRules(dir, []string{"c 1:3 rw", "c 1:5 r", "b *:* m", "c 5:* rwm"}); err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	temp := t.TempDir()
	for script, want := range map[string]bool{
		"echo x > /dev/null":                                true,
		"head -c 1 /dev/null":                               true,
		"head -c 1 /dev/zero >/dev/null":                    true,
		"echo x > /dev/zero":                                false,
		"head -c 1 /dev/full >/dev/null":                    false,
		"head -c 1 /dev/urandom >/dev/null":                 false,
		"mknod " + temp + "/block b 1 3":                    true,
		"mknod " + temp + "/tty c 5 0":                      true,
		"mknod " + temp + "/null c 1 3":                     false,
		"mknod " + temp + "/pipe p && rm " + temp + "/pipe": true,
	} {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		// The standard streams are pipes: os/exec would open /dev/null here, not there.
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%s: %v, %s; want success: %t", script, err, out, want)
		}
	}
	for range 2 { // the second time there is one program to replace again, not two
		if err := replaceDeviceRules(dir, []string{"c 1:3 rw", "c 1:7 r"}); err != nil {
			t.Fatal(err)
		}
		if programs, err := devicePrograms(int(group.Fd())); err != nil || len(programs) != 1 {
			t.Errorf("programs %v, %v", programs, err)
		}
	}
	for script, want := range map[string]bool{"head -c 1 /dev/full >/dev/null": true, "head -c 1 /dev/zero >/dev/null": false} {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%s, by other rules: %v, %s; want success: %t", script, err, out, want)
		}
	}
}

// TestOpenReadOnly has root write to a program by way of the mount.
func TestOpenReadOnly(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI)
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := OpenReadOnly(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if w, err := os.OpenFile(procFD(int(f.Fd())), os.O_WRONLY, 0); !strings.Contains(errText(err), "read-only") {
		t.Errorf("open for writing: %v, %v", w, err)
	}
	if _, err := OpenReadOnly(file + "x"); !os.IsNotExist(err) || !strings.Contains(err.Error(), file) {
		t.Errorf("what is missing: %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
