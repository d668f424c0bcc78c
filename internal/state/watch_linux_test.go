package state_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/state"
)

// More changes than the kernel queues for a watcher that does not listen: it drops events, and tells that it did.
func TestWatchRecoversFromOverflow(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	limit, err := strconv.Atoi(strings.TrimSpace(string(data)))
	must(t, err)
	s, err := state.Open[record](state.Config{Dir: t.TempDir(), Kind: "thing", Durability: state.Volatile})
	must(t, err)
	must(t, s.Put("deleted", whole(1)))
	must(t, s.Put("noise", whole(1)))
	next, _ := watch(t, s)
	wantChange(t, next, state.Change{ID: "deleted", Kind: state.Put})
	wantChange(t, next, state.Change{ID: "noise", Kind: state.Put})

	fill(t, s.Dir("noise"), limit)
	must(t, s.Put("late", whole(2)))
	must(t, s.Delete("deleted"))
	late, deleted := false, false
	for !late || !deleted {
		c, err := next()
		if err != nil {
			t.Fatalf("put seen: %v, delete seen: %v: %v", late, deleted, err)
		}
		late = late || c == state.Change{ID: "late", Kind: state.Put}
		deleted = deleted || c == state.Change{ID: "deleted", Kind: state.Deleted}
	}
	must(t, s.Put("late", whole(3))) // watched, although its creation was dropped
	wantChange(t, next, state.Change{ID: "late", Kind: state.Put})
}

// fill causes as many events as asked for, all different: the kernel merges an event with an equal one before it.
func fill(t *testing.T, dir string, events int) {
	t.Helper()
	last := ""
	for i := range events {
		name := fmt.Sprintf("%s/.record-%d", dir, i)
		if last == "" {
			must(t, os.WriteFile(name, nil, 0o600))
		} else {
			must(t, os.Rename(last, name))
		}
		last = name
	}
	must(t, os.Remove(last))
}
