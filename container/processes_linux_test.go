package container_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

// find returns the process with that argument.
func find(list []container.ProcessDetails, arg string) *container.ProcessDetails {
	for i := range list {
		if slices.Contains(list[i].Args, arg) {
			return &list[i]
		}
	}
	return nil
}

func TestProcessDetails(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{})
		if list, err := s.Processes(ctx); err != nil || len(list) != 0 {
			t.Errorf("before the first: %+v, %v", list, err)
		}
		before := time.Now().Add(-time.Second)
		p := f.held(s, "sleep 1234 & echo ready; while :; do :; done", user("1234:5678"))
		streams, err := p.OpenStdio(ctx)
		f.must(err)
		f.expect(streams.Stdout, "ready\n")
		var sh, child *container.ProcessDetails
		var list []container.ProcessDetails
		f.eventually("it has used a processor, and its child is another program", func() bool {
			list, err = s.Processes(ctx)
			f.must(err)
			sh, child = find(list, "-c"), find(list, "1234")
			return sh != nil && sh.User+sh.System > 0 && child != nil && child.Name == "sleep"
		})
		if sh.Pid != p.Pid() || sh.ParentPid != 1 || sh.Name != "sh" || sh.UID != 1234 || sh.HostUID != 1234 ||
			sh.State != "R" || sh.Started.Before(before) || sh.Started.After(time.Now().Add(time.Second)) {
			t.Errorf("got %+v", sh)
		}
		if sh.Resident == 0 || sh.Resident != sh.Private+sh.Shared || sh.Virtual < sh.Resident {
			t.Errorf("memory: %+v", sh)
		}
		if argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", sh.HostPid)); err != nil || string(argv) != strings.Join(sh.Args, "\x00")+"\x00" {
			t.Errorf("on the host: %q, %v", argv, err)
		}
		// This one its parent has started itself.
		if child.ParentPid != sh.Pid || len(list) != 2 {
			t.Errorf("got %+v of %+v", child, list)
		}
		f.must(p.Signal(ctx, syscall.SIGKILL))
		f.wait(p)
		f.must(streams.Close())
	})
}

// TestLookFromElsewhere has a service that gives systems other control groups
// than the one that started them look at one, and one at a system without any.
func TestLookFromElsewhere(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	f.config.CgroupParent += "-other"
	elsewhere, err := container.Open(f.config)
	f.must(err)
	seen, err := elsewhere.Open(t.Context(), s.ID())
	f.must(err)
	defer func() { f.must(seen.Close()) }()
	p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
	f.must(err)
	list, err := seen.Processes(t.Context())
	f.must(err)
	if len(list) != 1 || list[0].Pid != p.Pid() {
		t.Errorf("got %+v, want process %d", list, p.Pid())
	}
	if st, err := seen.Stats(t.Context()); err != nil || st.Pids == 0 {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestProcessDetailsOfThoseThatEnd lists while processes come and go.
func TestProcessDetailsOfThoseThatEnd(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	p := f.held(s, "while :; do (true) & /bin/true & wait; done")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				list, err := s.Processes(ctx)
				if err != nil || find(list, "-c") == nil {
					t.Errorf("got %+v, %v", list, err)
					return
				}
			}
		})
	}
	all.Wait()
	f.must(p.Signal(ctx, syscall.SIGKILL))
	f.must(s.Pause(ctx))
	if _, err := s.Processes(ctx); err != nil {
		t.Errorf("while paused: %v", err)
	}
	f.must(s.Resume(ctx))
	f.must(s.Terminate(ctx))
	if _, err := s.Processes(ctx); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "it is stopped") {
		t.Errorf("after the end: %v", err)
	}
}

func BenchmarkProcesses(b *testing.B) {
	f := newFixture(b)
	s := f.running(container.Spec{})
	p, err := s.CreateProcess(b.Context(), &container.ProcessSpec{
		Args: []string{"sh", "-c", "for i in $(seq 199); do sleep 1000 & done; echo ready; wait"}, Env: env, Pipes: allPipes,
	})
	f.must(err)
	streams, err := p.OpenStdio(b.Context())
	f.must(err)
	f.expect(streams.Stdout, "ready\n")
	for b.Loop() {
		if list, err := s.Processes(b.Context()); err != nil || len(list) != 200 {
			b.Fatalf("%d processes, %v", len(list), err)
		}
	}
	f.must(streams.Close())
}
