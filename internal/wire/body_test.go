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
	build := fullBuild()
	var gotBuild wire.Build
	if err := gotBuild.Decode(build.Encode()); err != nil || cmp.Diff(build, gotBuild) != "" {
		t.Errorf("build: %v, %s", err, cmp.Diff(build, gotBuild))
	}
	for n := range len(build.Encode()) {
		if err := new(wire.Build).Decode(build.Encode()[:n]); err == nil {
			t.Errorf("build cut to %d bytes decodes", n)
		}
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

// fullBuild has something of everything.
func fullBuild() wire.Build {
	return wire.Build{
		Root: "/run/root", ReadOnly: true, Hostname: "h", Loopback: true, Cgroup: true,
		Mounts: []wire.Mount{
			{Target: "/proc", Type: "proc", Source: "proc", Attributes: 1 << 20, Options: []string{"a=b", "c"}},
			{Target: "/data", Source: "/home", Recursive: true},
		},
		Devices: []wire.DeviceNode{{Path: "/dev/x", Mode: 0o20666, Major: 1, Minor: 2, UID: 3, GID: 4}},
		Masked:  []string{"/proc/kcore"}, Fixed: []string{"/proc/sys", "/proc/irq"},
		Rlimits:  []wire.Rlimit{{Name: "RLIMIT_CORE", Resource: 4, Soft: 5, Hard: 1<<64 - 1}},
		Bounding: 1 << 40, Capabilities: 1<<40 | 1, NoNewPrivileges: true, Seccomp: []byte{0, 255, 0},
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
	full := fullBuild()
	f.Add(full.Encode())
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add((&wire.Failure{Class: 1, Text: "x"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var x, y wire.Build
		if x.Decode(b) == nil {
			if err := y.Decode(x.Encode()); err != nil || cmp.Diff(x, y) != "" {
				t.Errorf("%+v becomes %+v, %v", x, y, err)
			}
		}
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
