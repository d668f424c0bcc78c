package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// fixture is a host of its own with a container that runs, the programs to
// measure with, and a bundle for runc that equals the container.
type fixture struct {
	host   *hcs.Host
	dir    string // what lasts, on a disk
	run    string // what may be gone after a boot, of us and of all peers alike: as /run is
	bin    string // of our programs
	system *container.System
	bundle string
	rootfs string
	cgroup string // the control group for containers of all kinds
	truth  string // the program on the host
}

func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	testenv.NeedRoot(tb)
	testenv.NeedCommand(tb, "runc")
	f := &fixture{dir: ownFS(tb, "ext4"), run: ownFS(tb, "tmpfs"), bin: programs(tb), cgroup: fmt.Sprint("/hcs-bench-", os.Getpid())}
	testenv.NoLeaks(tb, testenv.Scope{Dir: f.dir, Cgroup: f.cgroup, Settles: true})
	f.rootfs = filepath.Join(f.dir, "base")
	for _, d := range []string{"bin", "dev", "proc", "sys", "etc", "tmp"} {
		must(tb, os.MkdirAll(filepath.Join(f.rootfs, d), 0o755))
	}
	f.truth = filepath.Join(f.rootfs, "bin", "true")
	must(tb, os.WriteFile(f.truth, trueProgram(tb), 0o755))
	host, err := hcs.Open(hcs.Config{
		Root: filepath.Join(f.dir, "root"), Run: f.run, Libexec: f.bin, Runtime: "runc", CgroupParent: f.cgroup,
	})
	must(tb, err)
	f.host = host
	tb.Cleanup(func() {
		_, err := host.Containers().Prune(context.Background())
		must(tb, err)
	})
	f.start(tb)
	f.makeBundle(tb)
	return f
}

// ownFS makes a small file system for a benchmark's time.
func ownFS(tb testing.TB, kind string) string {
	dir, remove := newFS(tb, kind, 1<<30)
	tb.Cleanup(remove)
	return dir
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
	spec["linux"].(map[string]any)["cgroupsPath"] = f.cgroup + "/peer"
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
	spec["linux"].(map[string]any)["cgroupsPath"] = f.cgroup + "/paused"
	text, err = json.Marshal(spec)
	must(tb, err)
	must(tb, os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644))
	must(tb, exec.Command("runc", "--root", f.run+"/runc", "run", "-d", "--bundle", bundle, "paused").Run())
	tb.Cleanup(func() {
		must(tb, exec.Command("runc", "--root", f.run+"/runc", "delete", "--force", "paused").Run())
	})
}

func (f *fixture) hcs(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(f.bin, "hcs"), args...)
	cmd.Env = append(os.Environ(), "HCS_ROOT="+f.host.Config().Root, "HCS_RUN="+f.host.Config().Run, "HCS_CGROUP_PARENT="+f.cgroup)
	return cmd
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkRun starts a container that does nothing, from the command line to
// its removal, against runc's run of an equal bundle: natively, which is the
// default, with crun, and with the same runc.
func BenchmarkRun(b *testing.B) {
	f := newFixture(b)
	theirs := func() error {
		return exec.Command("runc", "--root", f.run+"/runc", "run", "--bundle", f.bundle, "once").Run()
	}
	for _, runtime := range []string{"native", "crun", "runc"} {
		b.Run(runtime, func(b *testing.B) {
			if runtime != "native" {
				testenv.NeedCommand(b, runtime)
			}
			ours := func() error {
				return f.hcs("--runtime", runtime, "run", "--rm", "--rootfs", f.rootfs, "/bin/true").Run()
			}
			compare(b, ours, theirs)
		})
	}
}

// BenchmarkLife makes a container, starts it, runs a program in it, ends and
// removes it, through the library and natively: against crun's run of an equal
// bundle, against the command line's, and against the same through the library
// with an OCI runtime.
func BenchmarkLife(b *testing.B) {
	f := newFixture(b)
	testenv.NeedCommand(b, "crun")
	native := f.lives(b, "native")
	crun := f.crun(b)
	b.Run("crun run", func(b *testing.B) { compare(b, native, crun) })
	ours := func() error {
		return f.hcs("--runtime", "native", "run", "--rm", "--rootfs", f.rootfs, "/bin/true").Run()
	}
	b.Run("hcs run to crun run", func(b *testing.B) { compare(b, ours, crun) })
	for _, name := range []string{"crun", "runc"} {
		b.Run("library with "+name, func(b *testing.B) { compare(b, native, f.lives(b, name)) })
	}
}

// lives returns what leads a container through its life.
func (f *fixture) lives(tb testing.TB, name string) func() error {
	c := f.host.Config()
	c.Runtime, c.Libexec = name, f.bin
	host, err := hcs.Open(c)
	must(tb, err)
	ctx := context.Background()
	return func() error {
		s, err := host.Containers().Create(ctx, container.Spec{RootDir: f.rootfs, Ephemeral: true})
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.Start(ctx); err != nil {
			return err
		}
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"/bin/true"}, Role: container.Main})
		if err != nil {
			return err
		}
		if _, err := p.Wait(ctx); err != nil {
			return err
		}
		if _, err = s.Wait(ctx); errdefs.IsNotFound(err) { // gone with its end
			return nil
		}
		return err
	}
}

// crun returns crun's run of the bundle, from a thread in a mount namespace of
// its own: it refuses machines with v1 control groups and a v2 tree that has
// controllers.
func (f *fixture) crun(tb testing.TB) func() error {
	orders, results := make(chan struct{}), make(chan error)
	hide := func() error {
		const unified = "/sys/fs/cgroup/unified"
		if _, err := os.Stat(unified); err != nil {
			return nil
		}
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			return err
		}
		if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
			return err
		}
		return syscall.Mount("tmpfs", unified, "tmpfs", 0, "")
	}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		err := hide()
		for range orders {
			if err == nil {
				results <- exec.Command("crun", "--root", f.run+"/crun", "run", "--bundle", f.bundle, "once").Run()
			} else {
				results <- err
			}
		}
	}()
	tb.Cleanup(func() { close(orders) })
	return func() error {
		orders <- struct{}{}
		return <-results
	}
}

// BenchmarkExec runs a program in a running container, from the command line,
// against runc's exec.
func BenchmarkExec(b *testing.B) {
	f := newFixture(b)
	f.startPeer(b)
	ours := func() error { return f.hcs("exec", "bench", "/bin/true").Run() }
	theirs := func() error {
		return exec.Command("runc", "--root", f.run+"/runc", "exec", "paused", "/bin/true").Run()
	}
	compare(b, ours, theirs)
}

// BenchmarkStats reads all counters of a running system through the library.
func BenchmarkStats(b *testing.B) {
	f := newFixture(b)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, err := f.system.Stats(ctx)
		must(b, err)
	}
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
