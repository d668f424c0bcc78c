package cli_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/cli"
	"github.com/hostcompute/hcs/internal/registrycli"
	"github.com/hostcompute/hcs/internal/testenv"
)

// TestMain has this program be hcs where the real one is not built: for the
// scripts that need no root.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){
		"hcs":          func() { os.Exit(cli.Main()) },
		"hcs-registry": func() { os.Exit(registrycli.Main()) },
		"wclayer":      func() { os.Exit(cli.Main()) },
		"umoci":        func() { os.Exit(cli.Main()) },
	})
}

type tests struct{ m *testing.M }

func (t tests) Run() int { return testenv.Main(t.m) }

// commands are those that scripts have besides testscript's own.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"status":     status,
	"eventually": eventually,
	"signal":     sendSignal,
	"nobody":     nobody,
}

// TestPlain runs the scripts that need no root.
func TestPlain(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/plain", Cmds: commands, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HCS_ROOT", filepath.Join(e.WorkDir, ".hcs", "root"))
			e.Setenv("HCS_RUN", filepath.Join(e.WorkDir, ".hcs", "run"))
			return nil
		},
	})
}

// TestScript runs each script on a host of its own, of which nothing may be
// left on the machine. $IMAGES has the OCI layouts busybox and debian.
//
// The scripts run at once, and it is all of them that are watched: this
// program's children could be anyone's. For the same reason the tests below,
// which watch for themselves, are not parallel.
func TestScript(t *testing.T) {
	all := newHost(t)
	images := filepath.Dir(testenv.Image(t, "busybox"))
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "registry" || name == "login" {
				testenv.NeedCommand(t, "docker-registry")
			}
			h := &host{t: t, dir: filepath.Join(all.dir, name), cgroup: all.cgroup + "-" + name}
			if err := os.Mkdir(h.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.clean)
			testscript.Run(t, testscript.Params{
				Files: []string{file}, Cmds: commands, RequireExplicitExec: true, WorkdirRoot: h.dir,
				Setup: func(e *testscript.Env) error {
					for _, v := range append(h.env(), "IMAGES="+images, "TERM=") {
						key, value, _ := strings.Cut(v, "=")
						e.Setenv(key, value)
					}
					return nil
				},
			})
		})
	}
}

// host is a pair of state directories and a control group.
type host struct {
	t      testing.TB
	dir    string
	cgroup string
}

// newHost makes a host for a test, and sees that nothing of it is left.
func newHost(t testing.TB) *host {
	t.Helper()
	testenv.Programs(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.PidFD, testenv.Cgroups)
	h := &host{t: t, dir: t.TempDir()}
	h.cgroup = "/hcs-cli-" + filepath.Base(filepath.Dir(h.dir))
	testenv.NoLeaks(t, testenv.Scope{Dir: h.dir, Children: true, Cgroup: h.cgroup, Settles: true})
	t.Cleanup(h.clean)
	return h
}

func (h *host) clean() {
	for id := range strings.FieldsSeq(h.must("ps", "-a", "-q")) {
		h.must("rm", "-f", id)
	}
	h.must("system", "prune", "-f")
}

func (h *host) env() []string {
	return []string{
		"HCS_ROOT=" + filepath.Join(h.dir, "root"), "HCS_RUN=" + filepath.Join(h.dir, "run"), "HCS_CGROUP_PARENT=" + h.cgroup,
	}
}

func (h *host) hcs(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(testenv.Programs(h.t), "hcs"), args...)
	cmd.Env = append(os.Environ(), h.env()...)
	return cmd
}

func (h *host) must(args ...string) string {
	h.t.Helper()
	cmd := h.hcs(args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Errorf("hcs %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// status N PROGRAM ARG...: like exec, for a program that ends with that status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: status N program [arg...]")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		x, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = x.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// eventually PATTERN PROGRAM ARG...: runs the program until its output has the
// text. What it waits for is done by another process.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually text program [arg...]")
	}
	var out string
	for deadline := time.Now().Add(testenv.Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		if out = ts.ReadFile("stdout"); strings.Contains(out, args[0]) {
			return
		}
	}
	ts.Fatalf("no %q within 20 seconds; last: %q", args[0], out)
}

// signal NAME: to the program that was last started in the background.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	running := ts.BackgroundCmds()
	if neg || len(args) != 1 || len(running) == 0 {
		ts.Fatalf("usage: signal name, with a program in the background")
	}
	sig, err := container.ParseSignal(args[0])
	ts.Check(err)
	ts.Check(running[len(running)-1].Process.Signal(sig))
}

// nobody N ARG...: runs hcs as the user nobody, from where he may.
func nobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: nobody N arg...")
	}
	dir, err := os.MkdirTemp("", "hcs-nobody-")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	hcs, err := exec.LookPath("hcs")
	ts.Check(err)
	ts.Check(copyFile(filepath.Join(dir, "hcs"), hcs))
	status(ts, false, append([]string{
		args[0], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", filepath.Join(dir, "hcs"),
	}, args[1:]...))
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// TestManyAtOnce has twenty processes run the same image that nobody has
// loaded: it is unpacked once.
func TestManyAtOnce(t *testing.T) {
	h := newHost(t)
	ref := "oci:" + testenv.Image(t, "busybox")
	const n = 20
	type result struct {
		out, log string
		err      error
	}
	results := make(chan result, n)
	for i := range n {
		cmd := h.hcs("--log-level", "info", "run", "--rm", ref, "echo", fmt.Sprint(i))
		go func() {
			var log strings.Builder
			cmd.Stderr = &log
			out, err := cmd.Output()
			results <- result{string(out), log.String(), err}
		}()
	}
	var said []string
	unpacked := 0
	for range n {
		r := <-results
		if r.err != nil {
			t.Errorf("%v: %s", r.err, r.log)
		}
		said = append(said, strings.TrimSpace(r.out))
		unpacked += strings.Count(r.log, "unpacked layer")
	}
	slices.Sort(said)
	if said = slices.Compact(said); len(said) != n {
		t.Errorf("got %d different outputs, want %d: %q", len(said), n, said)
	}
	if unpacked != 1 {
		t.Errorf("the layer was unpacked %d times", unpacked)
	}
	if ids := h.must("ps", "-aq"); ids != "" {
		t.Errorf("left: %s", ids)
	}
}

// TestKilledClient has a client die of a signal that it cannot catch: the
// container does not notice.
func TestKilledClient(t *testing.T) {
	h := newHost(t)
	ref := "oci:" + testenv.Image(t, "busybox")
	cmd := h.hcs("run", "--name", "c", ref, "sh", "-c", "echo ready; while sleep 0.01; do :; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(io.LimitReader(out, 6)); err != nil || string(b) != "ready\n" {
		t.Fatalf("got %q, %v", b, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := h.must("exec", "c", "echo", "still here"); got != "still here\n" {
		t.Errorf("got %q", got)
	}
	if got := h.must("logs", "c"); got != "ready\n" {
		t.Errorf("got %q", got)
	}
}
