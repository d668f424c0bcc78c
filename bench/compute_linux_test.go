package bench_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// fixture is a host of its own with a container that runs, the programs to
// measure with, and a bundle for runc that equals the container.
type fixture struct {
	host   *hcs.Host
	dir    string
	bin    string // of our programs
	system *container.System
	bundle string
	rootfs string
	truth  string // the program on the host
}

func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	testenv.NeedRoot(tb)
	testenv.NeedCommand(tb, "runc")
	f := &fixture{dir: tb.TempDir(), bin: programs(tb)}
	f.rootfs = filepath.Join(f.dir, "base")
	for _, d := range []string{"bin", "dev", "proc", "sys", "etc", "tmp"} {
		must(tb, os.MkdirAll(filepath.Join(f.rootfs, d), 0o755))
	}
	f.truth = filepath.Join(f.rootfs, "bin", "true")
	must(tb, os.WriteFile(f.truth, trueProgram(tb), 0o755))
	host, err := hcs.Open(hcs.Config{
		Root: filepath.Join(f.dir, "root"), Run: filepath.Join(f.dir, "run"), Libexec: f.bin, Runtime: "runc",
	})
	must(tb, err)
	f.host = host
	f.start(tb)
	f.makeBundle(tb)
	return f
}

// programs returns the directory with hcs, hcs-shim and hcs-agent, as `make`
// builds them.
func programs(tb testing.TB) string {
	bin, err := filepath.Abs("../bin")
	must(tb, err)
	for _, p := range []string{"hcs", "hcs-registry", "hcs-shim", "hcs-agent"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			tb.Fatalf("run make first: %v", err)
		}
	}
	return bin
}

func (f *fixture) start(tb testing.TB) {
	ctx := context.Background()
	c, err := f.host.Create(ctx, hcs.Spec{
		System: container.Spec{Name: "bench", RootDir: f.rootfs}, Command: image.Overrides{Args: []string{"/bin/true"}},
	})
	must(tb, err)
	must(tb, c.Start(ctx))
	tb.Cleanup(func() {
		must(tb, c.Terminate(ctx))
		must(tb, c.Delete(ctx))
	})
	f.system = c
}

// makeBundle writes the container's own OCI configuration with the payload in
// the agent's place.
func (f *fixture) makeBundle(tb testing.TB) {
	f.bundle = filepath.Join(f.dir, "bundle")
	must(tb, os.Mkdir(f.bundle, 0o755))
	text, err := os.ReadFile(filepath.Join(f.host.Config().Run, "containers", f.system.ID(), "config.json"))
	must(tb, err)
	var spec map[string]any
	must(tb, json.Unmarshal(text, &spec))
	spec["process"].(map[string]any)["args"] = []string{"/bin/true"}
	spec["root"].(map[string]any)["path"] = f.rootfs
	spec["linux"].(map[string]any)["cgroupsPath"] = "/hcs-bench/peer"
	mounts := spec["mounts"].([]any)
	for i, m := range mounts {
		if m.(map[string]any)["destination"] == "/dev/.hcs-agent" {
			mounts = append(mounts[:i], mounts[i+1:]...)
			break
		}
	}
	spec["mounts"] = mounts
	text, err = json.Marshal(spec)
	must(tb, err)
	must(tb, os.WriteFile(filepath.Join(f.bundle, "config.json"), text, 0o644))
}

// startPeer leaves a container of runc's running, for exec.
func (f *fixture) startPeer(tb testing.TB) {
	bundle := filepath.Join(f.dir, "peer")
	must(tb, os.Mkdir(bundle, 0o755))
	text, err := os.ReadFile(filepath.Join(f.bundle, "config.json"))
	must(tb, err)
	must(tb, os.WriteFile(filepath.Join(f.rootfs, "bin", "pause"), pauseProgram(tb), 0o755))
	var spec map[string]any
	must(tb, json.Unmarshal(text, &spec))
	spec["process"].(map[string]any)["args"] = []string{"/bin/pause"}
	spec["linux"].(map[string]any)["cgroupsPath"] = "/hcs-bench/paused"
	text, err = json.Marshal(spec)
	must(tb, err)
	must(tb, os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644))
	must(tb, exec.Command("runc", "--root", f.dir+"/runc", "run", "-d", "--bundle", bundle, "paused").Run())
	tb.Cleanup(func() {
		must(tb, exec.Command("runc", "--root", f.dir+"/runc", "delete", "--force", "paused").Run())
	})
}

func (f *fixture) hcs(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(f.bin, "hcs"), args...)
	cmd.Env = append(os.Environ(), "HCS_ROOT="+f.host.Config().Root, "HCS_RUN="+f.host.Config().Run)
	return cmd
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkRun starts a container that does nothing, from the command line to
// its removal, against runc's run of an equal bundle: with crun, which is the
// default where there is one, and with the same runc.
func BenchmarkRun(b *testing.B) {
	f := newFixture(b)
	theirs := func() error {
		return exec.Command("runc", "--root", f.dir+"/runc", "run", "--bundle", f.bundle, "once").Run()
	}
	for _, runtime := range []string{"crun", "runc"} {
		b.Run(runtime, func(b *testing.B) {
			testenv.NeedCommand(b, runtime)
			ours := func() error {
				return f.hcs("--runtime", runtime, "run", "--rm", "--rootfs", f.rootfs, "/bin/true").Run()
			}
			compare(b, ours, theirs)
		})
	}
}

// BenchmarkExec runs a program in a running container, from the command line,
// against runc's exec.
func BenchmarkExec(b *testing.B) {
	f := newFixture(b)
	f.startPeer(b)
	ours := func() error { return f.hcs("exec", "bench", "/bin/true").Run() }
	theirs := func() error {
		return exec.Command("runc", "--root", f.dir+"/runc", "exec", "paused", "/bin/true").Run()
	}
	compare(b, ours, theirs)
}

// BenchmarkSpawn creates a process through the library, from the request to
// its exit status, against fork and exec of the same program on the host.
func BenchmarkSpawn(b *testing.B) {
	f := newFixture(b)
	ctx := b.Context()
	ours := func() error {
		p, err := f.system.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"/bin/true"}})
		if err != nil {
			return err
		}
		_, err = p.Wait(ctx)
		return err
	}
	theirs := func() error {
		pid, err := syscall.ForkExec(f.truth, []string{"true"}, &syscall.ProcAttr{})
		if err != nil {
			return err
		}
		var status syscall.WaitStatus
		for {
			if _, err = syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
				return err
			}
		}
	}
	compare(b, ours, theirs)
}
