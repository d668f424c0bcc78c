package testenv_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// recorder is a test that is watched from outside.
type recorder struct {
	testing.TB
	outcome  string
	message  string
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Skipf(f string, a ...any)  { r.end("skip", f, a) }
func (r *recorder) Fatalf(f string, a ...any) { r.end("fatal", f, a) }
func (r *recorder) Errorf(f string, a ...any) {
	r.outcome, r.errors = "error", append(r.errors, fmt.Sprintf(f, a...))
}

func (r *recorder) end(outcome, format string, args []any) {
	r.outcome, r.message = outcome, fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// record runs a test body, and its cleanups as the testing package does.
func record(t testing.TB, body func(testing.TB)) *recorder {
	r := &recorder{TB: t, outcome: "pass"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(r.cleanups) - 1; i >= 0; i-- {
				r.cleanups[i]()
			}
		}()
		body(r)
	}()
	<-done
	return r
}

func TestMissingRequirement(t *testing.T) {
	needs := map[string]struct {
		need func(testing.TB)
		want string
	}{
		"command": {func(t testing.TB) { testenv.NeedCommand(t, "no-such-command") }, "no-such-command"},
		"feature": {func(t testing.TB) { testenv.NeedKernel(t, "no such feature") }, "no such feature"},
		"Debian":  {func(t testing.TB) { testenv.DebianLayer(t) }, "images.sh"},
		"busybox": {func(t testing.TB) { testenv.BusyboxLayer(t) }, "images.sh"},
		"image":   {func(t testing.TB) { testenv.Image(t, "no-such-image") }, "images.sh"},
	}
	if os.Geteuid() != 0 {
		needs["root"] = struct {
			need func(testing.TB)
			want string
		}{testenv.NeedRoot, "root"}
	}
	t.Setenv(testenv.DebianTar, filepath.Join(t.TempDir(), "missing"))
	t.Setenv(testenv.BusyboxTar, filepath.Join(t.TempDir(), "missing"))
	for promise, outcome := range map[string]string{"": "skip", "0": "skip", "1": "fatal"} {
		t.Setenv(testenv.Privileged, promise)
		for name, c := range needs {
			r := record(t, c.need)
			if r.outcome != outcome || !strings.Contains(r.message, c.want) {
				t.Errorf("%s=%q, missing %s: got %s %q, want %s naming %s",
					testenv.Privileged, promise, name, r.outcome, r.message, outcome, c.want)
			}
		}
	}
}

func TestMetRequirementRuns(t *testing.T) {
	tar := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(tar, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(testenv.DebianTar, tar)
	for _, promise := range []string{"", "1"} {
		t.Setenv(testenv.Privileged, promise)
		r := record(t, func(t testing.TB) {
			if got := testenv.DebianLayer(t); got != tar {
				t.Errorf("got %s, want %s", got, tar)
			}
			if got := testenv.NeedCommand(t, "go"); len(got) != 1 || !filepath.IsAbs(got[0]) {
				t.Errorf("got %v, want the path of go", got)
			}
			if os.Geteuid() == 0 {
				testenv.NeedRoot(t)
			}
		})
		if r.outcome != "pass" {
			t.Errorf("%s=%q: %s %s %v", testenv.Privileged, promise, r.outcome, r.message, r.errors)
		}
	}
}
