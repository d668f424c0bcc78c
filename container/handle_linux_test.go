package container_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hostcompute/hcs/container"
)

// listed returns the system as a listing has it: not as a handle.
func (f *fixture) listed(id string) *container.System {
	f.t.Helper()
	systems, err := f.Systems(f.t.Context())
	f.must(err)
	for _, s := range systems {
		if s.ID() == id {
			f.t.Cleanup(func() { s.Close() })
			return s
		}
	}
	f.t.Fatalf("no system %s", id)
	return nil
}

// endsForWantOfHandles waits for the end and its reason.
func (f *fixture) endsForWantOfHandles(s *container.System) {
	f.t.Helper()
	st, err := s.Wait(f.t.Context())
	f.must(err)
	if st.State != container.Stopped || st.Reason != "its last handle was closed" {
		f.t.Errorf("got %+v", st)
	}
}

func TestLastHandle(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{HandleBound: true})
		other, err := f.Open(ctx, s.ID())
		f.must(err)
		looker := f.listed(s.ID())
		f.must(s.Close())
		f.ok(looker, "true") // the other handle keeps it
		f.must(other.Close())
		f.endsForWantOfHandles(looker)
		f.must(other.Close())
		again, err := f.Open(ctx, s.ID())
		f.must(err)
		f.must(again.Start(ctx)) // it is a system like others
		f.ok(again, "true")
		f.must(again.Close())
		f.endsForWantOfHandles(looker)
	})
}

// TestHandlesOfKilledPrograms has two programs, of which one starts what this
// one has created: the system ends with the second, not with the first.
func TestHandlesOfKilledPrograms(t *testing.T) {
	f := newFixture(t)
	for _, ephemeral := range []bool{false, true} {
		s := f.created(container.Spec{HandleBound: true, Ephemeral: ephemeral})
		waiter, _ := f.program(programOrder{System: s.ID()}) // before it starts
		starter, _ := f.program(programOrder{System: s.ID(), Start: true, Script: "sleep 1000"})
		looker := f.listed(s.ID())
		f.must(s.Close())
		st, err := looker.Status(t.Context())
		f.must(err)
		f.killProgram(starter)
		f.ok(looker, "true")
		f.killProgram(waiter)
		if ephemeral {
			f.gone(st.ShimPid)
			continue
		}
		f.endsForWantOfHandles(looker)
		f.gone(st.Pid)
	}
}

// TestHandlesKilledAtAnyTime kills the last program at any moment of the start
// that it asked for: nothing runs on.
func TestHandlesKilledAtAnyTime(t *testing.T) {
	f := newFixture(t)
	for range 12 {
		s := f.created(container.Spec{HandleBound: true})
		starter, _ := f.launch(programOrder{System: s.ID(), Start: true})
		f.must(s.Close())
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		f.killProgram(starter)
		looker := f.listed(s.ID())
		f.eventually("it does not run", func() bool {
			st, err := looker.Status(t.Context())
			return err == nil && st.State != container.Running
		})
	}
}

// TestWithoutHandles is how systems are that are not bound to any.
func TestWithoutHandles(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	looker := f.listed(s.ID())
	f.must(s.Close())
	f.ok(looker, "true")
}
