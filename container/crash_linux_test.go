package container_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
)

// childRole is set for this test's own program where it is to be a client
// that gets killed.
const childRole = "HCS_TEST_CHILD"

// childOrder is what such a client does.
type childOrder struct {
	host
	Spec   container.Spec
	Script string
}

// run starts a system with a main process, says its id, and stays.
func (o *childOrder) run() error {
	ctx := context.Background()
	service, err := o.open()
	if err != nil {
		return err
	}
	s, err := service.Create(ctx, o.Spec)
	if err != nil {
		return err
	}
	fmt.Println("created", s.ID())
	if err := s.StartForMain(ctx); err != nil {
		return err
	}
	if o.Script == "" {
		fmt.Println("running", s.ID())
		testenv.AwaitKill(s)
	}
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{
		Role: container.Main, Args: []string{"sh", "-c", o.Script}, Env: env, Stdin: blocked{}, Stdout: os.Stderr,
	})
	if err != nil {
		return err
	}
	fmt.Println("running", s.ID())
	_, err = p.Wait(ctx)
	return err
}

// client runs a client in a process of its own, until it says the word; it
// returns the process and the system's id.
func (f *fixture) client(spec container.Spec, script, word string) (cmd *exec.Cmd, id string) {
	f.t.Helper()
	spec.Layers = f.layers
	cmd, out := f.inRole(childRole, childOrder{host: f.host(), Spec: spec, Script: script})
	for s := bufio.NewScanner(out); s.Scan(); {
		if w, rest, _ := strings.Cut(s.Text(), " "); w == word {
			return cmd, rest
		} else if w == "error:" {
			f.t.Fatal(rest)
		}
	}
	f.t.Fatal("the client says nothing")
	return nil, ""
}

// gone waits until a process that is not ours has ended.
func (f *fixture) gone(pid int) {
	f.t.Helper()
	f.eventually("the process is gone", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

func TestClientKilled(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	cmd, id := f.client(container.Spec{}, "echo before; read x; echo after; sleep 0.05; exit 6", "running")
	f.must(cmd.Process.Kill())
	_ = cmd.Wait()
	s, err := f.Open(ctx, id)
	f.must(err)
	// The end of its input ends the script; what it writes after its client's
	// death is in the log.
	st, err := s.Wait(ctx)
	f.must(err)
	if st.State != container.Stopped || st.ExitCode != 6 || st.Reason != "" {
		t.Errorf("got %+v", st)
	}
	var log strings.Builder
	for out, err := range s.Logs(ctx, container.LogOptions{}) {
		f.must(err)
		log.Write(out.Text)
	}
	if log.String() != "before\nafter\n" {
		t.Errorf("log: %q", log.String())
	}
}

func TestClientOfEphemeralKilled(t *testing.T) {
	f := newFixture(t)
	cmd, id := f.client(container.Spec{Ephemeral: true}, "read x; sleep 0.05", "running")
	f.must(cmd.Process.Kill())
	_ = cmd.Wait()
	f.eventually("the shim has removed everything", func() bool {
		_, err := f.Open(t.Context(), id)
		return errdefs.IsNotFound(err)
	})
}

// TestClientKilledBeforeItsProcess leaves a system that nobody needs.
func TestClientKilledBeforeItsProcess(t *testing.T) {
	f := newFixture(t)
	cmd, id := f.client(container.Spec{}, "", "running")
	f.must(cmd.Process.Kill())
	_ = cmd.Wait()
	s, err := f.Open(t.Context(), id)
	f.must(err)
	st, err := s.Wait(t.Context())
	f.must(err)
	if st.State != container.Stopped || st.Reason != "its client died before it had a process" {
		t.Errorf("got %+v", st)
	}
}

// TestClientKilledOnTheWay kills it between creation and the shim's taking
// over, at a different point each time.
func TestClientKilledOnTheWay(t *testing.T) {
	f := newFixture(t)
	for i := range 8 {
		cmd, _ := f.client(container.Spec{Ephemeral: i%2 == 0}, "sleep 1000", "created")
		time.Sleep(time.Duration(i) * 4 * time.Millisecond)
		f.must(cmd.Process.Kill())
		_ = cmd.Wait()
	}
	// Those that came to run "sleep" do so; what stopped on the way goes, once its shim has seen that nobody wants it.
	f.eventually("prune leaves nothing", func() bool {
		systems, err := f.Systems(t.Context())
		f.must(err)
		for _, s := range systems {
			if st, err := s.Status(t.Context()); err == nil && st.State == container.Running && len(st.Processes) > 0 {
				f.must(s.Terminate(t.Context()))
			}
		}
		_, err = f.Prune(t.Context())
		f.must(err)
		systems, err = f.Systems(t.Context())
		f.must(err)
		return len(systems) == 0
	})
}

// TestStartAfterClientKilled starts a system the moment that a client which was
// starting it, or was about to, has been killed: no two shims meet, and who has
// started it finds it started, unless it ends as the other client wanted.
func TestStartAfterClientKilled(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	f := newFixture(t)
	for round := range rounds {
		cmd, id := f.client(container.Spec{}, "sleep 1000", "created")
		time.Sleep(time.Duration(rand.Int64N(int64(12 * time.Millisecond))))
		f.must(cmd.Process.Kill())
		_ = cmd.Wait()
		s, err := f.Open(t.Context(), id)
		f.must(err)
		f.must(s.Start(t.Context()))
		st, err := s.Status(t.Context())
		if err != nil || st.State != container.Running && st.Reason != "its client died before it had a process" {
			t.Fatalf("round %d: %+v, %v", round, st, err)
		}
		f.must(s.Terminate(t.Context()))
		f.must(s.Delete(t.Context()))
	}
}

func TestShimKilled(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for _, paused := range []bool{false, true} {
		s := f.running(container.Spec{})
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
		f.must(err)
		before, err := s.Status(ctx)
		f.must(err)
		if paused {
			f.must(s.Pause(ctx))
		}
		f.must(syscall.Kill(before.ShimPid, syscall.SIGKILL))
		if _, err := p.Wait(ctx); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "its shim died") {
			t.Errorf("wait for a process: %v", err)
		}
		if st, err := s.Status(ctx); err != nil || st.State != container.Lost || st.Reason != "its shim died" {
			t.Errorf("status: %+v, %v", st, err)
		}
		if _, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("a new process: %v", err)
		}
		if !paused { // the agent sees the end of its connection
			f.gone(before.Pid)
		}
		f.must(s.Start(ctx)) // cleans up first
		f.ok(s, "true")
		f.gone(before.Pid)
		f.must(s.Terminate(ctx))
	}
}

func TestShimKilledThenPruned(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	st, err := s.Status(t.Context())
	f.must(err)
	f.must(s.Pause(t.Context())) // so that nothing ends by itself
	f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
	f.gone(st.ShimPid)
	p, err := f.Prune(t.Context())
	f.must(err)
	if len(p.Containers) != 1 {
		t.Errorf("pruned %+v", p)
	}
	f.gone(st.Pid)
	cg, err := sys.NewCgroup(f.config.CgroupParent)
	f.must(err)
	if cg.Exists() {
		t.Error("a control group is left")
	}
	for _, dir := range []string{"run/containers", "run/locks", "root/names", "layers/scratch"} {
		entries, err := os.ReadDir(filepath.Join(f.dir, dir))
		f.must(err)
		for _, e := range entries {
			if e.Name() != ".lock" {
				t.Errorf("left in %s: %s", dir, e.Name())
			}
		}
	}
}

func TestAgentKilled(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
	f.must(err)
	st, err := s.Status(ctx)
	f.must(err)
	f.must(syscall.Kill(st.Pid, syscall.SIGKILL))
	if status, err := p.Wait(ctx); err != nil || status.Signal != syscall.SIGKILL {
		t.Errorf("its process: %v, %v", status, err)
	}
	st, err = s.Wait(ctx)
	f.must(err)
	if st.State != container.Stopped || st.Reason != "its first process died" {
		t.Errorf("got %+v", st)
	}
	f.must(s.Start(ctx))
	f.ok(s, "true")
}

// TestRuntimeFails has a runtime that cannot start anything, in several ways.
func TestRuntimeFails(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct{ name, script, want string }{
		{"says why", "echo 'no luck today' >&2; exit 1", "no luck today"},
		{"says nothing", "exit 3", "exit status 3"},
		{"is killed", "kill -9 $$", "runc: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "runc")
			text := "#!/bin/sh\n[ \"$1\" != --version ] || { echo runc version 1.0; exit; }\n" + tt.script + "\n"
			f.must(os.WriteFile(path, []byte(text), 0o755))
			f.config.Runtime = path
			f.open()
			s := f.created(container.Spec{Name: "unlucky"})
			err := s.Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "start container unlucky: ") ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if got := f.state(s); got != container.Created && got != container.Stopped {
				t.Errorf("state %s", got)
			}
			f.must(s.Delete(t.Context()))
		})
	}
}

func TestRuntimeMissing(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"no-such-runtime", "/no/such/runtime"} {
		f.config.Runtime = name
		f.open()
		s := f.created(container.Spec{})
		if err := s.Start(t.Context()); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v", err)
		}
	}
}

// TestPruneMeetsStart removes what is empty while systems start: a control
// group that is made for a system that has no process yet is no leftover.
func TestPruneMeetsStart(t *testing.T) {
	f := newFixture(t)
	f.config.Runtime = "native" // OCI runtimes make control groups in their own way
	f.open()
	stop, ended := make(chan struct{}), make(chan error)
	go func() {
		var errs []error
		for {
			select {
			case <-stop:
				ended <- errors.Join(errs...)
				return
			default:
				_, err := f.Prune(context.Background())
				errs = append(errs, err)
			}
		}
	}()
	for range 20 {
		s := f.created(container.Spec{Ephemeral: true})
		f.check(s.Start(t.Context()))
		f.check(s.Terminate(t.Context()))
	}
	close(stop)
	f.check(<-ended)
}
