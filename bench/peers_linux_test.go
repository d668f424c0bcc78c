package bench_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/testenv"
)

// contender is one of those who lead a container through its life: create,
// start, a first process that does nothing, its exit, removal. N numbers those
// that live at once.
type contender struct {
	name string
	run  func(n int) error
}

// contenders returns all of them: ours through the library and by the command
// line, OCI runtimes by themselves, engines with their own supervisors, and, as
// the floor, a process without any container.
func (f *fixture) contenders(tb testing.TB) []contender {
	testenv.NeedCommand(tb, "crun")
	life := f.lives(tb, "native")
	f.makeBundles(tb)
	return []contender{
		{"library", func(int) error { return life() }},
		{"hcs run", func(int) error {
			return f.hcs("--runtime", "native", "run", "--rm", "--rootfs", f.rootfs, "/bin/true").Run()
		}},
		f.crunApart(tb),
		{"runc run", func(n int) error {
			return said(exec.Command("runc", "--root", f.run+"/runc", "run", "--bundle", f.numbered(n), fmt.Sprint("once-", n)))
		}},
		f.containerd(tb),
		f.podman(tb),
		{"fork and exec", func(int) error { return exec.Command(f.truth).Run() }},
	}
}

// together is how many containers live at once at the most.
const together = 100

// numbered is the directory of a bundle of its own for each of those.
func (f *fixture) numbered(n int) string { return fmt.Sprint(f.bundle, "-", n) }

// makeBundles makes bundles that differ in their control groups alone.
func (f *fixture) makeBundles(tb testing.TB) {
	text, err := os.ReadFile(filepath.Join(f.bundle, "config.json"))
	must(tb, err)
	var spec map[string]any
	must(tb, json.Unmarshal(text, &spec))
	for n := range together {
		spec["linux"].(map[string]any)["cgroupsPath"] = fmt.Sprint(f.cgroup, "/peer-", n)
		text, err = json.Marshal(spec)
		must(tb, err)
		must(tb, os.Mkdir(f.numbered(n), 0o755))
		must(tb, os.WriteFile(filepath.Join(f.numbered(n), "config.json"), text, 0o644))
	}
}

// said runs a command; its error has what it says.
func said(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

// crunApart runs crun in a mount namespace without the v2 tree, on any thread,
// so that several can run at once.
func (f *fixture) crunApart(tb testing.TB) contender {
	holder := exec.Command("unshare", "--mount", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec cat")
	input, err := holder.StdinPipe()
	must(tb, err)
	output, err := holder.StdoutPipe()
	must(tb, err)
	must(tb, holder.Start())
	_, err = output.Read(make([]byte, 8))
	must(tb, err)
	apart, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", holder.Process.Pid))
	must(tb, err)
	tb.Cleanup(func() {
		_ = apart.Close()
		_ = input.Close()
		_ = holder.Wait()
	})
	return contender{"crun run", func(n int) error {
		result := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this
			err := unix.Unshare(unix.CLONE_FS)
			if err == nil {
				err = unix.Setns(int(apart.Fd()), unix.CLONE_NEWNS)
			}
			if err == nil {
				err = said(exec.Command("crun", "--root", f.run+"/crun", "run", "--bundle", f.numbered(n), fmt.Sprint("once-", n)))
			}
			result <- err
		}()
		return <-result
	}}
}

// containerdConfig leaves out what is Kubernetes' and what takes file systems
// that are not here.
const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "%[1]s/grpc.sock"
[ttrpc]
  address = "%[1]s/ttrpc.sock"
`

// containerd starts one of its own, which ends with the benchmark.
func (f *fixture) containerd(tb testing.TB) contender {
	testenv.NeedCommand(tb, "containerd", "ctr")
	dir, err := os.MkdirTemp("", "hcs-bench-") //nolint:usetesting // sockets' names have to be short
	must(tb, err)
	config := filepath.Join(dir, "config.toml")
	must(tb, os.WriteFile(config, fmt.Appendf(nil, containerdConfig, dir), 0o600))
	daemon := exec.Command("containerd", "--config", config)
	must(tb, daemon.Start())
	tb.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		must(tb, os.RemoveAll(dir))
	})
	address := filepath.Join(dir, "grpc.sock")
	for deadline := time.Now().Add(testenv.Patience); exec.Command("ctr", "--address", address, "version").Run() != nil; {
		if time.Now().After(deadline) {
			tb.Fatal("containerd does not answer")
		}
	}
	return contender{"ctr run", func(n int) error {
		return said(exec.Command("ctr", "--address", address, "run", "--rm", "--rootfs", f.rootfs, fmt.Sprint("once-", n), "/bin/true"))
	}}
}

// podman has its own directories, and runc, as crun does not run on every
// machine; its own limits may be above what a machine allows.
func (f *fixture) podman(tb testing.TB) contender {
	testenv.NeedCommand(tb, "podman", "conmon")
	return contender{"podman run", func(int) error {
		return said(exec.Command("podman", "--root", f.dir+"/podman", "--runroot", f.run+"/podman-run", "--tmpdir", f.run+"/podman-tmp",
			"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none",
			"run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
			"--rootfs", f.rootfs, "/bin/true"))
	}}
}

// BenchmarkPeers has all of them run a container in turn, hot and after a rest,
// and prints what each took and what ours through the library is of it.
func BenchmarkPeers(b *testing.B) {
	f := newFixture(b)
	all := f.contenders(b)
	for _, mode := range []struct {
		name   string
		pause  time.Duration
		rounds int
	}{{"hot", 0, 30}, {"idle", rest, 15}} {
		b.Run(mode.name, func(b *testing.B) {
			for b.Loop() {
				took := make([][]time.Duration, len(all))
				for range mode.rounds {
					for i, c := range all {
						took[i] = append(took[i], timed(b, mode.pause, runner{run: func() error { return c.run(0) }}))
					}
				}
				report(b, all, took)
			}
		})
	}
}

// BenchmarkParallel has each of them run a hundred containers at once.
func BenchmarkParallel(b *testing.B) {
	const rounds = 3
	f := newFixture(b)
	all := f.contenders(b)
	for b.Loop() {
		took := make([][]time.Duration, len(all))
		for range rounds {
			for i, c := range all {
				took[i] = append(took[i], timed(b, rest, runner{run: func() error { return atOnce(together, c.run) }}))
			}
		}
		report(b, all, took)
	}
}

func atOnce(count int, run func(n int) error) error {
	errs := make([]error, count)
	var wg sync.WaitGroup
	for n := range count {
		wg.Go(func() { errs[n] = run(n) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// report prints a table; the first contender is compared with all others.
func report(b *testing.B, all []contender, took [][]time.Duration) {
	b.ReportMetric(0, "ns/op") // of all together, which says nothing
	ours := median(slices.Clone(took[0]))
	fmt.Printf("\n| %s | median ms | least ms | library to it | `hcs run` to it |\n|---|---|---|---|---|\n", b.Name())
	line := median(slices.Clone(took[1]))
	for i, c := range all {
		m := median(took[i])
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f |\n", c.name, ms(m), ms(took[i][0]), float64(ours)/float64(m), float64(line)/float64(m))
	}
}
