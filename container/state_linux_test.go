package container_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

// states is the order of the columns below.
var states = []container.State{
	container.Created, container.Starting, container.Running, container.Paused, container.Stopping, container.Stopped, container.Lost,
}

// stateCalls says what each call does in each state: "ok", "refused" with class
// ErrFailedPrecondition, "none" with class ErrNotFound, or "waits" until its
// context ends; and after the slash the state that the system is in then, where
// that is another. docs/compute.md has the same table.
var stateCalls = []struct {
	name string
	call func(context.Context, *container.System) error
	want string
}{
	{"Start", func(ctx context.Context, s *container.System) error { return s.Start(ctx) }, "ok/running waits ok ok waits ok/running ok/running"},
	{"CreateProcess", func(ctx context.Context, s *container.System) error {
		_, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env})
		return err
	}, "refused refused ok refused refused refused refused"},
	{"OpenProcess", func(ctx context.Context, s *container.System) error {
		st, err := s.Status(ctx)
		if err != nil {
			return err
		}
		pid := 2
		if st.State.IsUp() && len(st.Processes) > 0 {
			pid = st.Processes[0].Pid
		}
		p, err := s.OpenProcess(ctx, pid)
		if err == nil {
			err = p.Close()
		}
		return err
	}, "refused none ok ok ok refused refused"},
	{"Signal", func(ctx context.Context, s *container.System) error { return s.Signal(ctx, syscall.SIGUSR1) }, "refused refused ok refused ok refused refused"},
	{"Kill", func(ctx context.Context, s *container.System) error {
		err := s.Signal(ctx, syscall.SIGKILL)
		if err == nil {
			_, err = s.Wait(ctx)
		}
		return err
	}, "refused refused ok/stopped ok/stopped ok/stopped refused refused"},
	{"Pause", func(ctx context.Context, s *container.System) error { return s.Pause(ctx) }, "refused refused ok/paused ok refused refused refused"},
	{"Resume", func(ctx context.Context, s *container.System) error { return s.Resume(ctx) }, "refused refused ok ok/running refused refused refused"},
	{"Processes", func(ctx context.Context, s *container.System) error { _, err := s.Processes(ctx); return err }, "refused refused ok ok ok refused refused"},
	{"Stats", func(ctx context.Context, s *container.System) error { _, err := s.Stats(ctx); return err }, "refused refused ok ok ok refused refused"},
	{"Modify", func(ctx context.Context, s *container.System) error {
		return s.Modify(ctx, container.Change{Resources: container.ResourcesChange{Pids: new(int64(50))}})
	}, "ok waits ok ok ok ok ok"},
	{"Status", func(ctx context.Context, s *container.System) error { _, err := s.Status(ctx); return err }, "ok ok ok ok ok ok ok"},
	{"Logs", func(ctx context.Context, s *container.System) error {
		for _, err := range s.Logs(ctx, container.LogOptions{}) {
			if err != nil {
				return err
			}
		}
		return nil
	}, "ok ok ok ok ok ok ok"},
	{"Wait", func(ctx context.Context, s *container.System) error { _, err := s.Wait(ctx); return err }, "ok waits waits waits waits ok ok"},
	{"BeginShutdown", func(ctx context.Context, s *container.System) error { return s.BeginShutdown(ctx) }, "refused ok/created ok/stopping refused ok refused refused"},
	{"Shutdown", func(ctx context.Context, s *container.System) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond) // which it would take the whole of
		defer cancel()
		return s.Shutdown(ctx)
	}, "ok ok/created ok/stopped ok/stopped ok/stopped ok ok/lost"},
	{"BeginTerminate", func(ctx context.Context, s *container.System) error { return s.BeginTerminate(ctx) }, "refused ok/created ok/stopped ok/stopped ok/stopped refused refused"},
	{"Terminate", func(ctx context.Context, s *container.System) error { return s.Terminate(ctx) }, "ok ok/created ok/stopped ok/stopped ok/stopped ok ok"},
	{"Delete", func(ctx context.Context, s *container.System) error { return s.Delete(ctx) }, "ok/gone waits refused refused refused ok/gone ok/gone"},
}

// TestCallsInStates walks every state and call.
func TestCallsInStates(t *testing.T) {
	f := newFixture(t)
	slow := f.withSlowRuntime()
	for _, c := range stateCalls {
		cells := strings.Fields(c.want)
		for i, state := range states {
			t.Run(c.name+" when "+string(state), func(t *testing.T) {
				here := *f
				here.t = t
				if state == container.Starting {
					here.Service = slow
				}
				s := here.inState(state)
				outcome, after, _ := strings.Cut(cells[i], "/")
				here.calls(s, c.call, outcome)
				if after == "" {
					after = string(state)
				}
				here.eventually("it is "+after, func() bool { return here.stateName(s) == after })
				if after != "gone" {
					here.check(s.Terminate(t.Context()))
				}
			})
		}
	}
}

// calls makes a call and judges its outcome.
func (f *fixture) calls(s *container.System, call func(context.Context, *container.System) error, want string) {
	f.t.Helper()
	limit := time.Minute
	if want == "waits" {
		limit = 50 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), limit)
	defer cancel()
	err := call(ctx, s)
	ok := map[string]bool{
		"ok": err == nil, "waits": errors.Is(err, context.DeadlineExceeded),
		"refused": errdefs.IsFailedPrecondition(err), "none": errdefs.IsNotFound(err),
	}[want]
	if !ok {
		f.t.Fatalf("got %v; want it %s", err, want)
	}
	if want == "refused" && !strings.Contains(err.Error(), " container ") {
		f.t.Errorf("the error does not name its object: %v", err)
	}
}

func (f *fixture) stateName(s *container.System) string {
	st, err := s.Status(f.t.Context())
	if errdefs.IsNotFound(err) {
		return "gone"
	}
	f.must(err)
	return string(st.State)
}

// withSlowRuntime returns a service whose systems start for ever.
func (f *fixture) withSlowRuntime() *container.Service {
	f.t.Helper()
	config := f.config
	config.Runtime = filepath.Join(f.t.TempDir(), "runc")
	script := "#!/bin/sh\n[ \"$1\" != --version ] || { echo runc version 1.0; exit; }\nexec sleep 1000\n"
	f.must(os.WriteFile(config.Runtime, []byte(script), 0o755))
	s, err := container.Open(config)
	f.must(err)
	return s
}

// inState makes a system and brings it into the state. Its main process takes
// no notice of being asked to end.
func (f *fixture) inState(want container.State) *container.System {
	f.t.Helper()
	ctx := f.t.Context()
	s := f.created(container.Spec{})
	switch want {
	case container.Created:
		return s
	case container.Starting:
		started := make(chan error, 1)
		go func() { started <- s.Start(ctx) }()
		f.t.Cleanup(func() {
			if err := <-started; err == nil {
				f.t.Error("it has started")
			}
		})
		f.eventually("it starts", func() bool { return f.state(s) == container.Starting })
		return s
	}
	f.must(s.Start(ctx))
	p := f.held(s, "trap '' TERM USR1; echo ready; while :; do sleep 1000; done", main)
	streams, err := p.OpenStdio(ctx)
	f.must(err)
	_ = streams.Close() // what it says is in the log
	f.eventually("it is ready", func() bool {
		for out, err := range s.Logs(ctx, container.LogOptions{}) {
			f.must(err)
			return string(out.Text) == "ready\n"
		}
		return false
	})
	switch want {
	case container.Paused:
		f.must(s.Pause(ctx))
	case container.Stopping:
		f.must(s.BeginShutdown(ctx))
	case container.Stopped:
		f.must(s.Terminate(ctx))
	case container.Lost:
		st, err := s.Status(ctx)
		f.must(err)
		f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
		f.gone(st.ShimPid)
		f.gone(st.Pid)
	}
	return s
}

// TestShutdownAsksAll asks everybody, where there is no main process: those that
// others have started, too.
func TestShutdownAsksAll(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{StopSignal: int(syscall.SIGUSR1)})
		asked := f.held(s, "trap 'echo asked; exit 3' USR1; echo ready; while :; do sleep 0.01; done")
		child := f.held(s, "(trap 'sleep 0.1; echo late > /late; exit' USR1; echo ready; while :; do sleep 0.01; done) & exit 4")
		for _, p := range []*container.Process{asked, child} {
			streams, err := p.OpenStdio(ctx)
			f.must(err)
			f.expect(streams.Stdout, "ready\n")
			defer streams.Close()
		}
		f.wait(child) // but not what it has started
		f.must(s.Shutdown(ctx))
		if st := f.wait(asked); st.Code != 3 {
			t.Errorf("the one that was asked: %+v", st)
		}
		if st := f.wait(child); st.Code != 4 {
			t.Errorf("the one that had ended: %+v", st)
		}
		scratch, err := s.Scratch()
		f.must(err)
		if _, err := os.Stat(filepath.Join(scratch.Upper(), "late")); err != nil {
			t.Errorf("its child was not waited for: %v", err)
		}
		if st, err := s.Status(ctx); err != nil || st.State != container.Stopped || st.Reason != "" {
			t.Errorf("got %+v, %v", st, err)
		}
	})
}

// TestShutdownOfNothing ends a system without a process at once.
func TestShutdownOfNothing(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	f.ok(s, "true")
	f.must(s.BeginShutdown(t.Context()))
	st, err := s.Wait(t.Context())
	if err != nil || st.State != container.Stopped || st.Reason != "" {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestShutdownMeetsStarts has processes begin and the system shut down at once:
// whoever began gets the signal, whoever did not an error.
func TestShutdownMeetsStarts(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for range 10 {
		s := f.running(container.Spec{})
		ended := make(chan error, 4)
		for range 4 {
			go func() {
				p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
				if err == nil {
					_, err = p.Wait(ctx)
				} else if errdefs.IsFailedPrecondition(err) {
					err = nil
				}
				ended <- err
			}()
		}
		f.must(s.BeginShutdown(ctx))
		if st, err := s.Wait(ctx); err != nil || st.Reason != "" {
			t.Errorf("got %+v, %v", st, err)
		}
		for range 4 {
			f.check(<-ended)
		}
	}
}

// TestStartWhileStopping waits for the end, and starts again.
func TestStartWhileStopping(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.inState(container.Stopping)
	started := make(chan error, 1)
	go func() { started <- s.Start(ctx) }()
	f.must(s.BeginTerminate(ctx))
	f.must(<-started)
	f.ok(s, "true")
}
