package container_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// The tests in this file and in endurancekill_linux_test.go are samples of
// themselves unless testenv.Endurance says otherwise.

// TestEnduranceManySystems has many systems run at once, and processes in all
// of them.
func TestEnduranceManySystems(t *testing.T) {
	count := testenv.Enduring(40, 500)
	f := newFixture(t)
	before := available(t)
	systems := make([]*container.System, count)
	started := time.Now()
	f.each(count, func(ctx context.Context, i int) error {
		s, err := f.Create(ctx, container.Spec{Name: fmt.Sprintf("many-%d", i), Layers: f.layers})
		if err != nil {
			return err
		}
		systems[i] = s
		return s.Start(ctx)
	})
	t.Logf("%d systems started in %v; each takes %d KiB of the machine's memory", count, time.Since(started), (before-available(t))/count)
	f.each(count, func(ctx context.Context, i int) error {
		st, err := systems[i].Status(ctx)
		if err == nil && st.State != container.Running {
			err = fmt.Errorf("it is %s", st.State)
		}
		return err
	})
	f.each(3*count, func(ctx context.Context, i int) error {
		p, err := systems[i%count].CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sh", "-c", "exit 7"}, Env: env})
		if err != nil {
			return err
		}
		if status, err := p.Wait(ctx); err != nil || status.Code != 7 {
			return fmt.Errorf("exit status %d: %w", status.Code, err)
		}
		return nil
	})
	if list, err := f.Systems(t.Context()); err != nil || len(list) != count {
		t.Errorf("%d systems are listed, %v", len(list), err)
	}
	f.each(count, func(ctx context.Context, i int) error {
		return errors.Join(systems[i].Terminate(ctx), systems[i].Delete(ctx), systems[i].Close())
	})
}

// each calls do for every number, sixteen at a time, and reports its errors.
func (f *fixture) each(count int, do func(ctx context.Context, i int) error) {
	f.t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range next {
				if err := do(f.t.Context(), i); err != nil {
					f.t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wg.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// available returns the memory that the machine could still give, in KiB.
func available(t *testing.T) int { return kernelNumber(t, "/proc/meminfo", "MemAvailable:") }

// kernelNumber returns the number after a word in one of the kernel's files.
func kernelNumber(t *testing.T, file string, keys ...string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		for _, key := range keys {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
				n, err := strconv.Atoi(fields[1])
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}

// footprint is what a process keeps.
type footprint struct{ memory, descriptors, threads int }

func footprintOf(t *testing.T, pid int) footprint {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	return footprint{
		memory:      kernelNumber(t, proc+"smaps_rollup", "Private_Clean:", "Private_Dirty:"),
		descriptors: len(descriptorsOf(t, pid)), threads: kernelNumber(t, proc+"status", "Threads:"),
	}
}

// descriptorsOf returns what a process has open, without the poller of Go's
// runtime, which makes it when it first waits for a file or a time.
func descriptorsOf(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" { // an error: it has been closed
			open = append(open, fd.Name()+" "+target)
		}
	}
	return open
}

// TestEnduranceProcesses creates processes one after the other. Shim and agent
// keep nothing of them: no descriptor, no zombie, and at most a mebibyte, in
// which ten thousand goroutines, say, would find no room.
func TestEnduranceProcesses(t *testing.T) {
	count := testenv.Enduring(500, 10_000)
	f := newFixture(t)
	f.ok(f.running(container.Spec{}), "true") // another, for what several have in common
	s := f.running(container.Spec{})
	st, err := s.Status(t.Context())
	f.must(err)
	some := func(count int) {
		for i := range count {
			p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"true"}, Env: env, Stdout: new(strings.Builder)})
			f.must(err)
			if status, err := p.Wait(t.Context()); err != nil || status.Code != 0 {
				t.Fatalf("process %d: %+v, %v", i, status, err)
			}
		}
	}
	some(1)
	const most = 6 << 10 // KiB that nobody else has; a shim that looks for data races has more
	if own := footprintOf(t, st.ShimPid).memory + footprintOf(t, st.Pid).memory; own > most && os.Getenv(testenv.RaceVariable) == "" {
		t.Errorf("shim and agent have %d KiB for themselves", own)
	} else {
		t.Logf("shim and agent have %d KiB for themselves", own)
	}
	some(1000) // until pools, tables and what the garbage collector leaves lying have their sizes
	goroutines, own := runtime.NumGoroutine(), footprintOf(t, os.Getpid()).descriptors
	shim, agent := footprintOf(t, st.ShimPid), footprintOf(t, st.Pid)
	some(count)
	for name, p := range map[string]struct {
		pid    int
		before footprint
	}{"shim": {st.ShimPid, shim}, "agent": {st.Pid, agent}} {
		f.eventually(name+" has only the descriptors that it had", func() bool {
			return len(descriptorsOf(t, p.pid)) <= p.before.descriptors
		})
		after := footprintOf(t, p.pid)
		t.Logf("%s before and after %d processes: %+v, %+v", name, count, p.before, after)
		if grown := after.memory - p.before.memory; grown > 1<<10 {
			t.Errorf("the %s has grown by %d KiB", name, grown)
		}
		if more := after.threads - p.before.threads; more > 4 {
			t.Errorf("the %s has %d threads more", name, more)
		}
		if z := zombies(t, p.pid); len(z) > 0 {
			t.Errorf("zombies of the %s: %v", name, z)
		}
	}
	f.eventually("the client has only what it had", func() bool {
		return runtime.NumGoroutine() <= goroutines && footprintOf(t, os.Getpid()).descriptors <= own
	})
}

// zombies returns the children of a process that nobody has reaped.
func zombies(t *testing.T, pid int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(pid) {
			list = append(list, filepath.Base(filepath.Dir(file)))
		}
	}
	return list
}

// TestEnduranceClients has clients do everything to the same few systems at
// once. Whatever they do, every call returns, with what it was to do or an
// error that says that another was quicker.
func TestEnduranceClients(t *testing.T) {
	const clients, systems = 16, 5
	f := newFixture(t)
	end := time.Now().Add(testenv.Enduring(4*time.Second, time.Minute))
	last := end.Add(time.Minute) // for those that were in vain until then
	var did tally
	var wg sync.WaitGroup
	for range clients {
		service, err := container.Open(f.config)
		f.must(err)
		wg.Go(func() {
			for time.Now().Before(end) || did.anyInVain() && time.Now().Before(last) {
				name, op := fmt.Sprintf("shared-%d", rand.IntN(systems)), raced[rand.IntN(len(raced))]
				err := f.race(service, name, op.do)
				if !expected(err) {
					t.Errorf("%s %s: %v", op.name, name, err)
				}
				did.note(op.name, err)
			}
		})
	}
	wg.Wait()
	for _, name := range slices.Sorted(maps.Keys(did.calls)) {
		t.Logf("%s: %d times, %d of them in vain", name, did.calls[name], did.vain[name])
		if did.calls[name] == did.vain[name] {
			t.Errorf("%s: always in vain", name)
		}
	}
}

// tally counts operations, and those that failed.
type tally struct {
	mu          sync.Mutex
	calls, vain map[string]int
}

func (c *tally) note(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls, c.vain = make(map[string]int), make(map[string]int)
	}
	c.calls[name]++
	if err != nil {
		c.vain[name]++
	}
}

// anyInVain reports whether there is an operation that has failed each time.
func (c *tally) anyInVain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, n := range c.calls {
		if n == c.vain[name] {
			return true
		}
	}
	return false
}

// raced are the operations on a system that is there.
var raced = []struct {
	name string
	do   func(ctx context.Context, s *container.System) error
}{
	{"start", func(ctx context.Context, s *container.System) error { return s.Start(ctx) }},
	{"start", func(ctx context.Context, s *container.System) error { return s.Start(ctx) }},
	{"terminate", func(ctx context.Context, s *container.System) error { return s.Terminate(ctx) }},
	{"delete", func(ctx context.Context, s *container.System) error { return s.Delete(ctx) }},
	{"status", func(ctx context.Context, s *container.System) error { _, err := s.Status(ctx); return err }},
	{"statistics", func(ctx context.Context, s *container.System) error { _, err := s.Stats(ctx); return err }},
	{"pause", func(ctx context.Context, s *container.System) error {
		return errors.Join(s.Pause(ctx), s.Resume(ctx))
	}},
	{"process", func(ctx context.Context, s *container.System) error { return process(ctx, s, "exit 0") }},
	{"process", func(ctx context.Context, s *container.System) error { return process(ctx, s, "echo x; exit 0") }},
	{"signal", func(ctx context.Context, s *container.System) error {
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "100"}, Env: env})
		if err != nil {
			return err
		}
		err = p.Signal(ctx, syscall.SIGKILL)
		_, werr := p.Wait(ctx)
		return errors.Join(err, werr)
	}},
}

func process(ctx context.Context, s *container.System, script string) error {
	var out strings.Builder
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sh", "-c", script}, Env: env, Stdout: &out})
	if err != nil {
		return err
	}
	_, err = p.Wait(ctx)
	return err
}

// race does one operation to the system of the name, which is made if there is
// none.
func (f *fixture) race(service *container.Service, name string, do func(context.Context, *container.System) error) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Minute, errStuck)
	defer cancel()
	s, err := service.Open(ctx, name)
	if errdefs.IsNotFound(err) {
		s, err = service.Create(ctx, container.Spec{Name: name, Layers: f.layers})
	}
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, s), s.Close())
}

var errStuck = errors.New("the call does not return")

// expected reports whether another client's doing explains the error.
func expected(err error) bool {
	if err == nil {
		return true
	}
	return !errors.Is(err, errStuck) && (errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) ||
		errdefs.IsAlreadyExists(err) || errdefs.IsUnavailable(err))
}
