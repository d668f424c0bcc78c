package state_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/state"
)

type record struct {
	Seq  int
	Fill string
}

// whole makes a record that shows by itself when it is torn or mixed.
func whole(seq int) record {
	return record{Seq: seq, Fill: strings.Repeat(string(rune('a'+seq%26)), seq%5000)}
}

func open(t testing.TB, dir string) *state.Store[record] {
	t.Helper()
	s, err := state.Open[record](state.Config{Dir: dir, Kind: "thing"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckID(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"a": true, "9": true, "web-1": true, "Web_1.x..y": true, strings.Repeat("a", 128): true,
		"": false, ".": false, "..": false, ".lock": false, "-x": false, "_x": false, "a/b": false, "a\\b": false,
		"../x": false, "a b": false, "a\x00": false, "a\n": false, "ä": false, strings.Repeat("a", 129): false,
	} {
		err := state.CheckID("thing", id)
		if ok && err != nil {
			t.Errorf("CheckID(%q): %v", id, err)
		}
		if !ok && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("CheckID(%q): got %v, want ErrInvalidArgument", id, err)
		}
	}
}

func TestOpenWithoutDirectory(t *testing.T) {
	t.Parallel()
	if _, err := state.Open[record](state.Config{Kind: "thing"}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v, want ErrInvalidArgument", err)
	}
}

func TestBadIDsStopAtTheDoor(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	for name, call := range map[string]func(string) error{
		"Get":     func(id string) error { _, err := s.Get(id); return err },
		"Put":     func(id string) error { return s.Put(id, record{}) },
		"Delete":  s.Delete,
		"Lock":    func(id string) error { _, err := s.Lock(t.Context(), id); return err },
		"TryLock": func(id string) error { _, err := s.TryLock(id); return err },
	} {
		if err := call("../x"); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: got %v, want ErrInvalidArgument", name, err)
		}
	}
}

func TestPutGetListDelete(t *testing.T) {
	t.Parallel()
	for name, durability := range map[string]state.Durability{"durable": state.Durable, "volatile": state.Volatile} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, err := state.Open[record](state.Config{Dir: dir, Kind: "thing", Durability: durability})
			must(t, err)
			must(t, s.Put("b", whole(2)))
			must(t, s.Put("a", whole(1)))
			must(t, s.Put("b", whole(3)))

			got, err := s.Get("b")
			must(t, err)
			if diff := cmp.Diff(whole(3), got); diff != "" {
				t.Errorf("Get (-want +got):\n%s", diff)
			}
			list, err := open(t, dir).List()
			must(t, err)
			want := []state.Object[record]{{ID: "a", Record: whole(1)}, {ID: "b", Record: whole(3)}}
			if diff := cmp.Diff(want, list); diff != "" {
				t.Errorf("List (-want +got):\n%s", diff)
			}

			must(t, s.Delete("b"))
			wantNotFound(t, s.Delete("b"))
			_, err = s.Get("b")
			wantNotFound(t, err)
			if diff := cmp.Diff([]string{".lock", "a", "a/record.json"}, tree(t, dir)); diff != "" {
				t.Errorf("files after Delete (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecordsAreForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "new", "store"))
	must(t, s.Put("a", whole(1)))
	for path, want := range map[string]fs.FileMode{
		filepath.Dir(s.Dir("a")):                 0o700,
		s.Dir("a"):                               0o700,
		filepath.Join(s.Dir("a"), "record.json"): 0o600,
	} {
		fi, err := os.Stat(path)
		must(t, err)
		if got := fi.Mode().Perm(); got != want && os.PathSeparator == '/' {
			t.Errorf("mode of %s: got %o, want %o", path, got, want)
		}
	}
}

func TestDamagedRecordIsNamedAndHidesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	must(t, s.Put("a", whole(1)))
	must(t, s.Put("z", whole(2)))
	must(t, os.WriteFile(filepath.Join(s.Dir("a"), "record.json"), nil, 0o600))

	list, err := s.List()
	if !errors.Is(err, errdefs.ErrDataLoss) || !strings.Contains(err.Error(), "thing a") {
		t.Errorf("List: got %v, want ErrDataLoss about thing a", err)
	}
	if len(list) != 1 || list[0].ID != "z" {
		t.Errorf("List: got %v, want z alone", list)
	}
}

func TestDeleteRefusesWhileOwnersFilesAreThere(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	must(t, s.Put("a", whole(1)))
	must(t, os.Mkdir(filepath.Join(s.Dir("a"), "upper"), 0o700))
	if err := s.Delete("a"); !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "upper") {
		t.Errorf("Delete: got %v, want ErrFailedPrecondition naming upper", err)
	}
	if _, err := s.Get("a"); err != nil {
		t.Errorf("Get after the refusal: %v", err)
	}
}

func TestListWhileObjectsComeAndGo(t *testing.T) {
	t.Parallel()
	s, err := state.Open[record](state.Config{Dir: t.TempDir(), Kind: "thing", Durability: state.Volatile})
	must(t, err)
	must(t, s.Put("stays", whole(1)))
	var wg sync.WaitGroup
	for _, id := range []string{"a", "b", "z"} {
		wg.Go(func() {
			for range 300 {
				if err := errors.Join(s.Put(id, whole(7)), s.Delete(id)); err != nil {
					t.Errorf("come and go: %v", err)
				}
			}
		})
	}
	defer wg.Wait()
	for range 300 {
		list, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, o := range list {
			found = found || o.ID == "stays"
		}
		if !found {
			t.Fatalf("List: got %v, which lacks the object that was always there", list)
		}
	}
}

func TestWritersAtOnceLeaveOneWholeRecord(t *testing.T) {
	t.Parallel()
	s, err := state.Open[record](state.Config{Dir: t.TempDir(), Kind: "thing", Durability: state.Volatile})
	must(t, err)
	must(t, s.Put("a", whole(0)))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 300 {
				if err := s.Put("a", whole(w*1000+i)); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 600 {
			got, err := s.Get("a")
			if err != nil || got != whole(got.Seq) {
				t.Errorf("Get: torn record %v, %v", got, err)
			}
		}
	})
	wg.Wait()
	if diff := cmp.Diff([]string{"record.json"}, tree(t, s.Dir("a"))); diff != "" {
		t.Errorf("files afterwards (-want +got):\n%s", diff)
	}
}

func wantNotFound(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "thing b") {
		t.Errorf("got %v, want ErrNotFound naming thing b", err)
	}
}

// tree lists all names below dir, with slashes.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, _ fs.DirEntry, err error) error {
		if name != "." {
			names = append(names, name)
		}
		return err
	}))
	return names
}

func BenchmarkPut(b *testing.B) {
	for name, durability := range map[string]state.Durability{"durable": state.Durable, "volatile": state.Volatile} {
		b.Run(name, func(b *testing.B) {
			s, err := state.Open[record](state.Config{Dir: b.TempDir(), Durability: durability})
			must(b, err)
			for b.Loop() {
				must(b, s.Put("a", record{Seq: 1}))
			}
		})
	}
}
