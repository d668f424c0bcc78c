package container_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// fill starts processes until one is refused, and returns them.
func (f *fixture) fill(s *container.System) (list []*container.Process) {
	f.t.Helper()
	const most = 100
	for len(list) < most {
		p, err := s.CreateProcess(f.t.Context(), &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
		if err != nil {
			return list
		}
		list = append(list, p)
	}
	f.t.Fatalf("there are %d processes", most)
	return nil
}

// counted checks what is told of the processes and their limit. The agent may be
// making a thread, which is not counted in the same moment as it is not the
// processes'.
func (f *fixture) counted(s *container.System, pids, limit int) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("%d processes are counted, and a limit of %d", pids, limit), func() bool {
		st, err := s.Stats(f.t.Context())
		f.must(err)
		return st.Pids == uint64(pids) && st.PidsLimit == uint64(limit)
	})
}

// TestPidsLimit has a system have exactly as many processes as it may, also
// after that was changed, while its agent does all it should.
func TestPidsLimit(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{Resources: container.Resources{Pids: 10}})
		f.counted(s, 0, 10)
		all := f.fill(s)
		if len(all) != 10 {
			t.Errorf("%d processes under a limit of 10", len(all))
		}
		f.counted(s, 10, 10)
		f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{Pids: new(int64(12))}}))
		all = append(all, f.fill(s)...)
		f.counted(s, 12, 12)
		for _, p := range slices.Backward(all) { // the agent reaps, and tells, with no process to spare
			f.must(p.Signal(ctx, syscall.SIGKILL))
			if st := f.wait(p); st.Signal != syscall.SIGKILL {
				t.Errorf("got %+v", st)
			}
		}
		f.eventually("none is counted", func() bool {
			st, err := s.Stats(ctx)
			return err == nil && st.Pids == 0
		})
		f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{Pids: new(int64(0))}}))
		f.counted(s, 0, 0)
		f.ok(s, "for i in $(seq 20); do sleep 0.1 & done; wait")
		f.must(s.Shutdown(ctx))
	})
}

// TestPidsLimitLater has a limit come while the system runs, in a user
// namespace whose root has no rights to control groups.
func TestPidsLimitLater(t *testing.T) {
	f := newIDsFixture(t)
	testenv.NeedKernel(t, testenv.MappedMounts)
	s := f.running(container.Spec{IDs: container.AutoIDs})
	f.ok(s, "(sleep 1000 >/dev/null 2>&1 &) ; (sleep 1000 >/dev/null 2>&1 &)")
	f.counted(s, 2, 0)
	f.must(s.Modify(t.Context(), container.Change{Resources: container.ResourcesChange{Pids: new(int64(5))}}))
	if n := len(f.fill(s)); n != 3 {
		t.Errorf("%d processes beside 2 under a limit of 5", n)
	}
	f.counted(s, 5, 5)
	if list, err := s.Processes(t.Context()); err != nil || len(list) != 5 {
		t.Errorf("%d processes are listed, %v", len(list), err)
	}
}

// TestPidsLimitWhileTheyMultiply has a limit come while processes begin and
// end all the time.
func TestPidsLimitWhileTheyMultiply(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{})
		const forks = "while :; do (sleep 1000 & kill $!) 2>/dev/null; done"
		for range 4 {
			_, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sh", "-c", forks}, Env: env})
			f.must(err)
		}
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
		f.must(err)
		for _, n := range []int64{12, 0, 9} {
			f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{Pids: new(n)}}))
			if n == 0 {
				continue
			}
			f.eventually("the limit holds", func() bool {
				st, err := s.Stats(ctx)
				f.must(err)
				return st.Pids <= uint64(n) && st.PidsLimit == uint64(n)
			})
		}
		f.fill(s)
		f.eventually("there are no more than 9", func() bool {
			st, err := s.Stats(ctx)
			f.must(err)
			return st.Pids <= 9
		})
		f.must(p.Signal(ctx, syscall.SIGKILL))
		f.wait(p)
	})
}
