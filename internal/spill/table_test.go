package spill_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hostcompute/hcs/internal/spill"
)

// TestTable adds and finds numbers at random, many of the same hash among them, and compares with a map.
func TestTable(t *testing.T) {
	t.Parallel()
	for _, memory := range []int{0, 64 << 10, 1 << 30} {
		s, files := store(t, memory)
		table := spill.NewTable(s, func(v uint64) uint64 { return v << 40 }) // the lower 24 bits, and no more
		want := make(map[uint64]bool)
		random := rand.New(rand.NewPCG(5, 6))
		for range 30_000 {
			v := random.Uint64N(1<<26) + 1
			got, place, found := table.Find(v<<40, func(other uint64) bool { return other == v })
			if found != want[v] || found && got != v {
				t.Fatalf("%d bytes: %d is found: %v, as %d", memory, v, found, got)
			}
			if !found {
				if table.Full() {
					t.Fatal("no place is left")
				}
				table.Put(place, v)
				want[v] = true
			}
			must(t, table.Trim())
		}
		for v := range want {
			if _, _, found := table.Find(v<<40, func(other uint64) bool { return other == v }); !found {
				t.Fatalf("%d bytes: %d is lost", memory, v)
			}
		}
		if table.Len() != len(want) {
			t.Errorf("%d values, want %d", table.Len(), len(want))
		}
		if small := memory < 1<<20; small != (*files > 0) {
			t.Errorf("%d bytes of memory: %d files", memory, *files)
		}
	}
}
