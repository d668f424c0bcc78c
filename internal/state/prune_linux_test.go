package state_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hostcompute/hcs/internal/state"
)

// An owner may remove an object's directory as a whole; its lock is then
// left until Prune.
func TestPruneRemovesLocksOfWhatIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := state.Open[int](state.Config{Dir: dir, Kind: "thing"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"gone", "held", "there"} {
		lock, err := s.Lock(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(id, 1); err != nil {
			t.Fatal(err)
		}
		if id == "held" {
			defer runtime.KeepAlive(lock) // a lock that nobody can use any more goes with the garbage
		} else if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
		if id != "there" {
			if err := os.RemoveAll(s.Dir(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.GC()
	if _, err := s.Prune(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"gone": false, "held": true, "there": true} {
		if _, err := os.Lstat(filepath.Join(dir, ".lock", id)); (err == nil) != want {
			t.Errorf("lock of %s: %v", id, err)
		}
	}
}
