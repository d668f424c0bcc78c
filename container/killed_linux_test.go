package container_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

// TestKilledWhileStarting kills the shim, or what it has started, at any
// point of a start. What the start returns is right or wrong by chance;
// afterwards nothing is left, which the fixture sees to.
func TestKilledWhileStarting(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 8
	}
	f := newFixture(t)
	ctx := context.Background()
	for round := range rounds {
		s := f.created(container.Spec{Resources: container.Resources{Memory: 64 << 20, Pids: 20}})
		done := make(chan error, 1)
		go func() { done <- s.Start(ctx) }()
		kill(f.runDir(s), round%2 == 0, time.Duration(rand.IntN(12_000))*time.Microsecond)
		if err := <-done; err == nil {
			f.check(s.Terminate(ctx))
		}
		f.must(s.Start(ctx)) // over what is left
		f.ok(s, "true")
		f.must(s.Terminate(ctx))
		f.must(s.Delete(ctx))
	}
}

// TestStartGivenUp has starts that take longer than there is time, by chance: until just before, or after, the system runs. It is as
// it was before, also one that goes when it has stopped.
func TestStartGivenUp(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	f := newFixture(t)
	ctx := t.Context()
	begin := time.Now()
	f.must(f.running(container.Spec{}).Terminate(ctx))
	usual := time.Since(begin)
	s := f.created(container.Spec{Ephemeral: true})
	again := f.created(container.Spec{})
	f.must(again.Start(ctx))
	f.must(again.Terminate(ctx))
	before, err := again.Status(ctx)
	f.must(err)
	for range rounds {
		short, cancel := context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(usual))))
		err := s.Start(short)
		aerr := again.Start(short)
		cancel()
		if st, serr := s.Status(ctx); err != nil && (serr != nil || st.State != container.Created) {
			t.Fatalf("start: %v; it is %+v, %v", err, st, serr)
		}
		if st, serr := again.Status(ctx); aerr != nil && (serr != nil || !st.Ended.Equal(before.Ended) || st.State != container.Stopped) {
			t.Fatalf("start anew: %v; it is %+v, %v, was %+v", aerr, st, serr, before)
		}
		f.must(s.Start(ctx))
		f.ok(s, "true")
		f.must(s.Terminate(ctx))
		f.must(again.Terminate(ctx))
		before, err = again.Status(ctx)
		f.must(err)
		s = f.created(container.Spec{Ephemeral: true})
	}
}

func (f *fixture) runDir(s *container.System) string {
	return filepath.Join(f.config.Run, "containers", s.ID())
}

// kill waits until there is a shim for the directory, and then for the delay,
// and kills it, or, where there are any, its children.
func kill(dir string, shim bool, delay time.Duration) {
	var pid int
	for deadline := time.Now().Add(time.Second); pid == 0 && time.Now().Before(deadline); {
		pid = shimOf(dir)
	}
	if pid == 0 {
		return // it was quicker
	}
	time.Sleep(delay)
	if shim {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return
	}
	for _, child := range childrenOf(pid) {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
}

// childrenOf returns the children of a process, whichever of its threads has
// them.
func childrenOf(pid int) []int {
	var all []int
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// shimOf finds the shim that was started here for the directory.
func shimOf(dir string) int {
	for _, pid := range childrenOf(os.Getpid()) {
		argv, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if bytes.Contains(argv, []byte(dir)) && bytes.HasPrefix(argv, []byte("hcs-shim")) {
			return pid
		}
	}
	return 0
}

// TestStartWithoutRoot finds out that there is no root directory any more when the first process is born already.
func TestStartWithoutRoot(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), "root")
	f.must(os.Mkdir(dir, 0o755))
	s := f.created(container.Spec{RootDir: dir})
	f.must(os.Remove(dir))
	for range 5 {
		if err := s.Start(t.Context()); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), dir) {
			t.Fatalf("got %v", err)
		}
	}
	if st, err := s.Status(t.Context()); err != nil || st.State != container.Created {
		t.Errorf("got %+v, %v", st, err)
	}
	f.must(s.Delete(t.Context()))
	f.eventually("the shim has gone", func() bool { return shimAnywhere(f.runDir(s)) == 0 })
	f.eventually("nothing is left behind", func() bool { return len(f.left()) == 0 })
}
