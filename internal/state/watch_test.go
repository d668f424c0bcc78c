package state_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/testenv"
)

// watch pulls one change at a time; a watcher that misses one fails the test instead of hanging it.
func watch(t *testing.T, s *state.Store[record]) (next func() (state.Change, error), cancel context.CancelCauseFunc) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	limit := time.AfterFunc(testenv.Patience, func() { cancel(errors.New("no change")) })
	pull, stop := iter.Pull2(s.Watch(ctx))
	t.Cleanup(func() { limit.Stop(); stop(); cancel(nil) })
	return func() (state.Change, error) {
		c, err, _ := pull()
		return c, err
	}, cancel
}

func wantChange(t *testing.T, next func() (state.Change, error), want state.Change) {
	t.Helper()
	for {
		got, err := next()
		if err != nil {
			t.Fatalf("waiting for %s of %s: %v", want.Kind, want.ID, err)
		}
		if got == want {
			return
		}
		if got.Kind != state.Put { // one more put of the same object is allowed, a lost object is not
			t.Fatalf("got %s of %s, want %s of %s", got.Kind, got.ID, want.Kind, want.ID)
		}
	}
}

func TestWatchStartsWithWhatIsThere(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	must(t, s.Put("b", whole(1)))
	must(t, s.Put("a", whole(1)))
	next, _ := watch(t, s)
	var got []state.Change
	for range 2 {
		c, err := next()
		must(t, err)
		got = append(got, c)
	}
	want := []state.Change{{ID: "a", Kind: state.Put}, {ID: "b", Kind: state.Put}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWatchTellsOfEveryChange(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	must(t, s.Put("first", whole(1)))
	next, _ := watch(t, s)
	wantChange(t, next, state.Change{ID: "first", Kind: state.Put})
	for _, step := range []struct {
		do   func(string) error
		kind state.ChangeKind
	}{
		{func(id string) error { return s.Put(id, whole(1)) }, state.Put},
		{func(id string) error { return s.Put(id, whole(2)) }, state.Put},
		{s.Delete, state.Deleted},
		{func(id string) error { return s.Put(id, whole(3)) }, state.Put}, // a new directory of the old name
		{func(id string) error { return s.Put(id, whole(4)) }, state.Put},
		{s.Delete, state.Deleted},
	} {
		must(t, step.do("a"))
		wantChange(t, next, state.Change{ID: "a", Kind: step.kind})
	}
}

func TestWatchEndsWithTheContextsCause(t *testing.T) {
	t.Parallel()
	next, cancel := watch(t, open(t, t.TempDir()))
	enough := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(enough) })
	if c, err := next(); !errors.Is(err, enough) {
		t.Errorf("got %v, %v, want the context's cause", c, err)
	}
}

func TestWatchEndsWithTheStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Put("a", whole(1)))
	next, _ := watch(t, s)
	wantChange(t, next, state.Change{ID: "a", Kind: state.Put})
	must(t, os.RemoveAll(dir))
	for {
		c, err := next()
		if err != nil {
			return
		}
		if c.ID != "a" {
			t.Fatalf("got %v, want changes of a, then an error", c)
		}
	}
}
