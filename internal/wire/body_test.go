package wire_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/wire"
)

func TestBodies(t *testing.T) {
	spawn := wire.SpawnRequest{
		Flags: wire.Terminal | wire.Stdout, Args: []string{"a", "", "b c"}, Env: []string{"K=V"}, Dir: "/d", User: "u:g",
		Rows: 24, Cols: 65535,
	}
	var gotSpawn wire.SpawnRequest
	if err := gotSpawn.Decode(spawn.Encode()); err != nil || cmp.Diff(spawn, gotSpawn) != "" {
		t.Errorf("spawn: %v, %+v", err, gotSpawn)
	}
	exit := wire.Exit{Status: 0x8b, UserUS: 1 << 40, SysUS: 3}
	var gotExit wire.Exit
	if err := gotExit.Decode(exit.Encode()); err != nil || gotExit != exit {
		t.Errorf("exit: %v, %+v", err, gotExit)
	}
	for n := range len(spawn.Encode()) { // cut anywhere
		if err := new(wire.SpawnRequest).Decode(spawn.Encode()[:n]); err == nil {
			t.Errorf("spawn cut to %d bytes decodes", n)
		}
	}
	if err := gotSpawn.Decode(append(spawn.Encode(), 0)); err == nil {
		t.Error("spawn with more after it decodes")
	}
}

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		status       uint32
		code, signal int
	}{{0, 0, 0}, {7 << 8, 7, 0}, {255 << 8, 255, 0}, {9, 137, 9}, {11 | 0x80, 139, 11}} {
		x := wire.Exit{Status: tt.status}
		if x.Code() != tt.code || x.Signal() != tt.signal {
			t.Errorf("status %#x: got %d, %d", tt.status, x.Code(), x.Signal())
		}
	}
}

// FuzzBodies decodes what a lying peer may send: no panic, bounded memory,
// and what decodes encodes to something equal.
func FuzzBodies(f *testing.F) {
	spawn := wire.SpawnRequest{Args: []string{"a"}, Env: []string{"K=V"}, Dir: "/"}
	f.Add(spawn.Encode())
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add((&wire.Failure{Class: 1, Text: "x"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again wire.SpawnRequest
		if r.Decode(b) == nil {
			if err := again.Decode(r.Encode()); err != nil || cmp.Diff(r, again) != "" {
				t.Errorf("%+v becomes %+v, %v", r, again, err)
			}
		}
		_ = new(wire.Exit).Decode(b)
		_ = new(wire.Spawned).Decode(b)
		_ = new(wire.Failure).Decode(b)
		_ = new(wire.SignalRequest).Decode(b)
		_ = new(wire.ResizeRequest).Decode(b)
	})
}
