package container_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/rootfs"
)

func (f *fixture) state(s *container.System) container.State {
	f.t.Helper()
	st, err := s.Status(f.t.Context())
	f.must(err)
	return st.State
}

func TestLife(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.created(container.Spec{Name: "life"})
		steps := []struct {
			name string
			do   func(context.Context) error
			want container.State
		}{
			{"start", s.Start, container.Running},
			{"start again", s.Start, container.Running},
			{"pause", s.Pause, container.Paused},
			{"pause again", s.Pause, container.Paused},
			{"resume", s.Resume, container.Running},
			{"resume again", s.Resume, container.Running},
			{"terminate", s.Terminate, container.Stopped},
			{"terminate again", s.Terminate, container.Stopped},
			{"start after the end", s.Start, container.Running},
			{"pause to be terminated", s.Pause, container.Paused},
			{"terminate while paused", s.Terminate, container.Stopped},
		}
		if got := f.state(s); got != container.Created {
			t.Fatalf("new: %s", got)
		}
		for _, step := range steps {
			if err := step.do(ctx); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if got := f.state(s); got != step.want {
				t.Fatalf("%s: %s, want %s", step.name, got, step.want)
			}
		}
		f.must(s.Delete(ctx))
		if err := s.Delete(ctx); !errdefs.IsNotFound(err) {
			t.Errorf("delete again: %v", err)
		}
		if _, err := f.Open(ctx, "life"); !errdefs.IsNotFound(err) {
			t.Errorf("open what is deleted: %v", err)
		}
	})
}

func TestWhatDoesNotFitTheState(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{Name: "idle"})
	for name, do := range map[string]func(context.Context) error{
		"pause": s.Pause, "resume": s.Resume,
		"signal": func(ctx context.Context) error { return s.Signal(ctx, syscall.SIGTERM) },
		"stats":  func(ctx context.Context) error { _, err := s.Stats(ctx); return err },
		"process": func(ctx context.Context) error {
			_, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env})
			return err
		},
	} {
		if err := do(ctx); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "container idle: it is created") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.must(s.Start(ctx))
	if err := s.Delete(ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete while it runs: %v", err)
	}
	f.must(s.Pause(ctx))
	_, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("a process while paused: %v", err)
	}
	f.must(s.Resume(ctx))
	f.ok(s, "true")
}

// TestPauseMeetsTheEnd has a pause and the end of the system come at once:
// what is frozen does not die.
func TestPauseMeetsTheEnd(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for range 15 {
		s := f.running(container.Spec{})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				other, err := f.Open(ctx, s.ID())
				if err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					_ = other.Pause(ctx)
				}
				other.Close()
			})
		}
		f.must(s.Terminate(ctx))
		wg.Wait()
		f.must(s.Delete(ctx))
	}
}

func TestSignalsWhilePaused(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{Role: container.Main, Args: []string{"sleep", "1000"}, Env: env})
	f.must(err)
	f.must(s.Pause(ctx))
	if err := s.Signal(ctx, syscall.SIGUSR1); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("USR1: %v", err)
	}
	f.must(s.Signal(ctx, syscall.SIGKILL))
	if status, err := p.Wait(ctx); err != nil || status.Signal != syscall.SIGKILL {
		t.Errorf("%v, %v", status, err)
	}
}

// TestPruneKeepsToItsRoot has two services share a parent control group.
func TestPruneKeepsToItsRoot(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	config := f.config
	config.Root, config.Run = filepath.Join(f.dir, "root2"), filepath.Join(f.dir, "run2")
	layers, err := rootfs.Open(rootfs.Config{Dir: filepath.Join(f.dir, "layers2")})
	f.must(err)
	config.Layers = layers
	other, err := container.Open(config)
	f.must(err)
	if p, err := other.Prune(t.Context()); err != nil || len(p.Leftovers) != 0 {
		t.Errorf("pruned %+v, %v", p, err)
	}
	f.ok(s, "true")
}

func TestDamagedRecords(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	damage := func(s *container.System, name string) {
		f.must(os.WriteFile(filepath.Join(f.config.Root, "containers", s.ID(), name), []byte("{"), 0o600))
	}
	s := f.running(container.Spec{})
	f.must(s.Terminate(ctx))
	damage(s, "status.json")
	if got := f.state(s); got != container.Lost {
		t.Errorf("damaged status: %s", got)
	}
	f.must(s.Delete(ctx))
	s = f.created(container.Spec{Name: "damaged"})
	f.must(s.Close())
	damage(s, "record.json")
	if _, err := f.Open(ctx, "damaged"); !errdefs.IsDataLoss(err) {
		t.Errorf("open: %v", err)
	}
	if p, err := f.Prune(ctx); err != nil || len(p.Leftovers) == 0 {
		t.Errorf("pruned %+v, %v", p, err)
	}
	f.created(container.Spec{Name: "damaged"})
}

// TestErrorsSayTheirClassOnce has errors with a class that the text says in
// words of its own.
func TestErrorsSayTheirClassOnce(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{Name: "c"})
	_, create := f.Create(ctx, container.Spec{Name: "c", Layers: f.layers})
	_, open := f.Open(ctx, "nope")
	_, source := f.Create(ctx, container.Spec{Layers: f.layers, Mounts: []container.Mount{{Source: "/nope", Target: "/x"}}})
	_, root := f.Create(ctx, container.Spec{RootDir: "/nope"})
	_, invalid := f.Create(ctx, container.Spec{Layers: f.layers, Hostname: "a/b"})
	for _, c := range []struct {
		err  error
		is   func(error) bool
		text string
	}{
		{s.Pause(ctx), errdefs.IsFailedPrecondition, "pause container c: it is created"},
		{s.Signal(ctx, syscall.SIGTERM), errdefs.IsFailedPrecondition, "signal container c: it is created"},
		{create, errdefs.IsAlreadyExists, "create container c: the name is taken by container " + container.ShortID(s.ID())},
		{open, errdefs.IsNotFound, `no such container: "nope"`},
		{source, errdefs.IsNotFound, "create container: mount at /x: stat /nope: no such file or directory"},
		{root, errdefs.IsNotFound, "create container: use root directory: stat /nope: no such file or directory"},
		{
			invalid, errdefs.IsInvalidArgument,
			`create container: hostname "a/b": at most 64 printable characters without blanks and slashes`,
		},
	} {
		if !c.is(c.err) || c.err.Error() != c.text {
			t.Errorf("got %v; want %q of its class", c.err, c.text)
		}
	}
	if list, err := f.Systems(ctx); err != nil || len(list) != 1 {
		t.Errorf("what was refused left %d systems, %v", len(list)-1, err)
	}
}

// TestDiscard ends and removes what cannot be read any more.
func TestDiscard(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for _, running := range []bool{false, true} {
		s := f.created(container.Spec{Name: "broken"})
		if running {
			f.must(s.Start(ctx))
		}
		f.must(s.Close())
		if err := f.Discard(ctx, "broken"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("a sound one: %v", err)
		}
		f.must(os.WriteFile(filepath.Join(f.config.Root, "containers", s.ID(), "record.json"), []byte("{"), 0o600))
		f.must(f.Discard(ctx, "broken"))
		if err := f.Discard(ctx, "broken"); !errdefs.IsNotFound(err) {
			t.Errorf("once more: %v", err)
		}
		for _, path := range []string{"containers/" + s.ID(), "names/broken"} {
			if _, err := os.Lstat(filepath.Join(f.config.Root, path)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("still there: %s: %v", path, err)
			}
		}
	}
}

// TestOddNames has names that nobody here makes neither found nor in the way.
func TestOddNames(t *testing.T) {
	f := newFixture(t)
	names := filepath.Join(f.config.Root, "names")
	for _, target := range []string{"../../etc", "/", "a b", "ffffffffffffffffffffffffffffffff"} {
		link := filepath.Join(names, "odd")
		f.must(os.Symlink(target, link))
		if _, err := f.Open(t.Context(), "odd"); !errdefs.IsNotFound(err) {
			t.Errorf("%q: open: %v", target, err)
		}
		p, err := f.Prune(t.Context())
		if err != nil || !slices.Equal(p.Leftovers, []string{link}) {
			t.Errorf("%q: pruned %q, %v", target, p.Leftovers, err)
		}
		f.must(os.Symlink(target, link))
		s := f.created(container.Spec{Name: "odd"}) // takes it over
		f.must(s.Delete(t.Context()))
	}
	f.must(os.WriteFile(filepath.Join(names, "file"), nil, 0o600))
	if p, err := f.Prune(t.Context()); err != nil || len(p.Leftovers) != 1 {
		t.Errorf("a file: pruned %q, %v", p.Leftovers, err)
	}
}

func TestTailCountsLines(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	f.run(s, "echo zero; head -c 20000 /dev/zero | tr '\\0' x; echo; echo two; printf three", main)
	for n, want := range map[int]int{1: 5, 2: 9, 3: 20010, 4: 20015, 9: 20015} {
		got := 0
		for out, err := range s.Logs(t.Context(), container.LogOptions{Tail: n}) {
			f.must(err)
			got += len(out.Text)
		}
		if got != want {
			t.Errorf("tail %d: %d bytes, want %d", n, got, want)
		}
	}
}

func TestScratchOutlivesTheRun(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	f.ok(s, "echo kept > /file")
	f.must(s.Terminate(t.Context()))
	f.must(s.Start(t.Context()))
	if got := f.ok(s, "cat /file"); got != "kept" {
		t.Errorf("got %q", got)
	}
	other := f.running(container.Spec{})
	if r := f.run(other, "cat /file"); r.Code == 0 {
		t.Errorf("another container sees %q", r.out)
	}
}

func TestMainProcessEndsTheSystem(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	sleeper, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
	f.must(err)
	if r := f.run(s, "exit 5", main); r.Code != 5 {
		t.Errorf("exit status %d", r.Code)
	}
	if status, err := sleeper.Wait(ctx); err != nil || status.Signal != syscall.SIGKILL {
		t.Errorf("the other process: %v, %v", status, err)
	}
	st, err := s.Wait(ctx)
	f.must(err)
	if st.State != container.Stopped || st.ExitCode != 5 || st.Reason != "" {
		t.Errorf("got %+v", st)
	}
}

func TestEphemeralLeavesNothing(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{Name: "gone", Ephemeral: true})
	if r := f.run(s, "echo x > /file; exit 4", main); r.Code != 4 {
		t.Errorf("exit status %d", r.Code)
	}
	if _, err := f.Open(t.Context(), "gone"); !errdefs.IsNotFound(err) {
		t.Errorf("open: %v", err)
	}
	p, err := f.Prune(t.Context())
	f.must(err)
	if len(p.Containers)+len(p.Leftovers) != 0 {
		t.Errorf("left for prune: %+v", p)
	}
}

func TestShutdown(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		name, script string
		signal       int
		timeout      time.Duration
		code         int
	}{
		{"asked", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done", 0, time.Minute, 9},
		{"asked by the signal of its own", "trap 'exit 8' USR1; echo ready; while :; do sleep 0.01; done", 10, time.Minute, 8},
		{"deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done", 0, 50 * time.Millisecond, 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := f.running(container.Spec{StopSignal: tt.signal})
			out := new(lines)
			p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{
				Role: container.Main, Args: []string{"sh", "-c", tt.script}, Env: env, Stdout: out,
			})
			f.must(err)
			f.eventually("the script listens", func() bool { return out.has("ready") })
			ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
			defer cancel()
			f.must(s.Shutdown(ctx))
			status, err := p.Wait(t.Context())
			f.must(err)
			if status.Code != tt.code {
				t.Errorf("exit status %d, want %d", status.Code, tt.code)
			}
		})
	}
}

func TestNames(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{Name: "web"})
	_, err := f.Create(ctx, container.Spec{Name: "web", Layers: f.layers})
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), container.ShortID(s.ID())) {
		t.Errorf("the same name: %v", err)
	}
	for _, ref := range []string{"web", s.ID(), s.ID()[:12], s.ID()[:4]} {
		if got, err := f.Open(ctx, ref); err != nil || got.ID() != s.ID() {
			t.Errorf("open %q: %v, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"", "nope", "../web", "web/", ".", s.ID() + "0"} {
		if _, err := f.Open(ctx, ref); !errdefs.IsNotFound(err) {
			t.Errorf("open %q: %v", ref, err)
		}
	}
	f.must(s.Delete(ctx))
	f.created(container.Spec{Name: "web"}) // free again
}

func TestLogs(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	in, feed := io.Pipe()
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{
		Role: container.Main, Args: []string{"sh", "-c", "echo one; echo two >&2; read x; printf part; read x; echo ' end'"},
		Env: env, Stdin: in,
	})
	f.must(err)
	read := func(o container.LogOptions) string {
		var b strings.Builder
		for out, err := range s.Logs(ctx, o) {
			f.must(err)
			b.WriteString(string(out.Stream[3:]) + ":" + string(out.Text))
		}
		return b.String()
	}
	// The streams come as they come; what follows has to wait for both.
	sorted := func(s string) bool { return strings.Contains(s, "out:one\n") && strings.Contains(s, "err:two\n") }
	f.eventually("the log has both", func() bool { return sorted(read(container.LogOptions{})) })
	_, err = feed.Write([]byte("\n"))
	f.must(err)
	f.eventually("the log has the part", func() bool { return strings.HasSuffix(read(container.LogOptions{}), "out:part") })
	followed := make(chan string, 1)
	go func() { followed <- read(container.LogOptions{Follow: container.Follow}) }()
	f.must(p.CloseStdin(t.Context()))
	_, err = p.Wait(ctx)
	f.must(err)
	if got := <-followed; !sorted(got) || !strings.HasSuffix(got, "out: end\n") {
		t.Errorf("followed: %q", got)
	}
	if got := read(container.LogOptions{Tail: 1}); got != "out:partout: end\n" { // one line, of two entries
		t.Errorf("tail: %q", got)
	}
	if got := read(container.LogOptions{Since: time.Now()}); got != "" {
		t.Errorf("since now: %q", got)
	}
}

// blocked is an input that never comes.
type blocked struct{}

func (blocked) Read([]byte) (int, error) { select {} }

func TestManySystemsAtOnce(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			ctx := context.Background()
			s, err := f.Create(ctx, container.Spec{Layers: f.layers, Ephemeral: true})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Start(ctx); err != nil {
				t.Error(err)
				return
			}
			p, err := s.CreateProcess(ctx, &container.ProcessSpec{Role: container.Main, Args: []string{"true"}, Env: env})
			if err != nil {
				t.Error(err)
				return
			}
			if status, err := p.Wait(ctx); err != nil || status.Code != 0 {
				t.Errorf("got %v, %v", status, err)
			}
		})
	}
	wg.Wait()
}

// TestPauseLetsProcessesBegin has a process created while the system is paused: it begins before, or is refused, and the call
// does not wait for the system to go on.
func TestPauseLetsProcessesBegin(t *testing.T) {
	f := newFixture(t)
	s := f.created(container.Spec{})
	ctx := t.Context()
	f.must(s.Start(ctx))
	for range 30 {
		created := make(chan error, 1)
		go func() {
			_, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env})
			created <- err
		}()
		f.must(s.Pause(ctx))
		if err := <-created; err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("create a process: %v", err)
		}
		f.must(s.Resume(ctx))
	}
}

// TestEverythingAtOnce has several clients do all there is to one system:
// whatever comes of each call, none hangs, and nothing is left.
func TestEverythingAtOnce(t *testing.T) {
	f := newFixture(t)
	s := f.created(container.Spec{Name: "crowd"})
	ctx := context.Background()
	calls := []func(*container.System){
		func(s *container.System) { _ = s.Start(ctx) },
		func(s *container.System) { _ = s.Pause(ctx) },
		func(s *container.System) { _ = s.Resume(ctx) },
		func(s *container.System) { _ = s.Terminate(ctx) },
		func(s *container.System) { _, _ = s.Status(ctx) },
		func(s *container.System) {
			if p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"true"}, Env: env}); err == nil {
				_, _ = p.Wait(ctx)
			}
		},
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			mine, err := f.Open(ctx, "crowd")
			if err != nil {
				t.Error(err)
				return
			}
			defer mine.Close()
			for j := range 20 {
				calls[(i*7+j*5)%len(calls)](mine)
			}
		})
	}
	// A paused system stays so, and whoever waits for its processes waits on: somebody lets it go on until all are done.
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for going := true; going; {
		select {
		case <-done:
			going = false
		case <-time.After(50 * time.Millisecond):
			_ = s.Resume(ctx)
		}
	}
	f.must(s.Terminate(ctx))
	f.must(s.Delete(ctx))
}
