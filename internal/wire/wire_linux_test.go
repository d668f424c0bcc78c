package wire_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/wire"
)

// pair returns two connected ends.
func pair(t *testing.T) (a, b *wire.Conn) {
	t.Helper()
	a, f, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if b, err = wire.NewConn(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessagesTravel(t *testing.T) {
	a, b := pair(t)
	for _, size := range []int{0, 1, 32<<10 - 8, 32<<10 - 7, 100_000, wire.MaxBody} {
		m := wire.Message{Type: wire.Spawn, Seq: 7, Body: bytes.Repeat([]byte("b"), size)}
		sent := make(chan error, 1)
		go func() { sent <- a.Send(m) }()
		got, err := b.Receive()
		if err != nil || <-sent != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got.Type != m.Type || got.Seq != m.Seq || !bytes.Equal(got.Body, m.Body) {
			t.Errorf("%d bytes: got %v, %d, %d bytes", size, got.Type, got.Seq, len(got.Body))
		}
	}
}

func TestTooLargeIsRefused(t *testing.T) {
	a, _ := pair(t)
	if err := a.Send(wire.Message{Type: wire.Spawn, Body: make([]byte, wire.MaxBody+1)}); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestDescriptorsTravel(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	body := make([]byte, 70_000) // they come with the first of several packets
	if err := a.Send(wire.Message{Type: wire.Spawn, Body: body, Files: []int{int(w.Fd())}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	m, err := b.Receive()
	if err != nil || len(m.Files) != 1 || len(m.Body) != len(body) {
		t.Fatalf("got %d files, %d bytes, %v", len(m.Files), len(m.Body), err)
	}
	if _, err := syscall.Write(m.Files[0], []byte("through")); err != nil {
		t.Fatal(err)
	}
	wire.CloseFiles(m.Files)
	if text, err := io.ReadAll(r); err != nil || string(text) != "through" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestSenderIsKnown(t *testing.T) {
	a, b := pair(t)
	if err := b.ReceiveFrom(); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(wire.Message{Type: wire.Ready}); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Receive(); err != nil || m.From != os.Getpid() {
		t.Errorf("from %d, %v; want %d", m.From, err, os.Getpid())
	}
}

func TestEndOfConnection(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(wire.Message{Type: wire.Ready}); err != nil { // stays unread
		t.Fatal(err)
	}
	b.Close()
	if _, err := a.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("receive: %v", err)
	}
	if err := a.Send(wire.Message{Type: wire.Ready}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("send: %v", err)
	}
}

// TestSendAfterEnd sends to a peer that has gone and left something unread,
// which nobody has noticed yet.
func TestSendAfterEnd(t *testing.T) {
	for name, send := range map[string]func(*wire.Conn, wire.Message) error{"": (*wire.Conn).Send, "now": (*wire.Conn).SendNow} {
		a, b := pair(t)
		for range 2 {
			if err := a.Send(wire.Message{Type: wire.Ready}); err != nil {
				t.Fatal(err)
			}
		}
		b.Close()
		if err := send(a, wire.Message{Type: wire.Ready}); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("send %s: %v", name, err)
		}
	}
}

// TestLastWords has a peer that goes while there are messages for it: what it
// said before is heard.
func TestLastWords(t *testing.T) {
	for _, unread := range []int{0, 1, 5} {
		a, b := pair(t)
		said := []wire.Type{wire.Began, wire.Error}
		for range unread {
			if err := a.Send(wire.Message{Type: wire.Lend}); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range said {
			if err := b.Send(wire.Message{Type: m}); err != nil {
				t.Fatal(err)
			}
		}
		b.Close()
		for _, want := range said {
			if m, err := a.Receive(); err != nil || m.Type != want {
				t.Fatalf("with %d unread: got %v, %v; want %v", unread, m.Type, err, want)
			}
		}
		if _, err := a.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("with %d unread: %v", unread, err)
		}
	}
}

func TestClosedHere(t *testing.T) {
	a, _ := pair(t)
	received := make(chan error, 1)
	go func() {
		_, err := a.Receive()
		received <- err
	}()
	a.Close() // before it waits, or meanwhile
	if err := <-received; !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestSendNowDoesNotWait(t *testing.T) {
	a, _ := pair(t)
	m := wire.Message{Type: wire.Spawn, Body: make([]byte, 30_000)}
	var err error
	for range 1000 {
		if err = a.SendNow(m); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("got %v", err)
	}
}

func TestOtherPackets(t *testing.T) {
	for _, tt := range []struct {
		name   string
		packet []byte
		want   error
	}{
		{"too short", []byte{1, 1, 0}, wire.ErrMalformed},
		{"another version", []byte{wire.Version + 1, 1, 0, 0, 0, 0, 0, 0}, wire.ErrVersion},
		{"truncated", make([]byte, 40<<10), wire.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, f, err := wire.Pair()
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			defer f.Close()
			if _, err := syscall.Write(int(f.Fd()), tt.packet); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Receive(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestListenAndDial(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120)) // longer than a socket address
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(long, "socket")
	l, err := wire.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			m, _ := c.Receive()
			m.Type = wire.OK
			_ = c.Send(m)
		}
	}()
	c, err := wire.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Send(wire.Message{Type: wire.Query, Seq: 3}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Reply(); err != nil || m.Type != wire.OK || m.Seq != 3 {
		t.Errorf("got %+v, %v", m, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := wire.Dial(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dial what is closed: %v", err)
	}
}

func TestFailureIsAnError(t *testing.T) {
	a, b := pair(t)
	want := &wire.Failure{Class: wire.Wrong, Text: "no"}
	go func() {
		if _, err := b.Receive(); err == nil {
			_ = b.Send(wire.Message{Type: wire.Error, Body: want.Encode()})
		}
	}()
	if err := a.Send(wire.Message{Type: wire.Pause}); err != nil {
		t.Fatal(err)
	}
	_, err := a.Reply()
	got, ok := errors.AsType[*wire.Failure](err)
	if !ok || cmp.Diff(want, got) != "" {
		t.Errorf("got %v", err)
	}
}
