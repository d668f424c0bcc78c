package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

// allPipes has all streams of a process open for whoever asks.
var allPipes = container.Pipes{Stdin: true, Stdout: true, Stderr: true}

// held starts a script whose streams anybody can open.
func (f *fixture) held(s *container.System, script string, options ...func(*container.ProcessSpec)) *container.Process {
	f.t.Helper()
	spec := &container.ProcessSpec{Args: []string{"sh", "-c", script}, Env: env, Pipes: allPipes}
	for _, o := range options {
		o(spec)
	}
	p, err := s.CreateProcess(f.t.Context(), spec)
	f.must(err)
	return p
}

// reopen finds a process as another program would, with streams of its own.
func (f *fixture) reopen(s *container.System, p *container.Process) (*container.Process, *container.Stdio) {
	f.t.Helper()
	other, err := f.Open(f.t.Context(), s.ID())
	f.must(err)
	f.t.Cleanup(func() { other.Close() })
	q, err := other.OpenProcess(f.t.Context(), p.Pid())
	f.must(err)
	f.t.Cleanup(func() { q.Close() })
	streams, err := q.OpenStdio(f.t.Context())
	f.must(err)
	f.t.Cleanup(func() { streams.Close() })
	return q, streams
}

func (f *fixture) wait(p *container.Process) container.ExitStatus {
	f.t.Helper()
	status, err := p.Wait(f.t.Context())
	f.must(err)
	return status
}

func (f *fixture) all(r io.Reader) string {
	f.t.Helper()
	text, err := io.ReadAll(r)
	f.must(err)
	return string(text)
}

func (f *fixture) write(w io.Writer, text string) {
	f.t.Helper()
	_, err := io.WriteString(w, text)
	f.must(err)
}

func (f *fixture) expect(r io.Reader, want string) {
	f.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		f.t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

// TestStdioAfterWait reads what a process wrote after it has ended, by its
// creator and by another, and what is read once is read.
func TestStdioAfterWait(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		s := f.running(container.Spec{})
		p := f.held(s, "echo out; echo err >&2; exit 3")
		if st := f.wait(p); st.Code != 3 {
			t.Errorf("exit status %d", st.Code)
		}
		q, streams := f.reopen(s, p)
		if st := f.wait(q); st.Code != 3 {
			t.Errorf("opened after the end: exit status %d", st.Code)
		}
		if out, errs := f.all(streams.Stdout), f.all(streams.Stderr); out != "out\n" || errs != "err\n" {
			t.Errorf("got %q and %q", out, errs)
		}
		again, err := p.OpenStdio(t.Context())
		f.must(err)
		if out := f.all(again.Stdout); out != "" {
			t.Errorf("read again: %q", out)
		}
		f.must(again.Close())
	})
}

// TestStdioIsShared has two clients write to one input, and both read the
// output. That one closes its end does not concern the other.
func TestStdioIsShared(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	p := f.held(s, "cat")
	one, err := p.OpenStdio(t.Context())
	f.must(err)
	f.write(one.Stdin, "from one\n")
	f.expect(one.Stdout, "from one\n")
	q, two := f.reopen(s, p)
	f.write(two.Stdin, "from two\n")
	f.expect(two.Stdout, "from two\n") // and nothing of before
	f.expect(one.Stdout, "from two\n")
	f.must(one.Stdin.Close())
	f.must(one.Close())
	f.write(two.Stdin, "still\n")
	f.expect(two.Stdout, "still\n")
	f.write(two.Stdin, strings.Repeat("last\n", 10_000)) // more than one read of the shim's
	closed := make(chan error, 1)
	go func() { closed <- q.CloseStdin(t.Context()) }()
	if got := f.all(two.Stdout); got != strings.Repeat("last\n", 10_000) {
		t.Errorf("what was written before the end: %d bytes", len(got))
	}
	f.must(<-closed)
	if st := f.wait(p); st.Code != 0 {
		t.Errorf("exit status %d", st.Code)
	}
	f.must(p.CloseStdin(t.Context()))
}

// TestStdioWithoutReaders has a process write more than is kept: before the
// first reader it waits, and nothing is lost.
func TestStdioWithoutReaders(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	const script = "seq 100000; echo done >&2"
	p := f.held(s, script)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wrote 600 KB to nobody: %v", err)
	}
	streams, err := p.OpenStdio(t.Context())
	f.must(err)
	var want bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintln(&want, i+1)
	}
	if got := f.all(streams.Stdout); got != want.String() {
		t.Errorf("%d bytes, want %d", len(got), want.Len())
	}
	f.expect(streams.Stderr, "done\n")
	f.wait(p)
	f.must(streams.Close())
}

// TestStdioAfterReadersGo has the last reader go: the process goes on, and the
// end of what it wrote is there for the next.
func TestStdioAfterReadersGo(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	p := f.held(s, "echo ready; read x; seq 100000; seq 100000 >&2")
	first, err := p.OpenStdio(t.Context())
	f.must(err)
	f.expect(first.Stdout, "ready\n")
	f.write(first.Stdin, "go\n")
	f.must(first.Close())
	f.wait(p)
	_, next := f.reopen(s, p)
	for _, stream := range []io.Reader{next.Stdout, next.Stderr} {
		got := f.all(stream)
		if !strings.HasSuffix(got, "\n99999\n100000\n") || len(got) > 32<<10 || len(got) < 16<<10 {
			t.Errorf("%d bytes, at the end %q", len(got), got[max(0, len(got)-20):])
		}
	}
}

// TestStdioOfTerminals reopens a terminal.
func TestStdioOfTerminals(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	p := f.held(s, "stty size; read x; echo got $x; stty size; exit 4", func(s *container.ProcessSpec) {
		s.Terminal, s.Rows, s.Cols = true, 24, 80
	})
	q, streams := f.reopen(s, p)
	if streams.Stderr != nil {
		t.Error("a terminal has an error stream")
	}
	f.expect(streams.Stdout, "24 80\r\n")
	f.must(q.Resize(t.Context(), 50, 132))
	f.must(q.CloseStdin(t.Context())) // means nothing to a terminal
	f.write(streams.Stdin, "keys\n")
	if got := f.all(streams.Stdout); got != "keys\r\ngot keys\r\n50 132\r\n" {
		t.Errorf("got %q", got)
	}
	if st := f.wait(q); st.Code != 4 {
		t.Errorf("exit status %d", st.Code)
	}
}

// TestStdioWithCreatorsStreams has both.
func TestStdioWithCreatorsStreams(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	for _, role := range []container.Role{container.Additional, container.Main} {
		out, more := new(lines), make(chan struct{})
		in := io.MultiReader(strings.NewReader("first\n"), waitReader{more}, strings.NewReader("last\n"))
		p := f.held(s, "cat", func(s *container.ProcessSpec) { s.Role, s.Stdin, s.Stdout = role, in, out })
		f.eventually("the creator reads its own", func() bool { return out.has("first\n") })
		q, streams := f.reopen(s, p)
		f.write(streams.Stdin, "second\n")
		f.expect(streams.Stdout, "second\n")
		close(more) // the creator's input goes on and ends, and so does the process's
		if got := f.all(streams.Stdout); got != "last\n" {
			t.Errorf("role %d: got %q", role, got)
		}
		f.wait(q)
		f.wait(p)
		if !out.has("first\nsecond\nlast\n") {
			t.Errorf("role %d: the creator got %q", role, out.text.String())
		}
	}
}

// waitReader has nothing to read, but ends when it is told to.
type waitReader struct{ over chan struct{} }

func (w waitReader) Read([]byte) (int, error) {
	<-w.over
	return 0, io.EOF
}

// TestStdioThatIsNobodyElses tells what cannot be reopened.
func TestStdioThatIsNobodyElses(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"cat"}, Env: env, Stdin: blocked{}, Stdout: io.Discard})
	f.must(err)
	q, err := s.OpenProcess(ctx, p.Pid())
	f.must(err)
	if _, err := q.OpenStdio(ctx); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "its creator alone") {
		t.Errorf("streams: %v", err)
	}
	if err := q.CloseStdin(ctx); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "its creator alone") {
		t.Errorf("input: %v", err)
	}
	if err := q.Resize(ctx, 1, 1); !errdefs.IsNotFound(err) {
		t.Errorf("terminal: %v", err)
	}
	f.must(p.CloseStdin(ctx))
	f.wait(q)
	none := f.held(s, "exit 5", func(s *container.ProcessSpec) { s.Pipes = container.Pipes{} })
	if streams, err := none.OpenStdio(ctx); err != nil || *streams != (container.Stdio{}) {
		t.Errorf("of a process without: %+v, %v", streams, err)
	}
	f.wait(none)
}

// TestOpenAfterTheEnd finds as many as are said to be remembered, and no more.
func TestOpenAfterTheEnd(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	var pids []int
	begin := time.Now().Add(-time.Second) // clocks are coarse
	for i := range container.RememberedProcesses + 1 {
		p := f.held(s, fmt.Sprintf("echo %d; exit %d", i, i))
		f.wait(p)
		f.must(p.Close())
		pids = append(pids, p.Pid())
	}
	f.eventually("the oldest is forgotten", func() bool {
		_, err := s.OpenProcess(ctx, pids[0])
		return errdefs.IsNotFound(err) && strings.Contains(err.Error(), fmt.Sprintf("no process %d", pids[0]))
	})
	for i, pid := range pids[1:] {
		p, err := s.OpenProcess(ctx, pid)
		f.must(err)
		st := f.wait(p)
		if st.Code != i+1 || st.Ended.Before(st.Started) || st.Started.Before(begin) || st.OOMKilled {
			t.Errorf("%d: %+v", i+1, st)
		}
		streams, err := p.OpenStdio(ctx)
		f.must(err)
		if got := f.all(streams.Stdout); got != fmt.Sprintln(i+1) {
			t.Errorf("%d: wrote %q", i+1, got)
		}
		f.must(streams.Close())
	}
	for _, pid := range []int{0, -1, 1, 1 << 40} {
		if _, err := s.OpenProcess(ctx, pid); !errdefs.IsNotFound(err) {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}

// TestCreatorsPlace has more processes end than are remembered: the streams of
// one that its creator has not opened yet are there all the same, and not after
// the creator has done with it.
func TestCreatorsPlace(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	follow := func() {
		f.t.Helper()
		for range container.RememberedProcesses + 6 {
			f.ok(s, "true")
		}
	}
	first, second := f.held(s, "echo first; echo error >&2"), f.held(s, "cat; echo second")
	closed, running := f.held(s, "echo closed"), f.held(s, "read line; echo $line")
	f.must(second.CloseStdin(t.Context()))
	for _, p := range []*container.Process{first, second, closed} {
		f.wait(p)
	}
	early, err := running.OpenStdio(t.Context())
	f.must(err)
	f.write(early.Stdin, "running\n")
	f.wait(running)
	f.must(closed.Close())
	follow()
	for p, want := range map[*container.Process]string{first: "first\n", second: "second\n"} {
		streams, err := p.OpenStdio(t.Context())
		f.must(err)
		if got := f.all(streams.Stdout); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		f.must(streams.Close())
	}
	if got := f.all(early.Stdout); got != "running\n" {
		t.Errorf("opened while it ran: %q", got)
	}
	f.must(early.Close())
	follow()
	for _, p := range []*container.Process{first, second, closed, running} {
		f.eventually("the process is forgotten", func() bool {
			streams, err := p.OpenStdio(t.Context())
			if err == nil {
				f.check(streams.Close())
			}
			return errdefs.IsNotFound(err)
		})
		f.must(p.Close())
	}
}

// TestWaitsDoNotMissTheEnd has many wait for one process, by way of several
// Processes, most of them with contexts that end before: nobody loses anything.
func TestWaitsDoNotMissTheEnd(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	p := f.held(s, "read x; exit 9")
	var all sync.WaitGroup
	waiter := func(q *container.Process) {
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			st, err := q.Wait(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				continue
			}
			if err != nil || st.Code != 9 {
				t.Errorf("got %+v, %v", st, err)
			}
			return
		}
	}
	for range 4 {
		q, err := s.OpenProcess(t.Context(), p.Pid())
		f.must(err)
		for range 4 {
			all.Go(func() { waiter(q) })
		}
	}
	all.Go(func() { waiter(p) })
	f.must(p.CloseStdin(t.Context()))
	all.Wait()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // what is known is told, whatever the context says
		if _, err := p.Wait(over); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCloseOfProcess lets go of one, which goes on.
func TestCloseOfProcess(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	p := f.held(s, "read x; exit 2")
	q, err := s.OpenProcess(ctx, p.Pid())
	f.must(err)
	waited := make(chan error, 1)
	go func() { _, err := q.Wait(ctx); waited <- err }()
	f.must(q.Close())
	f.must(q.Close())
	if err := <-waited; !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a wait: %v", err)
	}
	f.must(p.CloseStdin(ctx))
	if st := f.wait(p); st.Code != 2 {
		t.Errorf("exit status %d", st.Code)
	}
	f.must(p.Close())
	if st := f.wait(p); st.Code != 2 {
		t.Errorf("exit status after Close %d", st.Code)
	}
	f.ok(s, "true")
}

// TestOOMKilled tells what the kernel killed from what a client did.
func TestOOMKilled(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{Resources: container.Resources{Memory: 32 << 20}})
	if st := f.run(s, "exec dd if=/dev/zero of=/dev/null bs=256M count=1"); st.Signal != syscall.SIGKILL || !st.OOMKilled {
		t.Errorf("lack of memory: %+v", st.ExitStatus)
	}
	p := f.held(s, "read x")
	f.must(p.Signal(ctx, syscall.SIGKILL))
	if st := f.wait(p); st.Signal != syscall.SIGKILL || st.OOMKilled {
		t.Errorf("killed: %+v", st)
	}
}

// TestOpenedByAnotherProgram has a program that created a process be killed: the
// next finds the process, its streams, and what was written meanwhile.
func TestOpenedByAnotherProgram(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	p := f.inChild(s, "echo one; read x; echo got $x; exit 8")
	q, err := s.OpenProcess(t.Context(), p)
	f.must(err)
	streams, err := q.OpenStdio(t.Context())
	f.must(err)
	f.expect(streams.Stdout, "one\n")
	f.write(streams.Stdin, "it\n")
	f.expect(streams.Stdout, "got it\n")
	if st := f.wait(q); st.Code != 8 {
		t.Errorf("exit status %d", st.Code)
	}
	f.must(streams.Close())
}

// errCut is what talk returns when a process has not said all.
var errCut = errors.New("output is missing")

// talk creates a process, opens it and its streams as others do, and talks to
// it. What it says back is all there, if nobody killed it.
func talk(ctx context.Context, s *container.System) error {
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"cat"}, Env: env, Pipes: allPipes})
	if err != nil {
		return err
	}
	defer p.Close()
	q, err := s.OpenProcess(ctx, p.Pid())
	if err != nil {
		return err
	}
	defer q.Close()
	streams, err := q.OpenStdio(ctx)
	if err != nil {
		return err
	}
	defer streams.Close()
	_, werr := io.WriteString(streams.Stdin, "text") // fails if somebody killed it
	if err := q.CloseStdin(ctx); err != nil {
		return err
	}
	text, err := io.ReadAll(streams.Stdout)
	if err != nil {
		return err
	}
	st, err := q.Wait(ctx)
	if err == nil && st.Signal == 0 && string(text) != "text" {
		err = fmt.Errorf("%w: cat says %q and ends with %+v; writing to it: %w", errCut, text, st, werr)
	}
	return err
}
