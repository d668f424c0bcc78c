package container_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/container"
)

// TestShimDiesAtOnce kills the shim the moment that Start has returned: the
// system is lost, each time, to whoever looks, and not one that never ran.
func TestShimDiesAtOnce(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	f := newFixture(t)
	s := f.created(container.Spec{})
	for round := range rounds {
		found := make(chan int, 1)
		go func() { found <- f.awaitShim(s) }()
		f.must(s.Start(t.Context()))
		pid := <-found
		f.must(syscall.Kill(pid, syscall.SIGKILL))
		f.eventually("its shim is gone", func() bool { return shimOf(f.runDir(s)) == 0 })
		st, err := s.Status(t.Context())
		f.must(err)
		if st.State != container.Lost || st.Reason != "its shim died" || st.Started.IsZero() {
			t.Fatalf("round %d: %+v", round, st)
		}
		events := f.lost(s)
		if events != round+1 {
			t.Fatalf("round %d: told %d times that it is lost", round, events)
		}
	}
}

func (f *fixture) awaitShim(s *container.System) (pid int) {
	for pid == 0 {
		pid = shimOf(f.runDir(s))
	}
	return pid
}

// lost counts how often it was told.
func (f *fixture) lost(s *container.System) (n int) {
	f.t.Helper()
	for _, e := range f.past(container.Oldest) {
		if e.ID == s.ID() && e.Kind == container.EventLost {
			n++
		}
	}
	return n
}

// TestStartFailsAsItWas has the first process fail, of a system that never ran
// and of one that did: it is what it was.
func TestStartFailsAsItWas(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.dir, "mapped")
	f.must(os.Mkdir(dir, 0o755))
	s := f.created(container.Spec{Mounts: []container.Mount{{Source: dir, Target: "/bin"}}})
	fails := func(want container.State) {
		t.Helper()
		f.must(os.Remove(dir))
		f.must(os.WriteFile(dir, nil, 0o644))
		if err := s.Start(t.Context()); err == nil {
			t.Error("started with a file on a directory")
		}
		if st, err := s.Status(t.Context()); err != nil || st.State != want {
			t.Errorf("%+v, %v; want it %s", st, err, want)
		}
		f.must(os.Remove(dir))
		f.must(os.Mkdir(dir, 0o755))
	}
	fails(container.Created)
	f.must(s.Start(t.Context()))
	f.must(s.Terminate(t.Context()))
	fails(container.Stopped)
}
