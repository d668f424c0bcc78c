package shim

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/internal/wire"
)

// rig is a shim with an agent that the test plays, and without a container.
type rig struct {
	*shim
	t     testing.TB
	agent *wire.Conn // the agent's end
	raw   int        // its descriptor
	calls []call
}

// call is a client's request on a connection of its own.
type call struct {
	name string
	done chan error // gets the last answer's error
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	s := newShim()
	s.ownMounts = true // in which nothing is mounted: the starter never starts
	err := s.plan(&wire.Spec{
		ID: "c", Dir: dir, Status: filepath.Join(dir, "status.json"),
		Log:    wire.Log{Path: filepath.Join(dir, "log"), MaxFiles: 1},
		Events: wire.Events{Dir: dir, Alive: filepath.Join(dir, "alive")},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{shim: s, t: t}
	s.agent, r.agent, r.raw = r.pair()
	s.status.State = wire.Running
	return r
}

// pair returns both ends of a connection, and the descriptor of the second.
func (r *rig) pair() (ours, theirs *wire.Conn, fd int) {
	r.t.Helper()
	ours, f, err := wire.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	fd, err = syscall.Dup(int(f.Fd()))
	if err == nil {
		theirs, err = wire.NewConn(fd)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return ours, theirs, fd
}

// ask makes a request as a client, which waits for one answer after the other
// until the last, the end of the connection, or an error.
func (r *rig) ask(name string, m wire.Message, last ...wire.Type) {
	ours, client, _ := r.pair()
	go r.serve(ours)
	done := make(chan error, 1)
	r.calls = append(r.calls, call{name, done})
	if err := client.Send(m); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer client.Close()
		for {
			reply, err := client.Reply()
			wire.CloseFiles(reply.Files)
			for _, t := range last {
				if err == nil && reply.Type == t {
					done <- nil
					return
				}
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
}

// askAll makes every request there is, and returns when the agent has been
// asked for the processes: 1 has streams of its own, 2 those of the shim, 3 a
// terminal, and 4 one of the shim.
func (r *rig) askAll() {
	for i, flags := range []wire.SpawnFlags{
		0, wire.Main | wire.Logged | wire.HoldStdin, wire.Terminal, wire.Terminal | wire.HoldStdin | wire.HoldStdout,
	} {
		request := wire.SpawnRequest{Args: []string{"x"}, Flags: flags}
		r.ask("Spawn", wire.Message{Type: wire.Spawn, Body: request.Encode()}, wire.Ended)
		m, err := r.agent.Receive()
		if err != nil || m.Type != wire.Spawn || int(m.Seq) != i+1 {
			r.t.Fatalf("the agent is asked %v of %d, %v", m.Type, m.Seq, err)
		}
		wire.CloseFiles(m.Files)
	}
	r.ask("WaitOne", wire.Message{Type: wire.WaitOne, Seq: 1}, wire.Ended)
	r.ask("Query", wire.Message{Type: wire.Query}, wire.StatusReply)
	r.ask("Resume", wire.Message{Type: wire.Resume}, wire.OK)
}

// askMore asks what makes sense after the agent's first reports.
func (r *rig) askMore() {
	for seq := range uint32(5) {
		r.ask("Signal", wire.Message{Type: wire.Signal, Seq: seq, Body: wire.SignalRequest{Signal: 15}.Encode()}, wire.OK)
		r.ask("Open", wire.Message{Type: wire.Open, Body: wire.OpenRequest{Pid: seq}.Encode()}, wire.Ended)
		r.ask("CloseInput", wire.Message{Type: wire.CloseInput, Seq: seq}, wire.OK)
		r.ask("Resize", wire.Message{Type: wire.Resize, Seq: seq, Body: wire.ResizeRequest{Rows: 1}.Encode()}, wire.OK)
		r.ask("Attach", wire.Message{Type: wire.Attach, Seq: seq, Body: wire.AttachRequest{}.Encode()}, wire.Attached)
	}
	r.ask("Shutdown", wire.Message{Type: wire.Shutdown, Body: wire.SignalRequest{Signal: 15}.Encode()}, wire.OK)
}

// end ends the system as supervise does, and waits for all answers.
func (r *rig) end() {
	r.t.Helper()
	r.stop("")
	if err := r.shim.agent.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		r.t.Error(err)
	}
	r.endAll()
	r.relays.finish(100 * time.Millisecond) // an agent may have a terminal's other end
	for _, c := range r.calls {
		select {
		case err := <-c.done:
			if _, refused := errors.AsType[*wire.Failure](err); err != nil && !refused && !errors.Is(err, io.EOF) {
				r.t.Errorf("%s: %v", c.name, err)
			}
		case <-time.After(testenv.Patience):
			r.t.Fatalf("%s is not answered", c.name)
		}
	}
	if err := errors.Join(r.log.close(), r.events.close()); err != nil {
		r.t.Error(err)
	}
}

// play sends what the script says: for each message its type, the process, how
// many and what descriptors, and how long its body is, which follows. A type of
// 0xff are bytes that are no message.
func (r *rig) play(script []byte) {
	for len(script) >= 4 {
		kind, seq, files, size := script[0], script[1], script[2], int(script[3])
		script = script[4:]
		size = min(size, len(script))
		m := wire.Message{Type: wire.Type(kind), Seq: uint32(seq), Body: script[:size]}
		script = script[size:]
		if kind == 0xff {
			_ = syscall.Sendmsg(r.raw, m.Body, nil, nil, syscall.MSG_NOSIGNAL)
			continue
		}
		list := openSome(files)
		for _, f := range list {
			m.Files = append(m.Files, int(f.Fd()))
		}
		err := r.agent.Send(m)
		closeAll(list)
		if err != nil {
			return
		}
	}
}

// openSome opens descriptors: two bits say how many, and each two after them
// which.
func openSome(n byte) (list []*os.File) {
	for range n & 3 {
		n >>= 2
		name := [...]string{"/dev/null", "/dev/ptmx", "/", "/proc/self/exe"}[n&3]
		if f, err := os.Open(name); err == nil {
			list = append(list, f)
		}
	}
	return list
}

func message(kind wire.Type, seq, files byte, body []byte) []byte {
	return append([]byte{byte(kind), seq, files, byte(len(body))}, body...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	began     = wire.Spawned{Pid: 2}.Encode()
	ended     = wire.Exit{Status: 3 << 8}.Encode()
	huge      = wire.Exit{Status: 1<<32 - 1, UserUS: 1<<64 - 1, SysUS: 1<<64 - 1, Started: -1, Ended: 1<<63 - 1, OOM: true}.Encode()
	noProgram = (&wire.Failure{Class: wire.NotFound, Text: "no such\n\x1b[2Jprogram"}).Encode()
)

const aTerminal = 1 | 1<<2 // one descriptor, of a terminal

// scripts are what agents say, and what the shim makes of it: the reason of
// the end, or nothing where that is all right.
var scripts = []struct {
	name   string
	script []byte
	reason string
}{
	{"as it should", join(
		message(wire.Began, 1, 0, began), message(wire.Ended, 1, 0, ended), message(wire.Error, 2, 0, noProgram),
		message(wire.Began, 3, aTerminal, began), message(wire.Began, 4, aTerminal, began), message(wire.Ended, 4, 0, ended),
	), ""},
	{"huge numbers", join(message(wire.Began, 1, 0, wire.Spawned{Pid: 1<<32 - 1}.Encode()), message(wire.Ended, 1, 0, huge)), ""},
	{"nothing", nil, ""},
	{"the end first", message(wire.Ended, 1, 0, ended), "Ended of process 1"},
	{"begun twice", join(message(wire.Began, 1, 0, began), message(wire.Began, 1, 0, began)), "Began of process 1"},
	{"ended twice", join(message(wire.Began, 1, 0, began), message(wire.Ended, 1, 0, ended), message(wire.Ended, 1, 0, ended)), "Ended of process 1"},
	{"refused after it began", join(message(wire.Began, 1, 0, began), message(wire.Error, 1, 0, noProgram)), "Error of process 1"},
	{"nobody's process", message(wire.Began, 77, 0, began), "Began of process 77"},
	{"a descriptor too many", message(wire.Began, 1, 1, began), "Began of process 1"},
	{"a terminal too few", message(wire.Began, 3, 0, began), "Began of process 3"},
	{"a terminal that is none", message(wire.Began, 4, 1, began), "Began of process 4"},
	{"a malformed beginning", message(wire.Began, 1, 0, nil), "Began of process 1"},
	{"a malformed end", join(message(wire.Began, 1, 0, began), message(wire.Ended, 1, 0, []byte{0xff})), "Ended of process 1"},
	{"a malformed refusal", message(wire.Error, 1, 0, []byte{1, 200}), "Error of process 1"},
	{"a client's request", message(wire.Terminate, 0, 0, nil), "Terminate of process 0"},
	{"idle, unasked", message(wire.Idle, 0, 3, nil), "Idle of process 0"},
	{"no message", message(0xff, 0, 0, []byte("short")), "malformed message"},
	{"another version", message(0xff, 0, 0, []byte("version!")), "message of another protocol version"},
}

// TestAgentsReports has agents say all that, and clients wait for answers.
func TestAgentsReports(t *testing.T) {
	for _, tt := range scripts {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.askAll()
			heard := make(chan struct{})
			go func() {
				defer close(heard)
				r.listenToAgent()
			}()
			r.play(tt.script)
			if tt.reason != "" {
				<-heard // a shutdown that comes before would make sense of some reports
			}
			r.askMore()
			r.agent.Close()
			<-heard
			r.end()
			want := tt.reason
			if want != "" {
				want = distrust + want
			}
			if r.status.Reason != want {
				t.Errorf("the reason is %q, want %q", r.status.Reason, want)
			}
		})
	}
}

// TestRefusalsAreOneLine has an agent say something for a terminal.
func TestRefusalsAreOneLine(t *testing.T) {
	if got := plain("no such\n\x1b[2J\u202eprogram" + strings.Repeat("x", 1<<20)); !strings.HasPrefix(got, "no such??[2J?program") || len(got) > maxSaid {
		t.Errorf("%d bytes, %.40q", len(got), got)
	}
}

// FuzzAgent has agents say anything: the shim lives, leaves no descriptor
// behind, and answers its clients.
func FuzzAgent(f *testing.F) {
	for _, tt := range scripts {
		f.Add(tt.script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		r := newRig(t)
		before := descriptors(t, r.spec.Dir) // both ends of the agent's connection among them
		r.askAll()
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			r.listenToAgent()
		}()
		played := make(chan struct{})
		go func() {
			defer close(played)
			r.play(script)
		}()
		r.askMore()
		<-played
		r.agent.Close()
		<-heard
		r.end()
		for deadline := time.Now().Add(testenv.Patience); len(descriptors(t, r.spec.Dir)) > len(before)-2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("descriptors %q, before %q", descriptors(t, r.spec.Dir), before)
			}
		}
	})
}

// descriptors lists what this process has open, but for files in dir: those are
// closed with the shim's process.
func descriptors(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, dir) {
			list = append(list, to)
		}
	}
	return list
}
