package testenv_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

func TestLeaksAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		leak func(t *testing.T, dir string) testenv.Scope
		want string
	}{
		"mount":           {leakMount, "mount "},
		"stacked mount":   {leakStackedMount, "mount "},
		"cgroup":          {leakCgroup, "cgroup "},
		"loop device":     {leakLoop, "loop device "},
		"child":           {leakChild, "process "},
		"foreign process": {leakForeign, "process "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			scope := c.leak(t, dir) // what is there before is no leak
			if r := record(t, func(tb testing.TB) { testenv.NoLeaks(tb, scope) }); r.outcome != "pass" {
				t.Errorf("nothing leaked: got %s %s %v", r.outcome, r.message, r.errors)
			}
			again := filepath.Join(dir, "again")
			if err := os.Mkdir(again, 0o700); err != nil {
				t.Fatal(err)
			}
			r := record(t, func(tb testing.TB) {
				testenv.NoLeaks(tb, scope)
				c.leak(t, again)
			})
			if len(r.errors) == 0 || !strings.Contains(r.errors[0], c.want) {
				t.Errorf("leaked a %s: got %s %s %v", name, r.outcome, r.message, r.errors)
			}
		})
	}
}

func TestWhatGoesInTimeIsNoLeak(t *testing.T) {
	r := record(t, func(tb testing.TB) {
		testenv.NoLeaks(tb, testenv.Scope{Dir: t.TempDir(), Children: true, Settles: true})
		cmd := exec.Command("sleep", "0.1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _ = cmd.Wait() }()
	})
	if r.outcome != "pass" {
		t.Errorf("got %s %s %v", r.outcome, r.message, r.errors)
	}
}

func TestOthersScopeIsNotLookedAt(t *testing.T) {
	r := record(t, func(tb testing.TB) {
		testenv.NoLeaks(tb, testenv.Scope{Dir: "/nowhere"})
		leakForeign(t, t.TempDir())
	})
	if r.outcome != "pass" {
		t.Errorf("got %s %s %v", r.outcome, r.message, r.errors)
	}
}

func leakMount(t *testing.T, dir string) testenv.Scope {
	testenv.NeedRoot(t)
	spaced := filepath.Join(dir, "a b") // the kernel escapes it
	if err := os.Mkdir(spaced, 0o700); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, spaced)
	return testenv.Scope{Dir: dir}
}

func leakStackedMount(t *testing.T, dir string) testenv.Scope {
	testenv.NeedRoot(t)
	if filepath.Base(dir) == "again" { // a second mount of the first's directory
		dir = filepath.Dir(dir)
	}
	mountTmpfs(t, dir)
	return testenv.Scope{Dir: dir}
}

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func leakCgroup(t *testing.T, dir string) testenv.Scope {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.Cgroups)
	const prefix = "/hcs-testenv"
	root := "/sys/fs/cgroup/memory"
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	made, err := os.MkdirTemp(root, prefix[1:]) //nolint:usetesting // a cgroup is no directory for files
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(made); err != nil {
			t.Error(err)
		}
	})
	return testenv.Scope{Dir: dir, Cgroup: prefix}
}

func leakLoop(t *testing.T, dir string) testenv.Scope {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.LoopDevices)
	losetup := testenv.NeedCommand(t, "losetup")[0]
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(losetup, "--find", "--show", image).CombinedOutput()
	device := strings.TrimSpace(string(out))
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(losetup, "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return testenv.Scope{Dir: dir}
}

func leakChild(t *testing.T, _ string) testenv.Scope {
	startChild(t, "sleep", "1000")
	return testenv.Scope{Dir: "/nowhere", Children: true}
}

// leakForeign leaves a process that is not a child of this one: its parent, a shell, has ended.
func leakForeign(t *testing.T, dir string) testenv.Scope {
	// It reads, and starts nothing: a child of its own would look like it until it has become another program.
	cmd := exec.Command("sh", "-c", `exec 3<&0; sh -c 'echo $$; exec >/dev/null; read x <&3' "$0" & wait $!`, dir)
	never, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hold.Close() })
	defer never.Close()
	cmd.Stdin = never
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return testenv.Scope{Dir: dir}
}

func startChild(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
