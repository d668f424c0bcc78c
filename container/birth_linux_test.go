package container_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// starting is a shim whose client the test plays.
type starting struct {
	*wire.Conn
	f     *fixture
	shim  *exec.Cmd
	birth wire.Birth
	spec  wire.Spec
	log   bytes.Buffer // what the shim says
}

// birthIn starts a shim, and has the first process born in a control group.
func (f *fixture) birthIn(group *sys.Cgroup, agent string) *starting {
	f.t.Helper()
	c, theirs, err := wire.Pair()
	f.must(err)
	defer theirs.Close()
	dir := f.t.TempDir()
	s := &starting{Conn: c, f: f, shim: exec.Command(filepath.Join(f.config.Libexec, "hcs-shim"), dir)}
	s.birth = wire.Birth{ID: "born", Cgroup: group.Path(), Agent: agent, Args: []string{"hcs-agent", wire.NativeArgument}, Network: true}
	s.spec = wire.Spec{
		Dir: dir, Native: new(wire.Native), Root: wire.Root{Dir: dir},
		Status: filepath.Join(dir, "status.json"), Log: wire.Log{Path: filepath.Join(dir, "log"), MaxFiles: 1},
		Events: wire.Events{Dir: dir, Alive: filepath.Join(dir, "alive")},
	}
	lock, err := os.Open(dir) // which nobody else wants
	f.must(err)
	defer lock.Close()
	s.shim.ExtraFiles, s.shim.Stderr = []*os.File{theirs, lock}, &s.log
	s.shim.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	f.must(s.shim.Start())
	f.must(s.Send(wire.Message{Type: wire.Bear, Body: s.birth.Encode()}))
	return s
}

// born waits for the first process, and returns its number.
func (s *starting) born() (pid int) {
	s.f.t.Helper()
	s.f.eventually("the first process is born", func() bool {
		for _, child := range childrenOf(s.shim.Process.Pid) {
			argv, _ := os.ReadFile("/proc/" + strconv.Itoa(child) + "/cmdline")
			if bytes.HasPrefix(argv, []byte("hcs-agent")) {
				pid = child
			}
		}
		return pid != 0
	})
	return pid
}

// refused waits for the answer to Start, a failure that says so.
func (s *starting) refused(text string) {
	s.f.t.Helper()
	_, err := s.Reply()
	if f, ok := errors.AsType[*wire.Failure](err); !ok || !strings.Contains(f.Text, text) {
		s.f.t.Errorf("got %v, want a failure that says %q", err, text)
	}
}

// TestBornForNothing has a shim's client do, when the first process is born,
// what keeps it from ever having a container: it goes, and the shim.
func TestBornForNothing(t *testing.T) {
	f := newFixture(t)
	group, err := sys.NewCgroup(f.config.CgroupParent + "/born")
	f.must(err)
	agent := filepath.Join(f.config.Libexec, "hcs-agent")
	for name, do := range map[string]func(s *starting){
		"the client goes":      func(s *starting) { s.Close() },
		"the shim is killed":   func(s *starting) { f.must(s.shim.Process.Kill()) },
		"another birth":        func(s *starting) { f.must(s.Send(wire.Message{Type: wire.Bear, Body: s.birth.Encode()})) },
		"something else":       func(s *starting) { f.must(s.Send(wire.Message{Type: wire.Query})) },
		"half a plan":          func(s *starting) { f.must(s.Send(wire.Message{Type: wire.Start, Body: s.spec.Encode()[:40]})) },
		"nothing to be made":   func(s *starting) { s.start(); s.refused("malformed") },
		"a runtime to start":   func(s *starting) { s.spec.Native = nil; s.start(); s.refused("do not belong together") },
		"a log that is none":   func(s *starting) { s.spec.Log.Path = "/proc/none"; s.start(); s.refused("/proc/none") },
		"no place to be found": func(s *starting) { s.spec.Dir = "/proc/none"; s.start(); s.refused("/proc/none") },
		"its end": func(s *starting) {
			f.must(syscall.Kill(s.born(), syscall.SIGKILL))
			s.start()
			s.refused("signal 9")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := f.in(t)
			f.must(group.Make(sys.CgroupLimits{}))
			s := f.birthIn(group, agent)
			pid := s.born()
			first, err := sys.OpenPidfd(pid)
			f.must(err)
			defer first.Close()
			do(s)
			if err := s.shim.Wait(); err == nil {
				t.Error("the shim says that all went well")
			}
			s.Close()
			f.eventually("the first process has ended", func() bool { return !first.Running() })
			if left, err := group.Processes(); err != nil || len(left) != 0 {
				t.Errorf("in its control group are %v, %v", left, err)
			}
			f.must(group.Remove())
		})
	}
}

func (s *starting) start() {
	s.f.t.Helper()
	s.f.must(s.Send(wire.Message{Type: wire.Start, Body: s.spec.Encode()}))
}

// in is the fixture in a part of its test.
func (f *fixture) in(t *testing.T) *fixture {
	g := *f
	g.t = t
	return &g
}

// TestNotBorn has no first process: the plan is answered with the reason.
func TestNotBorn(t *testing.T) {
	f := newFixture(t)
	group, err := sys.NewCgroup(f.config.CgroupParent + "/born")
	f.must(err)
	agent := filepath.Join(f.config.Libexec, "hcs-agent")
	for name, tt := range map[string]struct {
		agent, text string
		exists      bool
	}{
		"without its program":       {"/none/hcs-agent", "/none/hcs-agent", true},
		"without its control group": {agent, group.Path(), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := f.in(t)
			if tt.exists {
				f.must(group.Make(sys.CgroupLimits{}))
			}
			s := f.birthIn(group, tt.agent)
			s.start()
			s.refused(tt.text)
			if err := s.shim.Wait(); err == nil {
				t.Error("the shim says that all went well")
			}
			s.Close()
			f.must(group.Remove())
		})
	}
}

// TestMountedJustBefore maps a directory of a file system that is mounted, and
// written to, right before each start: the container has it.
func TestMountedJustBefore(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.dir, "mapped")
	f.must(os.Mkdir(dir, 0o755))
	s := f.created(container.Spec{Mounts: []container.Mount{{Source: f.dir, Target: "/above"}, {Source: dir, Target: "/mapped"}}})
	for i := range 5 {
		f.must(sys.MountTmpfs(dir))
		text := strconv.Itoa(i)
		f.must(os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o644))
		f.must(s.Start(t.Context()))
		if got := f.ok(s, "cat /mapped/file /above/mapped/file"); got != text+text {
			t.Errorf("got %q, want %q twice", got, text)
		}
		f.must(s.Terminate(t.Context()))
		f.must(sys.Unmount(dir))
	}
}
