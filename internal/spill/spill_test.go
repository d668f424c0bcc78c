package spill_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/spill"
)

type value struct {
	a int64
	b [5]uint16
	c bool
}

// store is one of a few blocks, and says how many files it has opened.
func store(t *testing.T, memory int) (s *spill.Store, files *int) {
	t.Helper()
	dir := t.TempDir()
	files = new(int)
	s = spill.New(spill.Config{Memory: memory, Create: func() (*os.File, error) {
		*files++
		return os.Create(filepath.Join(dir, fmt.Sprint("file", *files)))
	}})
	t.Cleanup(func() { must(t, s.Close()) })
	return s, files
}

// TestArray changes and reads values at random, and compares with a slice.
func TestArray(t *testing.T) {
	t.Parallel()
	for _, memory := range []int{0, 64 << 10, 1 << 30} {
		s, files := store(t, memory)
		arrays := []*spill.Array[value]{spill.NewArray[value](s), spill.NewArray[value](s)}
		want := make([][]value, len(arrays))
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 60_000 {
			k := random.IntN(len(arrays))
			a := arrays[k]
			v := value{a: random.Int64(), c: true}
			v.b[4] = uint16(i)
			if at := a.Append(v); at != len(want[k]) {
				t.Fatalf("value %d gets the index %d", len(want[k]), at)
			}
			want[k] = append(want[k], v)
			j := random.IntN(a.Len())
			if got := a.Get(j); got != want[k][j] {
				t.Fatalf("%d bytes: value %d of %d is %v, want %v", memory, j, a.Len(), got, want[k][j])
			}
			j = random.IntN(a.Len())
			want[k][j].a++
			a.At(j).a++
			if i%7 == 0 {
				must(t, s.Trim())
			}
		}
		for k, a := range arrays {
			for i, v := range want[k] {
				if got := a.Get(i); got != v {
					t.Fatalf("%d bytes: value %d is %v, want %v", memory, i, got, v)
				}
				must(t, s.Trim())
			}
		}
		if small := memory < 1<<30; small != (*files > 0) {
			t.Errorf("%d bytes of memory: %d files", memory, *files)
		}
	}
}

// TestArrayExtend has zeros where nothing was written, also in memory and files that were used before.
func TestArrayExtend(t *testing.T) {
	t.Parallel()
	s, _ := store(t, 0)
	a := spill.NewArray[uint64](s)
	a.Extend(100_000)
	for i := 0; i < a.Len(); i += 9000 {
		*a.At(i) = 7
		must(t, s.Trim())
	}
	for i := range a.Len() {
		want := uint64(0)
		if i%9000 == 0 {
			want = 7
		}
		if got := a.Get(i); got != want {
			t.Fatalf("value %d is %d, want %d", i, got, want)
		}
		must(t, s.Trim())
	}
	must(t, a.Close())
	b := spill.NewArray[uint64](s)
	b.Extend(100_000)
	for i := range b.Len() {
		if got := b.Get(i); got != 0 {
			t.Fatalf("value %d of a new array is %d", i, got)
		}
		must(t, s.Trim())
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	s, files := store(t, 0)
	x := spill.NewText(s)
	random := rand.New(rand.NewPCG(3, 4))
	var texts []string
	var places []int64
	for i := range 2000 {
		text := strings.Repeat(fmt.Sprint(i, "-"), random.IntN(20))
		if i%500 == 3 {
			text = strings.Repeat(fmt.Sprint(i, "+"), 20_000) // of several blocks
		}
		texts, places = append(texts, text), append(places, x.Append(text))
		must(t, s.Trim())
	}
	for i, text := range texts {
		if got := x.String(places[i], len(text)); got != text {
			t.Fatalf("text %d is %.40q, want %.40q", i, got, text)
		}
		if !x.Equal(places[i], text) {
			t.Errorf("text %d differs from itself", i)
		}
		if len(text) > 0 && x.Equal(places[i], text[:len(text)-1]+"?") {
			t.Errorf("text %d equals another", i)
		}
		must(t, s.Trim())
	}
	last := len(texts) - 1
	if x.Equal(places[last], texts[last]+"?") {
		t.Error("the last text goes on beyond its end")
	}
	if *files != 1 {
		t.Errorf("%d files for one text", *files)
	}
}

// TestStoreFails has files that cannot be had, written or read: Trim says so from then on, and nothing panics.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("no more files")
	readOnly := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(readOnly, nil, 0o600))
	var broken *os.File
	for name, create := range map[string]func() (*os.File, error){
		"create": func() (*os.File, error) { return nil, cause },
		"write":  func() (*os.File, error) { return os.Open(readOnly) },
		"read": func() (f *os.File, err error) {
			broken, err = os.OpenFile(readOnly, os.O_WRONLY, 0)
			return broken, err
		},
	} {
		s := spill.New(spill.Config{Create: create})
		a := spill.NewArray[int](s)
		var err error
		for i := range 10_000 {
			a.Append(i)
			_ = a.Get(i / 2)
			err = s.Trim()
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if name == "create" && !errors.Is(err, cause) {
			t.Errorf("create: %v", err)
		}
		if again := s.Trim(); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: first %v, then %v", name, err, again)
		}
		_ = a.Get(0)
		must(t, s.Close())
	}
}

func TestArrayRefusesPointers(t *testing.T) {
	t.Parallel()
	s, _ := store(t, 0)
	for name, make := range map[string]func(){
		"string":  func() { spill.NewArray[string](s) },
		"nested":  func() { spill.NewArray[struct{ x [2]struct{ p *int } }](s) },
		"large":   func() { spill.NewArray[[17 << 10]byte](s) },
		"nothing": func() { spill.NewArray[struct{}](s) },
	} {
		if !panics(make) {
			t.Errorf("an array of %s is made", name)
		}
	}
	a := spill.NewArray[int](s)
	a.Append(1)
	if !panics(func() { a.Get(1) }) || !panics(func() { a.At(-1) }) {
		t.Error("values are found where there are none")
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
