package container_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/container"
)

// TestInside looks at a container from inside: it is to be what users of
// docker expect.
func TestInside(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		s := f.running(container.Spec{})
		for _, tt := range []struct{ name, script, want string }{
			{"capabilities of root", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
			{"bounding capabilities", "grep CapBnd /proc/self/status", "CapBnd:\t00000000a80425fb"},
			{"no inheritable capabilities", "grep CapInh /proc/self/status", "CapInh:\t0000000000000000"},
			{"seccomp filter", "grep '^Seccomp:' /proc/self/status", "Seccomp:\t2"},
			{"loopback only", "ls /sys/class/net; cat /sys/class/net/lo/operstate", "lo\nunknown"},
			{"masked file", "wc -c < /proc/interrupts", "0"},
			{"masked directory", "ls /sys/firmware | wc -l", "0"},
			{"read-only proc", "echo 1 > /proc/sys/kernel/hostname 2>/dev/null || echo refused", "refused"},
			{"read-only sys", "mkdir /sys/fs/cgroup/memory/x 2>/dev/null || echo refused", "refused"},
			{"no mounting", "mount -t tmpfs none /mnt 2>/dev/null || echo refused", "refused"},
			{"shared memory", "df -k /dev/shm | tail -n 1 | awk '{print $2}'", "65536"},
			{"no block devices", "mknod /tmp/d b 254 0 && dd if=/tmp/d of=/dev/null count=1 2>/dev/null || echo refused", "refused"},
			{"only its own processes", "set -- /proc/[0-9]*; echo $#", "2"}, // the agent and the shell
			{"descriptors", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3"},
			{"an ordinary user's capabilities", "su nobody -s /bin/sh -c 'grep CapEff /proc/self/status'", "CapEff:\t0000000000000000"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				if got := f.ok(s, tt.script); got != tt.want {
					t.Errorf("%s: got %q, want %q", tt.script, got, tt.want)
				}
			})
		}
	})
}

// TestAgentIsOutOfReach has the container's root attack the first process.
func TestAgentIsOutOfReach(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	for sig := 1; sig <= 64; sig++ {
		f.run(s, fmt.Sprintf("kill -%d 1", sig))
	}
	for _, attack := range []string{
		"readlink /proc/1/fd/3", "cat /proc/1/fd/2", "echo x > /proc/1/fd/1", "cat /proc/1/maps", "cat /proc/1/environ", "ls /proc/1/root/", "readlink /proc/1/exe",
		"echo x > /proc/1/mem", "echo x > /dev/.hcs-agent", "rm /dev/.hcs-agent", "mv /dev/.hcs-agent /dev/x",
		"chmod 777 /dev/.hcs-agent", "umount /dev/.hcs-agent",
	} {
		if r := f.run(s, attack); r.Code == 0 {
			t.Errorf("%s: worked: %q", attack, r.out)
		}
	}
	st, err := s.Status(t.Context())
	if err != nil || st.State != container.Running {
		t.Fatalf("after the attacks: %+v, %v", st, err)
	}
	f.ok(s, "true")
	f.eventually("the agent holds only its streams and its socket", func() bool {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.Pid))
		f.must(err)
		return len(entries) == 4
	})
}

// TestHostilePasswd has the container replace what the agent reads.
func TestHostilePasswd(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	for _, tt := range []struct{ name, prepare, want string }{
		{"fifo", "mkfifo /p && mv /p /etc/passwd", "not a regular file"},
		{"endless device", "ln -sf /dev/zero /etc/passwd", "not a regular file"},
		{"large", "rm /etc/passwd; dd if=/dev/zero of=/etc/passwd bs=1M count=2 2>/dev/null", "larger than 1 MiB"},
		{"link to itself", "ln -sf passwd /etc/passwd", "read /etc/passwd"},
	} {
		f.ok(s, tt.prepare, user("0:0"))
		_, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"true"}, Env: env, User: "nobody"})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		f.ok(s, "true") // no name, no need of the file
		s = f.running(container.Spec{})
	}
}

func TestReadOnlyRoot(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{ReadOnly: true, Mounts: []container.Mount{{Type: "tmpfs", Target: "/tmp"}}})
	if r := f.run(s, "echo x > /file"); r.Code == 0 || !strings.Contains(r.err, "Read-only") {
		t.Errorf("got %+v", r)
	}
	f.ok(s, "echo x > /tmp/file")
}

func TestMounts(t *testing.T) {
	f := newFixture(t)
	host := t.TempDir()
	f.must(os.WriteFile(filepath.Join(host, "file"), []byte("host"), 0o644))
	s := f.running(container.Spec{Mounts: []container.Mount{
		{Source: host, Target: "/data"},
		{Source: host, Target: "/fixed", ReadOnly: true},
		{Source: filepath.Join(host, "file"), Target: "/etc/one"},
		{Type: "tmpfs", Target: "/scratch", Size: 1 << 20},
	}})
	f.ok(s, "echo new > /data/new")
	if text, err := os.ReadFile(filepath.Join(host, "new")); err != nil || string(text) != "new\n" {
		t.Errorf("written through a mount: %q, %v", text, err)
	}
	if got := f.ok(s, "cat /fixed/file /etc/one"); got != "hosthost" {
		t.Errorf("got %q", got)
	}
	if r := f.run(s, "echo x > /fixed/x"); r.Code == 0 {
		t.Error("wrote to a read-only mount")
	}
	if r := f.run(s, "dd if=/dev/zero of=/scratch/x bs=1M count=2"); r.Code == 0 {
		t.Error("wrote past a tmpfs's size")
	}
}

// TestMountTargetsStayInside has an image lead mounts out of it.
func TestMountTargetsStayInside(t *testing.T) {
	for _, runtime := range runtimes {
		t.Run(runtime, func(t *testing.T) { mountThroughLinks(t, runtime) })
	}
}

func mountThroughLinks(t *testing.T, runtime string) {
	f := newFixture(t)
	f.config.Runtime = runtime
	f.open()
	outside := t.TempDir()
	s := f.running(container.Spec{})
	f.ok(s, "ln -s "+outside+" /link; ln -s ../../../../../../../"+outside+" /up")
	scratch, err := s.Scratch()
	f.must(err)
	f.must(s.Terminate(t.Context()))
	hostile := f.created(container.Spec{RootDir: scratch.Upper(), Mounts: []container.Mount{
		{Type: "tmpfs", Target: "/link/a"}, {Type: "tmpfs", Target: "/up/b"},
	}})
	// runc resolves the links inside the root, crun refuses: both are right.
	if err := hostile.Start(t.Context()); err != nil && !strings.Contains(err.Error(), "link") {
		t.Error(err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

func TestHostNetwork(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{Network: container.NetworkHost})
	want, err := os.Readlink("/proc/self/ns/net")
	f.must(err)
	if got := f.ok(s, "readlink /proc/self/ns/net"); got != want {
		t.Errorf("network namespace %s, want the host's %s", got, want)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	f.must(err)
	if got := f.ok(s, "cat /etc/hosts"); got != string(bytes.TrimSpace(hosts)) {
		t.Errorf("/etc/hosts: %q", got)
	}
}

func TestRootDirStaysAsItIs(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{RootDir: "/"})
	mark := filepath.Join(f.dir, "mark")
	f.ok(s, "echo x > "+mark+" && cat "+mark)
	if _, err := os.Stat(mark); !os.IsNotExist(err) {
		t.Errorf("the host sees what was written: %v", err)
	}
}

func TestLimits(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{Resources: container.Resources{Memory: 64 << 20, CPUs: 0.25, Pids: 10}})
	ctx := t.Context()
	st, err := s.Stats(ctx)
	f.must(err)
	if st.MemoryLimit != 64<<20 || st.PidsLimit != 10 || st.MemoryUsage == 0 || st.CPU == 0 {
		t.Errorf("got %+v", st)
	}
	if r := f.run(s, "for i in $(seq 100); do sleep 5 & done"); r.Code == 0 && !strings.Contains(r.err, "fork") {
		t.Errorf("100 processes under a limit of 10: %+v", r)
	}
	f.must(s.Terminate(ctx))
	f.must(s.Start(ctx))
	// tail keeps its input, one line without an end, in memory.
	if r := f.run(s, "head -c 200000000 /dev/zero | tail"); r.Code != 137 && !strings.Contains(r.err, "Killed") {
		t.Errorf("200 MB under a limit of 64 MiB: %d, %q", r.Code, r.err)
	}
	if st, err := s.Stats(ctx); err != nil || st.OOMKills == 0 {
		t.Errorf("after the OOM kill: %+v, %v", st, err)
	}
	r := f.run(s, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	throttled := cgroupField(f.config.CgroupParent+"/*/"+s.ID(), "nr_throttled")
	if r.Code != 0 || throttled == "0" || throttled == "" {
		t.Errorf("a busy loop on a quarter of a processor: %+v, throttled %q times", r, throttled)
	}
}

func cgroupField(path, key string) string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/cpu" + path + "/cpu.stat")
	v2, _ := filepath.Glob("/sys/fs/cgroup" + path + "/cpu.stat")
	for _, file := range append(v1, v2...) {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
				return v
			}
		}
	}
	return ""
}

// TestMemory holds shim and agent to what a container may cost: memory that
// nobody else has. What their programs' files have in memory is all containers'.
func TestMemory(t *testing.T) {
	f := newFixture(t)
	f.running(container.Spec{})
	s := f.running(container.Spec{})
	for range 50 {
		f.ok(s, "true")
	}
	st, err := s.Status(t.Context())
	f.must(err)
	const limit = 6 << 10 // KiB
	shim, agent := footprintOf(t, st.ShimPid), footprintOf(t, st.Pid)
	if shim.memory+agent.memory > limit {
		t.Errorf("shim and agent have %d and %d KiB of their own, more than %d", shim.memory, agent.memory, limit)
	} else {
		t.Logf("shim %d KiB, agent %d KiB", shim.memory, agent.memory)
	}
	if st.Pid == 0 || syscall.Kill(st.Pid, 0) != nil {
		t.Errorf("first process: %d", st.Pid)
	}
}

// TestTargetsAsTheyAreWritten starts systems whose targets are not the shortest names of their places.
func TestTargetsAsTheyAreWritten(t *testing.T) {
	dir := t.TempDir()
	eachRuntime(t, func(_ *testing.T, f *fixture) {
		s := f.running(container.Spec{Mounts: []container.Mount{
			{Source: dir, Target: "/a/../../b/./c/"}, {Type: "tmpfs", Target: "//d/../e//"},
		}})
		f.ok(s, "touch /b/c/file /e/file && grep -q ' /b/c ' /proc/mounts && grep -q ' /e ' /proc/mounts")
	})
}

// TestMountInStandardsPlace has systems whose callers mount something of their own where a standard mount is made: that
// one is not there below it.
func TestMountInStandardsPlace(t *testing.T) {
	dir := t.TempDir()
	eachRuntime(t, func(t *testing.T, f *fixture) {
		s := f.running(container.Spec{Mounts: []container.Mount{
			{Type: "tmpfs", Target: "/dev/shm", Size: 1 << 20}, {Source: dir, Target: "/dev/mqueue/"},
		}})
		got := f.ok(s, "touch /dev/shm/file /dev/mqueue/file; grep -E ' /dev/(shm|mqueue) ' /proc/mounts")
		if strings.Count(got, "\n") != 1 || !strings.Contains(got, "/dev/shm tmpfs rw,nosuid,nodev,relatime,size=1024k ") || strings.Contains(got, "/dev/mqueue mqueue ") {
			t.Errorf("the mounts are\n%s", got)
		}
	})
}
