package container_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/container"
)

// counting is a script that prints the numbers below n, a line each, of 100
// bytes.
func counting(n int) []string {
	return []string{"awk", fmt.Sprintf(`BEGIN { for (i = 0; i < %d; i++) printf "%%0100d\n", i }`, n)}
}

// numbers reads the log of such a script. The oldest file may begin with the
// rest of a line.
func (f *fixture) numbers(s *container.System, o container.LogOptions) []int {
	f.t.Helper()
	var all strings.Builder
	for out, err := range s.Logs(f.t.Context(), o) {
		f.must(err)
		all.Write(out.Text)
	}
	var list []int
	for line := range strings.FieldsSeq(all.String()) {
		n := -1
		if _, err := fmt.Sscanf(line, "%d", &n); err != nil || len(line) != 100 {
			if len(list) == 0 && err == nil {
				continue
			}
			f.t.Fatalf("a damaged line: %q", line)
		}
		list = append(list, n)
	}
	return list
}

// consecutive reports whether the numbers are those from first to last.
func consecutive(list []int, first, last int) bool {
	if len(list) != last-first+1 {
		return false
	}
	for i, n := range list {
		if n != first+i {
			return false
		}
	}
	return true
}

func TestLogRotation(t *testing.T) {
	const lines = 3000 // of which each takes some 150 bytes
	for _, c := range []struct {
		log   container.Log
		files int
		kept  int64 // at most, in bytes; 0 is all
	}{
		{container.Log{}, 1, 0},
		{container.Log{MaxSize: -1}, 1, 0},
		{container.Log{MaxSize: 1 << 20}, 1, 0},
		{container.Log{MaxSize: 100 << 10, MaxFiles: 9}, 5, 0},
		{container.Log{MaxSize: 60 << 10}, 3, 180 << 10},
		{container.Log{MaxSize: 60 << 10, MaxFiles: 1}, 1, 60 << 10},
	} {
		t.Run(fmt.Sprintf("%d files of %d", c.log.MaxFiles, c.log.MaxSize), func(t *testing.T) {
			f := newFixture(t)
			s := f.running(container.Spec{Log: c.log})
			_, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Role: container.Main, Args: counting(lines), Env: env})
			f.must(err)
			_, err = s.Wait(t.Context())
			f.must(err)
			names, err := filepath.Glob(filepath.Join(f.config.Root, "containers", s.ID(), "output.log*"))
			f.must(err)
			if len(names) != c.files {
				t.Errorf("%d files, want %d: %q", len(names), c.files, names)
			}
			var size int64
			for _, name := range names {
				info, err := os.Stat(name)
				f.must(err)
				size += info.Size()
			}
			all := f.numbers(s, container.LogOptions{})
			first := 0
			if c.kept > 0 {
				first = lines - len(all)
				if size > c.kept || first <= 0 {
					t.Errorf("%d bytes and all but %d lines are kept, want %d bytes", size, first, c.kept)
				}
			}
			if !consecutive(all, first, lines-1) {
				t.Errorf("%d lines, from %d on, are not all there is", len(all), first)
			}
			for _, n := range []int{1, 300, len(all) - 1, len(all), 2 * lines} {
				n := max(1, min(n, len(all)))
				if got := f.numbers(s, container.LogOptions{Tail: n}); !consecutive(got, lines-n, lines-1) {
					t.Errorf("the last %d lines: %d", n, len(got))
				}
			}
		})
	}
}

// TestLogRotationFollowed reads a log while its files are renamed.
func TestLogRotationFollowed(t *testing.T) {
	const lines = 20000
	f := newFixture(t)
	s := f.running(container.Spec{Log: container.Log{MaxSize: 50 << 10, MaxFiles: 1000}})
	_, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Role: container.Main, Args: counting(lines), Env: env})
	f.must(err)
	if got := f.numbers(s, container.LogOptions{Follow: container.Follow}); !consecutive(got, 0, lines-1) {
		t.Errorf("%d lines of %d came through", len(got), lines)
	}
	// Again, into the same log: what is there is kept.
	f.must(s.Start(t.Context()))
	_, err = s.CreateProcess(t.Context(), &container.ProcessSpec{Role: container.Main, Args: counting(2), Env: env})
	f.must(err)
	_, err = s.Wait(t.Context())
	f.must(err)
	if got := f.numbers(s, container.LogOptions{Tail: 3}); len(got) != 3 || got[0] != lines-1 || !consecutive(got[1:], 0, 1) {
		t.Errorf("after another start the log ends with %v", got)
	}
}
