package container_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

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

// TestEphemeralIsNotLost has somebody look all the time at systems that end and
// go by themselves, with files whose removal takes its time: what he sees is
// how they ended, until there is nothing to be seen.
func TestEphemeralIsNotLost(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	f := newFixture(t)
	for range rounds {
		s := f.running(container.Spec{Ephemeral: true})
		seen := make(chan string, 1)
		looks := make(chan struct{})
		go func() {
			for n := 0; ; n++ {
				var st container.Status
				again, err := f.Open(t.Context(), s.ID())
				if err == nil {
					st, err = again.Status(t.Context())
					err = errors.Join(err, again.Close())
				}
				switch {
				case errdefs.IsNotFound(err):
					seen <- ""
					return
				case err != nil, st.State == container.Lost, st.State == container.Created,
					st.State == container.Stopped && st.ExitCode != 3:
					seen <- fmt.Sprintf("%+v, %v", st, err)
					return
				}
				if n == 0 {
					close(looks)
				}
			}
		}()
		<-looks
		f.run(s, "cd /; for d in a b c d e f g h; do mkdir $d; for i in $(seq 100); do : >$d/$i; done; done; exit 3", main)
		if was := <-seen; was != "" {
			t.Errorf("somebody saw %s", was)
		}
		if n := f.lost(s); n > 0 {
			t.Errorf("told %d times that it is lost", n)
		}
	}
}
