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
	short := len(spawn.Encode())
	spawn.Path = "/p"
	if err := gotSpawn.Decode(spawn.Encode()); err != nil || cmp.Diff(spawn, gotSpawn) != "" || gotSpawn.Program() != "/p" {
		t.Errorf("spawn of a program beside the arguments: %v, %+v", err, gotSpawn)
	}
	if err := gotSpawn.Decode(append(spawn.Encode()[:short], 0)); err == nil {
		t.Error("an empty program decodes")
	}
	for _, spawn.Path = range []string{"", "/p"} {
		spawn.Groups = []string{"video", "7"}
		if err := gotSpawn.Decode(spawn.Encode()); err != nil || cmp.Diff(spawn, gotSpawn) != "" {
			t.Errorf("spawn with groups: %v, %+v", err, gotSpawn)
		}
		spawn.Limits = []wire.Rlimit{{Name: "RLIMIT_NOFILE", Resource: 7, Soft: 5, Hard: 1<<64 - 1}}
		for _, spawn.Groups = range [][]string{nil, {"video"}} {
			if err := gotSpawn.Decode(spawn.Encode()); err != nil || cmp.Diff(spawn, gotSpawn) != "" {
				t.Errorf("spawn with limits: %v, %+v", err, gotSpawn)
			}
		}
		if err := gotSpawn.Decode(append(spawn.Encode(), 0)); err == nil {
			t.Error("spawn with more after its limits decodes")
		}
		spawn.Groups, spawn.Limits = nil, nil
	}
	if err := gotSpawn.Decode(append(spawn.Encode(), 0)); err == nil {
		t.Error("no groups decode")
	}
	spawn.Path = "" // from here on
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
	exit := wire.Exit{Status: 0x8b, UserUS: 1 << 40, SysUS: 3, Started: 1 << 60, Ended: 1<<60 + 1, OOM: true}
	var gotExit wire.Exit
	if err := gotExit.Decode(exit.Encode()); err != nil || gotExit != exit {
		t.Errorf("exit: %v, %+v", err, gotExit)
	}
	open, attach, backlog := wire.OpenRequest{Pid: 1 << 20}, wire.AttachRequest{Flags: wire.Stderr}, wire.Backlog{Stderr: []byte("x")}
	opened := wire.OpenReply{Flags: wire.HoldStderr, Ended: true}
	var gotOpen wire.OpenRequest
	var gotOpened wire.OpenReply
	var gotAttach wire.AttachRequest
	var gotBacklog wire.Backlog
	if err := gotOpen.Decode(open.Encode()); err != nil || gotOpen != open {
		t.Errorf("open: %v, %+v", err, gotOpen)
	}
	if err := gotOpened.Decode(opened.Encode()); err != nil || gotOpened != opened {
		t.Errorf("opened: %v, %+v", err, gotOpened)
	}
	if err := gotAttach.Decode(attach.Encode()); err != nil || gotAttach != attach {
		t.Errorf("attach: %v, %+v", err, gotAttach)
	}
	if err := gotBacklog.Decode(backlog.Encode()); err != nil || string(gotBacklog.Stdout)+"|"+string(gotBacklog.Stderr) != "|x" {
		t.Errorf("backlog: %v, %+v", err, gotBacklog)
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
		ReadOnly: true, Hostname: "h", Loopback: true, Cgroup: true,
		Mounts: []wire.Mount{
			{Target: "/proc", Type: "proc", Source: "proc", Attributes: 1 << 20, Options: []string{"a=b", "c"}},
			{Target: "/data", Source: "/home", Recursive: true},
			{Target: "/lent", Lent: 2},
		},
		Devices: []wire.DeviceNode{{Path: "/dev/x", Mode: 0o20666, Major: 1, Minor: 2, UID: 3, GID: 4}},
		Masked:  []string{"/proc/kcore"}, Fixed: []string{"/proc/sys", "/proc/irq"},
		Sysctls:  []wire.Sysctl{{Path: "kernel/msgmax", Value: "1"}},
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

func TestAttachable(t *testing.T) {
	for _, tt := range []struct {
		flags, want wire.SpawnFlags
		held        bool
	}{
		{wire.Stdin | wire.Stdout | wire.Stderr, 0, false},
		{wire.HoldStdin, wire.Stdin, true},
		{wire.Stdin | wire.HoldStdout | wire.HoldStderr, wire.Stdout | wire.Stderr, true},
		{wire.Main | wire.Logged, wire.Stdout | wire.Stderr, true},
		{wire.Terminal | wire.Logged | wire.HoldStdin, wire.Stdin | wire.Stdout, true},
		{wire.Terminal | wire.Stdin, 0, false},
	} {
		if got := tt.flags.Attachable(); got != tt.want || tt.flags.Held() != tt.held {
			t.Errorf("%#x: got %#x, %v", tt.flags, got, tt.flags.Held())
		}
	}
}

// FuzzBodies decodes what a lying peer may send: no panic, bounded memory,
// and what decodes encodes to something equal.
func FuzzBodies(f *testing.F) {
	spawn := wire.SpawnRequest{Args: []string{"a"}, Env: []string{"K=V"}, Dir: "/"}
	f.Add(spawn.Encode())
	spawn.Path = "/p"
	f.Add(spawn.Encode())
	spawn.Groups = []string{"g"}
	f.Add(spawn.Encode())
	spawn.Groups, spawn.Limits = nil, []wire.Rlimit{{Name: "RLIMIT_NOFILE", Resource: 7, Soft: 5, Hard: 6}}
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
		_ = new(wire.Birth).Decode(b)
		_ = new(wire.Spec).Decode(b)
		_ = new(wire.Exit).Decode(b)
		_ = new(wire.Spawned).Decode(b)
		_ = new(wire.Failure).Decode(b)
		_ = new(wire.SignalRequest).Decode(b)
		_ = new(wire.ResizeRequest).Decode(b)
		_ = new(wire.OpenRequest).Decode(b)
		_ = new(wire.OpenReply).Decode(b)
		_ = new(wire.AttachRequest).Decode(b)
		_ = new(wire.Backlog).Decode(b)
	})
}
