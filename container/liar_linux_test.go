package container_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/internal/wire"
)

// liarPath is where an agent is that an OCI runtime started: this test's own
// program is a lying one if it finds itself there. The system's host name says
// how it lies.
const liarPath = "/dev/.hcs-agent"

// lies are what such agents do after they have said that they are ready, by
// name, and what the system's reason is then, if it ends by itself.
var lies = map[string]struct {
	lie    func(*wire.Conn)
	reason string
}{
	"mute":  {func(c *wire.Conn) { hear(c, nil) }, ""},
	"deaf":  {func(*wire.Conn) { testenv.AwaitKill() }, ""},
	"gone":  {func(*wire.Conn) {}, "its first process died"},
	"twice": {func(c *wire.Conn) { tell(c, wire.Ready, 0, nil); hear(c, nil) }, "Ready of process 0"},
	"flood": {func(c *wire.Conn) {
		for seq := uint32(0); tell(c, wire.Ended, seq, wire.ByKill().Encode()); seq++ {
		}
		testenv.AwaitKill()
	}, "Ended of process 0"},
	"noise": {func(*wire.Conn) {
		for {
			_, _ = syscall.Write(3, bytes.Repeat([]byte{0xa5}, 100))
		}
	}, "another protocol version"},
	"wrong-order": {func(c *wire.Conn) {
		hear(c, func(m wire.Message) { tell(c, wire.Ended, m.Seq, wire.ByKill().Encode()) })
	}, "Ended of process 1"},
	"unknown": {func(c *wire.Conn) {
		hear(c, func(m wire.Message) { tell(c, wire.Began, m.Seq+1000, wire.Spawned{Pid: 2}.Encode()) })
	}, "Began of process 1001"},
	"huge": {func(c *wire.Conn) {
		hear(c, func(m wire.Message) {
			tell(c, wire.Began, m.Seq, wire.Spawned{Pid: 1<<32 - 1}.Encode())
			x := wire.Exit{Status: 1<<32 - 1, UserUS: 1<<64 - 1, SysUS: 1<<64 - 1, Started: -1, Ended: 1<<63 - 1, OOM: true}
			tell(c, wire.Ended, m.Seq, x.Encode())
		})
	}, ""},
	"output": {func(c *wire.Conn) {
		hear(c, func(m wire.Message) {
			tell(c, wire.Began, m.Seq, wire.Spawned{Pid: 2}.Encode())
			for _, fd := range m.Files {
				fd, _ := syscall.Dup(fd)
				go func() {
					for text := bytes.Repeat([]byte("no end "), 1000); ; {
						if _, err := syscall.Write(fd, text); err != nil {
							return
						}
					}
				}()
			}
		})
	}, ""},
}

// lie is such an agent.
func lie() int {
	syscall.CloseOnExec(3)
	c := wire.NewBlockingConn(3)
	how, _ := os.Hostname()
	if how != "silent" && tell(c, wire.Ready, 0, nil) {
		lies[how].lie(c)
		return 0
	}
	testenv.AwaitKill()
	return 1
}

func tell(c *wire.Conn, kind wire.Type, seq uint32, body []byte) bool {
	return c.Send(wire.Message{Type: kind, Seq: seq, Body: body}) == nil
}

// hear has each request for a process answered.
func hear(c *wire.Conn, answer func(wire.Message)) {
	for {
		m, err := c.Receive()
		if err != nil {
			return
		}
		if m.Type == wire.Spawn && answer != nil {
			answer(m)
		}
		wire.CloseFiles(m.Files)
	}
}

// liar makes a service whose agents lie.
func (f *fixture) liar(starter string) {
	f.t.Helper()
	testenv.NeedCommand(f.t, starter)
	dir := f.t.TempDir()
	self, err := os.Executable()
	f.must(err)
	text, err := os.ReadFile(self)
	f.must(err)
	f.must(os.WriteFile(filepath.Join(dir, "hcs-agent"), text, 0o755))
	f.must(os.Symlink(filepath.Join(f.config.Libexec, "hcs-shim"), filepath.Join(dir, "hcs-shim")))
	f.config.Libexec, f.config.Runtime = dir, starter
	f.open()
}

// TestLyingAgents has every call return whatever the agent does.
func TestLyingAgents(t *testing.T) {
	for name, how := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.liar("crun")
			s := f.created(container.Spec{Hostname: name, Mounts: libraries(), Log: container.Log{MaxSize: 1 << 16, MaxFiles: 2}})
			if err := s.Start(t.Context()); err != nil && name == "gone" { // before the start was done
				return
			} else if err != nil {
				t.Fatal(err)
			}
			f.callEverything(s)
			if how.reason != "" {
				st, err := s.Wait(t.Context())
				if err != nil || st.State != container.Stopped || !strings.Contains(st.Reason, how.reason) {
					t.Errorf("got %+v, %v; want the reason %q", st, err, how.reason)
				}
			}
			f.must(s.Terminate(t.Context()))
			if st, err := s.Status(t.Context()); err != nil || st.State != container.Stopped {
				t.Errorf("got %+v, %v", st, err)
			}
		})
	}
}

// callEverything makes every call that talks to the agent, each with a little
// time, and sees that it returns.
func (f *fixture) callEverything(s *container.System) {
	f.t.Helper()
	streams := func(o *container.ProcessSpec) { o.Stdout, o.Stderr, o.Pipes = io.Discard, io.Discard, allPipes }
	spec := func(options ...func(*container.ProcessSpec)) *container.ProcessSpec {
		p := &container.ProcessSpec{Args: []string{"true"}, Env: append(env, "X="+strings.Repeat("x", 100_000))}
		for _, o := range options {
			o(p)
		}
		return p
	}
	create := func(options ...func(*container.ProcessSpec)) func(context.Context) error {
		return func(ctx context.Context) error {
			p, err := s.CreateProcess(ctx, spec(options...))
			if err == nil {
				_, err = p.Wait(ctx)
				_ = p.Signal(ctx, syscall.SIGTERM)
				_ = p.CloseStdin(ctx)
				_ = p.Close()
			}
			return err
		}
	}
	for name, call := range map[string]func(context.Context) error{
		"process": create(), "main process": create(main, streams), "held process": create(streams),
		"terminal": create(func(o *container.ProcessSpec) { o.Terminal, o.Stdout = true, io.Discard }),
		"open":     func(ctx context.Context) error { _, err := s.OpenProcess(ctx, 2); return err },
		"status":   func(ctx context.Context) error { _, err := s.Status(ctx); return err },
		"list":     func(ctx context.Context) error { _, err := s.Processes(ctx); return err },
		"pause":    s.Pause, "resume": s.Resume,
		"signal": func(ctx context.Context) error { return s.Signal(ctx, syscall.SIGTERM) },
		"wait":   func(ctx context.Context) error { _, err := s.Wait(ctx); return err },
	} {
		const rounds = 3 // so that a deaf agent's socket is full
		for range rounds {
			ctx, cancel := context.WithTimeout(f.t.Context(), 50*time.Millisecond)
			done := make(chan error, 1)
			go func() { done <- call(ctx) }()
			select {
			case <-done:
			case <-time.After(30 * time.Second):
				f.t.Errorf("%s does not return", name)
			}
			cancel()
		}
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 50*time.Millisecond)
	defer cancel()
	f.check(s.Shutdown(ctx))
}

// TestSilentAgent is one that never says that it is ready.
func TestSilentAgent(t *testing.T) {
	f := newFixture(t)
	f.liar("crun")
	s := f.created(container.Spec{Hostname: "silent", Mounts: libraries()})
	started := make(chan error, 1)
	go func() { started <- s.Start(t.Context()) }()
	f.eventually("it starts", func() bool { return f.state(s) == container.Starting })
	f.must(s.Terminate(t.Context()))
	if err := <-started; err == nil || !strings.Contains(err.Error(), "ended while it started") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Start(ctx); err == nil {
		t.Error("it has started")
	}
}
