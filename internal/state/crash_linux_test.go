package state_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/testenv"
)

// The test binary plays other processes when this variable names a role, see roles.
const roleVariable = "HCS_STATE_TEST_ROLE"

var roles = map[string]func(*state.Store[record]) error{
	"writer":  writeForever,
	"counter": count,
	"holder":  holdForever,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	s, err := state.Open[record](state.Config{Dir: os.Args[1], Kind: "thing", Durability: state.Volatile})
	if err == nil {
		err = role(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// writeForever tells of every record it has put.
func writeForever(s *state.Store[record]) error {
	seq := 0
	if last, err := s.Get("a"); err == nil {
		seq = last.Seq
	}
	for {
		seq++
		if err := s.Put("a", whole(seq)); err != nil {
			return err
		}
		fmt.Println(seq)
	}
}

const counts = 200

// count adds to a record under its lock.
func count(s *state.Store[record]) error {
	for range counts {
		if err := add(s); err != nil {
			return err
		}
	}
	return nil
}

func holdForever(s *state.Store[record]) error {
	lock, err := s.TryLock("a")
	if err != nil {
		return err
	}
	fmt.Println("held")
	testenv.AwaitKill(lock)
	return nil
}

func start(t *testing.T, role, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the process ended before it was killed: %v", err)
	}
}

func TestKilledWriterLeavesOldOrNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	halfWritten := 0
	for round := range 60 {
		told := putUntilKilled(t, dir, time.Duration(round)*37*time.Microsecond)
		got, err := s.Get("a")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		// The writer may have died between Put and telling.
		if got != whole(got.Seq) || got.Seq < told || got.Seq > told+1 {
			t.Fatalf("round %d: the writer told of %d, the record is %d", round, told, got.Seq)
		}
		halfWritten += len(tree(t, s.Dir("a"))) - 1
		orphans, err := s.Prune()
		if err != nil || len(orphans) > 0 {
			t.Fatalf("Prune: %v, %v", orphans, err)
		}
		if diff := cmp.Diff([]string{"record.json"}, tree(t, s.Dir("a"))); diff != "" {
			t.Fatalf("files after Prune (-want +got):\n%s", diff)
		}
	}
	t.Logf("%d of 60 writers died between making and renaming a file", halfWritten)
}

// putUntilKilled returns the last sequence number the writer told of.
func putUntilKilled(t *testing.T, dir string, after time.Duration) int {
	t.Helper()
	cmd, lines := start(t, "writer", dir)
	told := 0
	if lines.Scan() { // only then is it writing
		told, _ = strconv.Atoi(lines.Text())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for lines.Scan() {
			told, _ = strconv.Atoi(lines.Text())
		}
	})
	time.Sleep(after)
	must(t, cmd.Process.Kill())
	wg.Wait()
	kill(t, cmd)
	return told
}

func TestPruneLeavesOwnersFilesAndTellsOfThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Put("alive", whole(1)))
	for _, path := range []string{"alive/.record-1", "died/.record-2", "owned/upper/file", "owned/.record-3"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, path), nil, 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "busy"), 0o700))
	lock, err := s.TryLock("busy")
	must(t, err)

	orphans, err := s.Prune()
	must(t, err)
	if diff := cmp.Diff([]string{"owned"}, orphans); diff != "" {
		t.Errorf("orphans (-want +got):\n%s", diff)
	}
	must(t, lock.Unlock())
	want := []string{".lock", "alive", "alive/record.json", "busy", "owned", "owned/upper", "owned/upper/file"}
	got := tree(t, dir)
	// The lock file of an object that exists may stay.
	got = cut(got, ".lock/alive")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files after Prune (-want +got):\n%s", diff)
	}
}

func TestPutWithoutLockSurvivesPrune(t *testing.T) {
	t.Parallel()
	s, err := state.Open[record](state.Config{Dir: t.TempDir(), Kind: "thing", Durability: state.Volatile})
	must(t, err)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if _, err := s.Prune(); err != nil {
					t.Errorf("Prune: %v", err)
				}
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	for i := range 500 {
		must(t, s.Put("a", whole(i)))
		if got, err := s.Get("a"); err != nil || got != whole(i) {
			t.Fatalf("put %d, got %v, %v", i, got, err)
		}
		must(t, s.Delete("a"))
	}
}

func cut(names []string, name string) []string {
	var rest []string
	for _, n := range names {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest
}

var errDone = errors.New("enough")
