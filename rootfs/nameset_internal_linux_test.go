package rootfs

import (
	"os"
	"strconv"
	"testing"
)

// TestNameSet has more names than fit into a set's memory.
func TestNameSet(t *testing.T) {
	t.Parallel()
	files := 0
	s := newNameSet(func() (_ *os.File, err error) {
		files++
		return temporaryFile()
	})
	const count = 400_000
	name := func(i int) nameID { return nameID{objectID{1, uint64(i % 3)}, strconv.Itoa(i / 2 * 2)} }
	for i := range count {
		if before := s.has(name(i)); before {
			t.Fatalf("name %d is there before it is added", i)
		}
		for again := range 2 {
			if fresh, err := s.add(name(i)); err != nil || fresh != (again == 0) {
				t.Fatalf("name %d is new: %v, %v", i, fresh, err)
			}
		}
	}
	for i := range count {
		if !s.has(name(i)) {
			t.Fatalf("name %d is not there", i)
		}
		other := name(i)
		other.dir.dev = 2
		if s.has(other) {
			t.Fatalf("name %d is in a directory that has none", i)
		}
	}
	if s.names.Len() != count {
		t.Errorf("%d names, want %d", s.names.Len(), count)
	}
	if files == 0 {
		t.Error("all of it was in memory")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
