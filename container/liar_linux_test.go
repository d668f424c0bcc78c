package container_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// lies are how the agents of testdata/liar lie, and what the system's reason is
// then, if it ends by itself.
var lies = map[string]string{
	"mute":        "",
	"deaf":        "",
	"gone":        "its first process died",
	"quits":       "its first process died",
	"twice":       "Ready of process 0",
	"flood":       "Ended of process 0",
	"noise":       "another protocol version",
	"wrong-order": "Ended of process 1",
	"unknown":     "Began of process 1001",
	"huge":        "",
	"output":      "",
}

// liar makes a service whose agents lie. The directory has their program.
func (f *fixture) liar(dir, starter string) {
	f.t.Helper()
	f.config.Libexec, f.config.Runtime = dir, starter
	f.open()
}

// newLiar builds such an agent: without libraries, as the real one is.
func newLiar(t *testing.T) (dir string) {
	t.Helper()
	bin, dir := testenv.Programs(t), t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "hcs-agent"), "./testdata/liar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Symlink(filepath.Join(bin, "hcs-shim"), filepath.Join(dir, "hcs-shim")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLyingAgents has every call return whatever the agent does.
func TestLyingAgents(t *testing.T) {
	testenv.NeedCommand(t, "crun")
	dir := newLiar(t)
	for _, starter := range []string{"native", "crun"} {
		for name, reason := range lies {
			t.Run(starter+" "+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				f.liar(dir, starter)
				f.lieTo(name, reason)
			})
		}
	}
}

// lieTo starts a system with an agent that lies like this, and ends it.
func (f *fixture) lieTo(name, reason string) {
	f.t.Helper()
	ctx := f.t.Context()
	s := f.created(container.Spec{Hostname: name, Log: container.Log{MaxSize: 1 << 16, MaxFiles: 2}})
	if err := s.Start(ctx); err != nil && name == "gone" { // before the start was done
		return
	} else if err != nil {
		f.t.Fatal(err)
	}
	if reason != "" { // which some lies take a process for
		if p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env}); err == nil {
			f.t.Errorf("process %d is there, of which no agent has told", p.Pid())
			f.must(p.Close())
		}
	}
	f.callEverything(s)
	if reason != "" {
		st, err := s.Wait(ctx)
		if err != nil || st.State != container.Stopped || !strings.Contains(st.Reason, reason) {
			f.t.Errorf("got %+v, %v; want the reason %q", st, err, reason)
		}
	}
	f.must(s.Terminate(ctx))
	if st, err := s.Status(ctx); err != nil || st.State != container.Stopped {
		f.t.Errorf("got %+v, %v", st, err)
	}
}

// callEverything makes every call that talks to the agent, each with a little
// time, and sees that it returns.
func (f *fixture) callEverything(s *container.System) {
	f.t.Helper()
	streams := func(o *container.ProcessSpec) { o.Stdout, o.Stderr, o.Pipes = io.Discard, io.Discard, allPipes }
	spec := func(options ...func(*container.ProcessSpec)) *container.ProcessSpec {
		p := &container.ProcessSpec{Args: []string{"true"}, Env: append(env, "X="+strings.Repeat("x", 100_000))}
		for _, o := range options {
			o(p)
		}
		return p
	}
	create := func(options ...func(*container.ProcessSpec)) func(context.Context) error {
		return func(ctx context.Context) error {
			p, err := s.CreateProcess(ctx, spec(options...))
			if err == nil {
				_, err = p.Wait(ctx)
				_ = p.Signal(ctx, syscall.SIGTERM)
				_ = p.CloseStdin(ctx)
				_ = p.Close()
			}
			return err
		}
	}
	for name, call := range map[string]func(context.Context) error{
		"process": create(), "main process": create(main, streams), "held process": create(streams),
		"terminal": create(func(o *container.ProcessSpec) { o.Terminal, o.Stdout = true, io.Discard }),
		"open":     func(ctx context.Context) error { _, err := s.OpenProcess(ctx, 2); return err },
		"status":   func(ctx context.Context) error { _, err := s.Status(ctx); return err },
		"list":     func(ctx context.Context) error { _, err := s.Processes(ctx); return err },
		"pause":    s.Pause, "resume": s.Resume,
		"signal": func(ctx context.Context) error { return s.Signal(ctx, syscall.SIGTERM) },
		"wait":   func(ctx context.Context) error { _, err := s.Wait(ctx); return err },
	} {
		const rounds = 3 // so that a deaf agent's socket is full
		for range rounds {
			ctx, cancel := context.WithTimeout(f.t.Context(), 50*time.Millisecond)
			done := make(chan error, 1)
			go func() { done <- call(ctx) }()
			select {
			case <-done:
			case <-time.After(testenv.Patience):
				f.t.Errorf("%s does not return", name)
			}
			cancel()
		}
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 50*time.Millisecond)
	defer cancel()
	f.check(s.Shutdown(ctx))
}

// TestSilentAgent is one that never says that it is ready.
func TestSilentAgent(t *testing.T) {
	testenv.NeedCommand(t, "crun")
	dir := newLiar(t)
	for _, starter := range []string{"native", "crun"} {
		t.Run(starter, func(t *testing.T) {
			f := newFixture(t)
			f.liar(dir, starter)
			s := f.created(container.Spec{Hostname: "silent"})
			started := make(chan error, 1)
			go func() { started <- s.Start(t.Context()) }()
			f.eventually("it starts", func() bool { return f.state(s) == container.Starting })
			f.must(s.Terminate(t.Context()))
			if err := <-started; err == nil || !strings.Contains(err.Error(), "ended while it started") {
				t.Errorf("got %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := s.Start(ctx); err == nil {
				t.Error("it has started")
			}
		})
	}
}
