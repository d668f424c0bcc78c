package journal_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/journal"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
)

// role is set for this test's own program where it is to be another process:
// "write DIR NAME COUNT", where a negative COUNT is no end, or "follow DIR
// AFTER".
const role = "HCS_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(role)); len(args) > 0 {
		fmt.Println("error:", child(args))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(args []string) error {
	n, err := strconv.ParseInt(args[len(args)-1], 10, 64)
	if err != nil {
		return err
	}
	if args[0] == "follow" {
		return printAll(args[1], journal.Seq(n))
	}
	w := journal.NewWriter(args[1]).Small(20_000, 1000)
	for i := int64(0); i != n; i++ {
		if _, err := w.Append(fmt.Appendf(nil, "%s %d", args[2], i)); err != nil {
			return err
		}
		if n < 0 {
			fmt.Println("wrote", i)
		}
	}
	os.Exit(0)
	return nil
}

func printAll(dir string, after journal.Seq) error {
	r := journal.Open(dir, after)
	for {
		rec, err := r.Next(context.Background())
		if err != nil {
			return err
		}
		fmt.Printf("%d %s\n", rec.Seq, rec.Text)
	}
}

func start(t *testing.T, args ...any) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+fmt.Sprintln(args...))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, w *journal.Writer, text string) journal.Seq {
	t.Helper()
	seq, err := w.Append([]byte(text))
	must(t, err)
	return seq
}

// texts reads what is there; a gap is "…".
func texts(t testing.TB, r *journal.Reader) []string {
	t.Helper()
	var list []string
	for {
		rec, err := r.Poll()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		if rec.Gap {
			list = append(list, "…")
		} else {
			list = append(list, string(rec.Text))
		}
	}
}

func open(t testing.TB, dir string, after journal.Seq) *journal.Reader {
	t.Helper()
	r := journal.Open(dir, after)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func writer(t testing.TB, dir string) *journal.Writer {
	t.Helper()
	w := journal.NewWriter(dir)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func want(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadFromAnywhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	r := open(t, dir, 0)
	want(t, texts(t, r))
	w := writer(t, dir)
	a, b := add(t, w, "first"), add(t, w, "second")
	if b <= a {
		t.Errorf("numbers %d, %d", a, b)
	}
	want(t, texts(t, r), "first", "second")
	want(t, texts(t, r))
	c := add(t, writer(t, dir), "another's")
	add(t, w, "fourth")
	want(t, texts(t, r), "another's", "fourth")
	want(t, texts(t, open(t, dir, a)), "second", "another's", "fourth")
	want(t, texts(t, open(t, dir, a+1)), "second", "another's", "fourth")
	want(t, texts(t, open(t, dir, c)), "fourth")
	if last, err := journal.Last(dir); err != nil || last <= c {
		t.Errorf("last %d, %v", last, err)
	}
}

func TestTextsThatCannotBe(t *testing.T) {
	w := writer(t, t.TempDir())
	for _, text := range []string{"", "x", ".x", "-1", "a\nb", strings.Repeat("x", journal.MaxText+1)} {
		if _, err := w.Append([]byte(text)); err == nil {
			t.Errorf("%.20q was taken", text)
		}
	}
	add(t, w, strings.Repeat("x", journal.MaxText))
}

// TestRotation has two writers fill segments in turns.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	writers := []*journal.Writer{writer(t, dir).Small(500, 3), writer(t, dir).Small(500, 3)}
	follower, asleep := open(t, dir, 0), open(t, dir, 0)
	var all []string
	var seqs []journal.Seq
	for i := range 100 {
		text := fmt.Sprintf("record %d", i)
		all, seqs = append(all, text), append(seqs, add(t, writers[i%2], text))
		want(t, texts(t, follower), text)
		if i == 0 {
			want(t, texts(t, asleep), text)
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) > 3 {
		t.Errorf("%d segments are kept", len(entries))
	}
	kept := texts(t, open(t, dir, 0))
	if len(kept) < 20 || len(kept) > 40 || !slices.Equal(kept, all[100-len(kept):]) {
		t.Errorf("kept %q", kept)
	}
	// Who slept has the rest of its segment, which is removed, and then the gap.
	got := texts(t, asleep)
	i := slices.Index(got, "…")
	if i < 0 || !slices.Equal(got[:i], all[1:1+i]) || !slices.Equal(got[i+1:], kept) {
		t.Errorf("who slept got %q", got)
	}
	want(t, texts(t, open(t, dir, seqs[3])), append([]string{"…"}, kept...)...)
	// The last one that was dropped is not missed by who has it.
	want(t, texts(t, open(t, dir, seqs[100-len(kept)-1])), kept...)
}

// TestManyProcesses has writers in processes of their own and followers here,
// while segments change.
func TestManyProcesses(t *testing.T) {
	const writers, each, followers = 8, 125, 16
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	lists := make([][]string, followers)
	for i := range followers {
		wg.Go(func() {
			r := journal.Open(dir, 0)
			defer func() { _ = r.Close() }()
			for len(lists[i]) < writers*each {
				rec, err := r.Next(ctx)
				if err != nil || rec.Gap {
					t.Errorf("follower %d: %+v, %v", i, rec, err)
					return
				}
				lists[i] = append(lists[i], string(rec.Text))
			}
		})
	}
	var cmds []*exec.Cmd
	for i := range writers {
		cmd, _ := start(t, "write", dir, fmt.Sprintf("w%d", i), each)
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		must(t, cmd.Wait())
	}
	timer := time.AfterFunc(testenv.Patience, cancel)
	wg.Wait()
	timer.Stop()
	cancel()
	next := make(map[string]int)
	for _, text := range lists[0] {
		name, n, _ := strings.Cut(text, " ")
		if n != strconv.Itoa(next[name]) {
			t.Fatalf("%q comes where %d should", text, next[name])
		}
		next[name]++
	}
	for i, l := range lists {
		if !slices.Equal(l, lists[0]) {
			t.Errorf("follower %d has %d records in another order than the first", i, len(l))
		}
	}
}

// TestWritersKilled kills writers at any point: what they said they wrote is
// there, and nothing that is no record.
func TestWritersKilled(t *testing.T) {
	dir := t.TempDir()
	said := make(map[string]int)
	for i := range 12 {
		name := fmt.Sprintf("w%d", i)
		cmd, out := start(t, "write", dir, name, -1)
		other, _ := start(t, "write", dir, "other"+name, -1)
		for range 20 + rand.IntN(100) {
			if !out.Scan() {
				t.Fatal("the writer stopped")
			}
		}
		must(t, cmd.Process.Kill())
		must(t, other.Process.Kill())
		for ok := true; ok; ok = out.Scan() {
			_, n, _ := strings.Cut(out.Text(), " ")
			said[name], _ = strconv.Atoi(n)
		}
		_, _ = cmd.Process.Wait()
		_, _ = other.Process.Wait()
	}
	seen := make(map[string]int)
	for _, text := range texts(t, open(t, dir, 0)) {
		name, n, _ := strings.Cut(text, " ")
		if n != strconv.Itoa(seen[name]) {
			t.Fatalf("%q comes where %d should", text, seen[name])
		}
		seen[name]++
	}
	for name, n := range said {
		if seen[name] <= n {
			t.Errorf("%s wrote %d, of which %d are there", name, n, seen[name])
		}
	}
}

// TestFollowerKilled has a follower go on where a killed one was.
func TestFollowerKilled(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir).Small(2000, 1000)
	const count = 300
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range count {
			add(t, w, fmt.Sprintf("record %d", i))
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		}
	})
	var got []string
	after := "0"
	for len(got) < count {
		cmd, out := start(t, "follow", dir, after)
		for range min(1+rand.IntN(80), count-len(got)) {
			if !out.Scan() {
				t.Fatal("the follower stopped")
			}
			seq, text, _ := strings.Cut(out.Text(), " ")
			after, got = seq, append(got, text)
		}
		must(t, cmd.Process.Kill())
		_, _ = cmd.Process.Wait()
	}
	wg.Wait()
	for i, text := range got {
		if text != fmt.Sprintf("record %d", i) {
			t.Fatalf("record %d is %q", i, text)
		}
	}
}

// TestHalfRecord has all that a writer can leave when it is killed, cut at every
// byte, and a reader that has looked at it.
func TestHalfRecord(t *testing.T) {
	for cut := range 60 {
		dir := t.TempDir()
		w := writer(t, dir)
		add(t, w, "whole record")
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		must(t, err)
		line, err := os.ReadFile(names[0])
		must(t, err)
		half := line[:min(cut, len(line)-1)]
		must(t, os.WriteFile(names[0], slices.Concat(line, half), 0o600))
		r := open(t, dir, 0)
		want(t, texts(t, r), "whole record")
		add(t, writer(t, dir), "by another")
		add(t, w, "by the first")
		want(t, texts(t, r), "by another", "by the first")
	}
}

// TestDamage has a disk that lost what was written.
func TestDamage(t *testing.T) {
	for name, harm := range map[string]func(b []byte){
		"a letter":   func(b []byte) { b[len(b)/2] ^= 1 },
		"a line":     func(b []byte) { copy(b[40:], make([]byte, 20)) },
		"line feeds": func(b []byte) { b[45] = '\n' },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := writer(t, dir)
			for i := range 3 {
				add(t, w, fmt.Sprintf("record %d", i))
			}
			names, err := filepath.Glob(filepath.Join(dir, "*"))
			must(t, err)
			text, err := os.ReadFile(names[0])
			must(t, err)
			harm(text)
			must(t, os.WriteFile(names[0], text, 0o600))
			add(t, w, "a new one")
			got := slices.Compact(texts(t, open(t, dir, 0)))
			want(t, got, "record 0", "…", "record 2", "a new one")
		})
	}
}

// TestZeroes has a segment whose end is zeroes, as after a machine's stop.
func TestZeroes(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir)
	add(t, w, "the first")
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	must(t, os.Truncate(names[0], 300_000))
	add(t, w, "the second")
	got := slices.Compact(texts(t, open(t, dir, 0)))
	want(t, got, "the first", "…", "the second")
}

func TestFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { must(t, sys.Unmount(dir)) })
	w, other := writer(t, filepath.Join(dir, "journal")), writer(t, filepath.Join(dir, "journal"))
	add(t, w, "before")
	must(t, os.WriteFile(filepath.Join(dir, "ballast"), nil, 0o600))
	for size := 64 << 10; size > 0; size /= 2 {
		f, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, _ = f.Write(make([]byte, size))
		must(t, f.Close())
	}
	var failed int
	for range 3 * 4096 / 100 { // what is left of the last page still takes some
		if _, err := w.Append([]byte(strings.Repeat("x", 100))); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			failed++
		}
	}
	if failed == 0 {
		t.Fatal("the disk is not full")
	}
	must(t, os.Remove(filepath.Join(dir, "ballast")))
	add(t, w, "after")
	add(t, other, "another's")
	got := texts(t, open(t, filepath.Join(dir, "journal"), 0))
	want(t, []string{got[0], got[len(got)-3], got[len(got)-2], got[len(got)-1]}, "before", "…", "after", "another's")
	for _, text := range got[1 : len(got)-3] {
		if text != strings.Repeat("x", 100) {
			t.Errorf("a bad record: %q", text)
		}
	}
}

func TestNextEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if _, err := open(t, filepath.Join(t.TempDir(), "none yet"), 0).Next(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestRemovedJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	w := writer(t, dir)
	first := add(t, w, "the first")
	must(t, os.RemoveAll(dir))
	add(t, w, "of a new one")
	want(t, texts(t, open(t, dir, first)), "of a new one")
}

func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	w := journal.NewWriter(dir)
	add(f, w, "a record")
	add(f, w, "another")
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	must(f, err)
	text, err := os.ReadFile(names[0])
	must(f, err)
	f.Add(text)
	f.Add(text[:len(text)-3])
	f.Add(append(slices.Clone(text), make([]byte, 40_000)...))
	f.Add([]byte("\n\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(names[0])), text, 0o600))
		_ = texts(t, open(t, dir, 0))
		w := writer(t, dir)
		add(t, w, "afterwards")
		got := texts(t, open(t, dir, 0))
		if len(got) == 0 || got[len(got)-1] != "afterwards" {
			t.Errorf("what is written after it reads %q", got)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	w := journal.NewWriter(b.TempDir())
	text := []byte(strings.Repeat("x", 200))
	for b.Loop() {
		if _, err := w.Append(text); err != nil {
			b.Fatal(err)
		}
	}
}
