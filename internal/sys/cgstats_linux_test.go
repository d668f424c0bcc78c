package sys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestStatsV2 reads files as a kernel with the v2 controllers has them: those
// of this machine may all be v1's.
func TestStatsV2(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"memory.current": "5242880\n", "memory.peak": "6291456\n", "memory.max": "67108864\n",
		"memory.stat":   "anon 1048576\nfile 2097152\ninactive_file 524288\nactive_file 4096\n",
		"memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
		"cpu.stat":      "usage_usec 3000\nuser_usec 1000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 55\n",
		"pids.current":  "4\n", "pids.max": "max\n",
		"io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=0 rios=1 wios=0\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "group"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "group", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &Cgroup{path: "/group", h: hierarchies{dirs: []string{dir}, unified: dir}}
	got, err := meter(c)
	if err != nil {
		t.Fatal(err)
	}
	want := CgroupStats{
		MemoryUsage: 5 << 20, MemoryPeak: 6 << 20, MemoryLimit: 64 << 20, MemoryCache: 512 << 10, OOMKills: 2,
		CPUTotal: 3_000_000, CPUUser: 1_000_000, CPUSystem: 2_000_000, CPUPeriods: 7, CPUThrottledPeriods: 2, CPUThrottled: 55_000,
		Pids: 4, Tasks: 4, ReadBytes: 4097, WriteBytes: 8192, ReadOps: 2, WriteOps: 2,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := c.OOMKills(); got != 2 {
		t.Errorf("%d kills", got)
	}
}

// meter reads the group's counters once, of a system without an agent.
func meter(c *Cgroup) (s CgroupStats, err error) {
	m, err := c.NewMeter(0)
	if err != nil {
		return s, err
	}
	return s, errors.Join(m.Read(&s), m.Close())
}

// TestUpdateV2 writes to plain files what a kernel would be told.
func TestUpdateV2(t *testing.T) {
	dir := t.TempDir()
	names := []string{"memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max", "io.max", "memory.current", "memory.reclaim"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &Cgroup{path: "/", h: hierarchies{dirs: []string{dir}, unified: dir}}
	check := func(want map[string]string) {
		t.Helper()
		for name, value := range want {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || string(text) != value {
				t.Errorf("%s: %q, %v, want %q", name, text, err, value)
			}
			if err := os.Truncate(filepath.Join(dir, name), 0); err != nil { // as the kernel replaces what was
				t.Fatal(err)
			}
		}
	}
	limits := CgroupLimits{
		Memory: 64 << 20, MemorySwap: 96 << 20, CPUQuota: 50_000, CPUPeriod: 100_000, CPUWeight: 30, CPUSet: "0-1", Pids: 20,
		IODevice: "8:0", IOPS: 100, Bandwidth: 1 << 20,
	}
	if err := c.Update(CgroupLimits{}, limits); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "cpu.max": "50000 100000", "cpu.weight": "30", "cpuset.cpus": "0-1\n",
		"pids.max": "20", "io.max": "8:0 rbps=1048576 wbps=1048576 riops=100 wiops=100",
	})
	if err := c.Update(limits, CgroupLimits{}); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{
		"memory.max": "max", "memory.swap.max": "max", "cpu.max": "max 100000", "cpu.weight": "100", "cpuset.cpus": "\n",
		"pids.max": "max", "io.max": "8:0 rbps=max wbps=max riops=max wiops=max",
	})
	if err := os.WriteFile(filepath.Join(dir, "memory.current"), []byte("99999999\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(CgroupLimits{}, limits); err == nil {
		t.Error("memory that is in use was limited away")
	}
	check(map[string]string{"memory.reclaim": "32891135", "memory.max": "", "pids.max": ""})
	if err := os.Remove(filepath.Join(dir, "pids.max")); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(CgroupLimits{Pids: 7}, CgroupLimits{CPUWeight: 7, Pids: 9}); err == nil {
		t.Error("a limit was set that there is not")
	}
	check(map[string]string{"cpu.weight": "100"}) // set, and set back
}

// TestCountProcessesV2 has the same of the group of a system's processes.
func TestCountProcessesV2(t *testing.T) {
	dir := t.TempDir()
	group := filepath.Join(dir, "group")
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(group, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(name, want string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(group, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v, want %q", name, text, err, want)
		}
	}
	for name, text := range map[string]string{
		"pids.max": "36\n", "pids.current": "8\n", "cgroup.subtree_control": "", "memory.current": "0\n",
		"processes/cgroup.type": "", "processes/cgroup.threads": "", "processes/pids.max": "",
	} {
		write(name, text)
	}
	c := &Cgroup{path: "/group", h: hierarchies{dirs: []string{dir}, unified: dir}}
	join, err := c.CountProcesses()
	if err != nil {
		t.Fatal(err)
	}
	if name, err := filepath.Rel(group, join.Name()); err != nil || name != "processes/cgroup.threads" {
		t.Errorf("joined by %s", join.Name())
	}
	if err := join.Close(); err != nil {
		t.Fatal(err)
	}
	expect("processes/cgroup.type", "threaded")
	expect("cgroup.subtree_control", "+pids")
	expect("processes/pids.max", "21")
	s, err := meter(c)
	if err != nil || s.Pids != 8 || s.PidsLimit != 20 || s.Tasks != 8 {
		t.Errorf("got %+v, %v", s, err)
	}
	write("processes/pids.max", "")
	if got := c.processesSettings(&CgroupLimits{Pids: AgentThreads + 1}); len(got) != 1 || got[0].value != "2" {
		t.Errorf("a limit of 1: %v", got)
	}
	if none, err := (&Cgroup{path: "/other", h: c.h}).CountProcesses(); none != nil || err != nil {
		t.Errorf("of no group: %v, %v", none, err)
	}
}
