package state_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/state"
)

// add is what every user of a lock does: read, change, write.
func add(s *state.Store[record]) (err error) {
	lock, err := s.Lock(context.Background(), "sum")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	sum, err := s.Get("sum")
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	sum.Seq++
	return s.Put("sum", sum)
}

func TestLockExcludesOtherProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var counters []*exec.Cmd
	for range 3 {
		cmd, _ := start(t, "counter", dir)
		counters = append(counters, cmd)
	}
	s := open(t, dir)
	for range counts {
		must(t, add(s))
	}
	for _, c := range counters {
		must(t, c.Wait())
	}
	sum, err := s.Get("sum")
	must(t, err)
	if want := 4 * counts; sum.Seq != want {
		t.Errorf("4 processes added 1 %d times each: got %d, want %d", counts, sum.Seq, want)
	}
}

// Without a record every Unlock removes the lock's file while others wait with it open.
func TestLockExcludesWhileItsFileIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	var (
		inside atomic.Int32
		wg     sync.WaitGroup
	)
	for range 8 {
		wg.Go(func() {
			for range 200 {
				lock, err := s.Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders at once", n)
				}
				inside.Add(-1)
				if err := lock.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff([]string{".lock"}, tree(t, dir)); diff != "" {
		t.Errorf("files afterwards (-want +got):\n%s", diff)
	}
}

func TestSharedAndExclusive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		first, then func(*state.Store[record]) (*state.Lock, error)
		together    bool
	}{
		{"shared, shared", tryShared, tryShared, true},
		{"shared, exclusive", tryShared, tryExclusive, false},
		{"exclusive, shared", tryExclusive, tryShared, false},
		{"exclusive, exclusive", tryExclusive, tryExclusive, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir)
			first, err := c.first(s)
			must(t, err)
			then, err := c.then(s)
			if c.together {
				must(t, err)
				must(t, then.Unlock())
			} else if !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			must(t, first.Unlock())
			then, err = c.then(s)
			must(t, err)
			must(t, then.Unlock())
			if diff := cmp.Diff([]string{".lock"}, tree(t, dir)); diff != "" {
				t.Errorf("files afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

func tryShared(s *state.Store[record]) (*state.Lock, error)    { return s.TryLockShared("a") }
func tryExclusive(s *state.Store[record]) (*state.Lock, error) { return s.TryLock("a") }

func TestLockWaitsUntilTheContextIsDone(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	held, err := s.TryLock("a")
	must(t, err)
	for name, lock := range map[string]func(context.Context, string) (*state.Lock, error){
		"Lock": s.Lock, "LockShared": s.LockShared,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(errDone) })
		if _, err := lock(ctx, "a"); !errors.Is(err, errDone) {
			t.Errorf("%s: got %v, want the context's cause", name, err)
		}
	}
	must(t, held.Unlock())
}

func TestLockWaitsForTheHolder(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	held, err := s.TryLock("a")
	must(t, err)
	var unlocked atomic.Bool
	time.AfterFunc(30*time.Millisecond, func() {
		unlocked.Store(true)
		if err := held.Unlock(); err != nil {
			t.Error(err)
		}
	})
	next, err := s.LockShared(t.Context(), "a")
	must(t, err)
	if !unlocked.Load() {
		t.Error("LockShared returned while another held the lock exclusively")
	}
	must(t, next.Unlock())
}

func TestLockIsFreeAfterItsHolderWasKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	cmd, lines := start(t, "holder", dir)
	if !lines.Scan() {
		t.Fatal("the holder did not start")
	}
	if _, err := s.TryLock("a"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("while it lives: got %v, want ErrUnavailable", err)
	}
	kill(t, cmd)
	lock, err := s.TryLock("a")
	must(t, err)
	must(t, lock.Unlock())
}

func BenchmarkLock(b *testing.B) {
	s := open(b, b.TempDir())
	for b.Loop() {
		lock, err := s.Lock(b.Context(), "a")
		must(b, err)
		must(b, lock.Unlock())
	}
}

// TestLockAll is a lock of its own, shared or not, that leaves no file.
func TestLockAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	ctx := context.Background()
	var shared []*state.Lock
	for _, store := range []*state.Store[record]{s, other} {
		lock, err := store.LockAllShared(ctx)
		must(t, err)
		shared = append(shared, lock)
	}
	object, err := s.Lock(ctx, "object")
	must(t, err)
	must(t, object.Unlock())
	alone := make(chan error, 1)
	go func() {
		lock, err := other.LockAll(ctx)
		if err == nil {
			err = lock.Unlock()
		}
		alone <- err
	}()
	for _, lock := range shared {
		select {
		case err := <-alone:
			t.Fatalf("got the lock, with %v, while others share it", err)
		case <-time.After(5 * time.Millisecond):
		}
		must(t, lock.Unlock())
	}
	must(t, <-alone)

	lock, err := s.LockAll(ctx)
	must(t, err)
	short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	if _, err := other.LockAllShared(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	must(t, lock.Unlock())
	if left := leftOf(t, filepath.Join(dir, ".lock")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestLocksElsewhere keeps them in a directory that may be gone after a boot.
func TestLocksElsewhere(t *testing.T) {
	t.Parallel()
	dir, locks := t.TempDir(), filepath.Join(t.TempDir(), "run", "locks")
	var stores []*state.Store[record]
	for range 2 {
		s, err := state.Open[record](state.Config{Dir: dir, Locks: locks})
		must(t, err)
		stores = append(stores, s)
	}
	lock, err := stores[0].Lock(context.Background(), "a")
	must(t, err)
	if _, err := stores[1].TryLock("a"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if left := leftOf(t, dir); len(left) > 0 {
		t.Errorf("in the store's own directory: %v", left)
	}
	must(t, lock.Unlock())
	must(t, os.WriteFile(filepath.Join(locks, "gone"), nil, 0o600)) // of who was killed
	_, err = stores[0].Prune()
	must(t, err)
	if left := leftOf(t, locks); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func leftOf(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	return list
}
