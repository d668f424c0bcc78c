package container_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/internal/wire"
)

// control reads a file of the system's control group.
func (f *fixture) control(s *container.System, controller, name string) string {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", controller, f.config.CgroupParent, "*", s.ID(), name))
	f.must(err)
	if len(files) != 1 {
		f.t.Fatalf("%s of %s: %q", name, controller, files)
	}
	text, err := os.ReadFile(files[0])
	f.must(err)
	return strings.TrimSpace(string(text))
}

// wantControls compares files "controller/name" with what they are to hold.
func (f *fixture) wantControls(s *container.System, want map[string]string) {
	f.t.Helper()
	for file, value := range want {
		controller, name := filepath.Split(file)
		if got := f.control(s, controller, name); got != value {
			f.t.Errorf("%s: %q, want %q", file, got, value)
		}
	}
}

func TestModifyLimits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		f.needV1()
		s := f.created(container.Spec{Resources: container.Resources{Memory: 64 << 20, Pids: 50}})
		f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{CPUs: new(0.25)}}))
		f.must(s.Start(ctx))
		f.wantControls(s, map[string]string{
			"memory/memory.limit_in_bytes": "67108864", "cpu/cpu.cfs_quota_us": "25000", "pids/pids.max": "66",
		})
		f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{
			Memory: new(int64(96 << 20)), MemorySwap: new(int64(128 << 20)), CPUs: new(1.5), CPUWeight: new(int64(50)), CPUSet: new("0"),
			Pids: new(int64(70)), IOPS: new(int64(500)), Bandwidth: new(int64(10 << 20)),
		}}))
		disk := f.control(s, "blkio", "blkio.throttle.read_bps_device")
		disk, _, _ = strings.Cut(disk, " ")
		want := map[string]string{
			"memory/memory.limit_in_bytes": "100663296", "memory/memory.memsw.limit_in_bytes": "134217728",
			"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.shares": "512", "cpuset/cpuset.cpus": "0", "pids/pids.max": "86",
			"blkio/blkio.throttle.read_bps_device": disk + " 10485760", "blkio/blkio.throttle.write_bps_device": disk + " 10485760",
			"blkio/blkio.throttle.read_iops_device": disk + " 500", "blkio/blkio.throttle.write_iops_device": disk + " 500",
		}
		f.wantControls(s, want)
		f.must(s.Terminate(ctx))
		again, err := f.Open(ctx, s.ID())
		f.must(err)
		f.must(again.Start(ctx))
		f.wantControls(again, want)
		f.must(again.Modify(ctx, container.Change{Resources: container.ResourcesChange{
			Memory: new(int64(0)), MemorySwap: new(int64(0)), CPUs: new(0.0), CPUWeight: new(int64(0)), CPUSet: new(""),
			Pids: new(int64(0)), IOPS: new(int64(0)), Bandwidth: new(int64(0)),
		}}))
		f.wantControls(again, map[string]string{
			"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.shares": "1024", "pids/pids.max": "max",
			"blkio/blkio.throttle.read_bps_device": "", "blkio/blkio.throttle.write_iops_device": "",
		})
		if st, err := again.Stats(ctx); err != nil || st.MemoryLimit != 0 {
			t.Errorf("memory limit %d, %v", st.MemoryLimit, err)
		}
		if r := again.Record().Spec.Resources; r != (container.Resources{}) {
			t.Errorf("recorded: %+v", r)
		}
		f.must(again.Close())
	})
}

func (f *fixture) needV1() {
	f.t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err != nil {
		f.t.Skip("the files that this test reads are of control groups of version 1")
	}
}

func TestModifyRefused(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	dir := t.TempDir()
	s := f.running(container.Spec{
		Name: "web", Mounts: []container.Mount{{Source: dir, Target: "/there"}}, Resources: container.Resources{Memory: 64 << 20},
	})
	before := s.Record()
	for _, tt := range []struct {
		name   string
		change container.Change
		is     func(error) bool
		want   string
	}{
		{"limit", container.Change{Resources: container.ResourcesChange{Memory: new(int64(1))}}, errdefs.IsInvalidArgument, "memory limit of 1 bytes"},
		{"swap", container.Change{Resources: container.ResourcesChange{MemorySwap: new(int64(32 << 20))}}, errdefs.IsInvalidArgument, "memory and swap"},
		{"cpus", container.Change{Resources: container.ResourcesChange{CPUSet: new("all")}}, errdefs.IsInvalidArgument, `"all"`},
		{"target taken", container.Change{AddMounts: []container.Mount{{Source: dir, Target: "/there/"}}}, errdefs.IsAlreadyExists, "/there"},
		{"no source", container.Change{AddMounts: []container.Mount{{Source: dir + "/none", Target: "/here"}}}, errdefs.IsNotFound, dir + "/none"},
		{"own target", container.Change{AddMounts: []container.Mount{{Source: dir, Target: "/proc"}}}, errdefs.IsInvalidArgument, "/proc"},
		{"no mount", container.Change{RemoveMounts: []string{"/nowhere"}}, errdefs.IsNotFound, "/nowhere"},
		{"no device", container.Change{RemoveDevices: []string{"/dev/null"}}, errdefs.IsNotFound, "/dev/null"},
		{"no disk", container.Change{RemoveDisks: []string{"/disk"}}, errdefs.IsNotFound, "/disk"},
		{
			"half of it", container.Change{
				Resources: container.ResourcesChange{Memory: new(int64(128 << 20))}, RemoveMounts: []string{"/there"},
				AddMounts: []container.Mount{{Source: dir, Target: "/first"}, {Source: dir, Target: "/etc/passwd/second"}},
			}, func(err error) bool {
				return errdefs.IsInternal(err) && strings.Contains(err.Error(), "not a directory")
			}, "/etc/passwd/second",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := s.Modify(ctx, tt.change)
			if !tt.is(err) || !strings.Contains(fmt.Sprint(err), tt.want) || !strings.HasPrefix(fmt.Sprint(err), "modify container web: ") {
				t.Errorf("got %v", err)
			}
			other, err := f.Open(ctx, "web")
			f.must(err)
			if got := other.Record(); fmt.Sprint(got) != fmt.Sprint(before) || fmt.Sprint(s.Record()) != fmt.Sprint(before) {
				t.Errorf("the record is now %+v", got)
			}
			if st, err := s.Stats(ctx); err != nil || st.MemoryLimit != 64<<20 {
				t.Errorf("memory limit %d, %v", st.MemoryLimit, err)
			}
			if got := f.ok(s, "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(first|second|there|here)' || true"); got != "/there" {
				t.Errorf("mounted: %q", got)
			}
		})
	}
	if err := s.Modify(ctx, container.Change{RemoveMounts: []string{"/there"}}); err != nil {
		t.Errorf("what was put back: %v", err)
	}
}

// TestModifyMemoryInUse lowers the limit below what cannot be dropped.
func TestModifyMemoryInUse(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{
		Resources: container.Resources{Memory: 128 << 20}, Mounts: []container.Mount{{Type: "tmpfs", Target: "/fill", Size: 80 << 20}},
	})
	f.ok(s, "head -c 50000000 /dev/zero >/fill/it")
	limit := container.Change{Resources: container.ResourcesChange{Memory: new(int64(32 << 20)), MemorySwap: new(int64(32 << 20))}}
	if err := s.Modify(ctx, limit); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
	f.ok(s, "true")
	f.ok(s, "rm /fill/it")
	f.must(s.Modify(ctx, limit))
	f.must(s.Pause(ctx))
	f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{Memory: new(int64(24 << 20))}}))
	f.must(s.Resume(ctx))
}

func TestModifyMounts(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		dir := t.TempDir()
		f.must(os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644))
		s := f.running(container.Spec{Mounts: []container.Mount{{Source: dir, Target: "/first"}}})
		f.ok(s, "cat /first/file")
		f.must(s.Modify(ctx, container.Change{
			RemoveMounts: []string{"/first"},
			AddMounts: []container.Mount{
				{Source: dir, Target: "/made/rw"},
				{Source: dir, Target: "/ro", ReadOnly: true, NoExec: true},
				{Source: filepath.Join(dir, "file"), Target: "/etc/one/file"},
				{Type: "tmpfs", Target: "/mem", Size: 1 << 20, Mode: 0o700},
			},
		}))
		f.ok(s, "[ $(stat -c %a /mem) = 700 ]") // where runc later keeps the mode of the directory that is there then
		check := func(s *container.System) {
			t.Helper()
			f.ok(s, "! [ -e /first/file ]")
			f.ok(s, "echo new >/made/rw/new && grep -q content /etc/one/file")
			f.ok(s, "cat /ro/file && ! echo x >/ro/x 2>/dev/null")
			f.ok(s, "! head -c 2000000 /dev/zero >/mem/x 2>/dev/null; rm /mem/x")
			f.ok(s, "grep ' /ro ' /proc/self/mountinfo | grep -q noexec")
			f.must(os.Remove(filepath.Join(dir, "new")))
		}
		check(s)
		f.must(s.Terminate(ctx))
		f.must(s.Start(ctx))
		check(s)
		// Who has a file open keeps it.
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{
			Args: []string{"sh", "-c", "exec 3</ro/file; echo; read x; cat <&3 >/tmp/kept; exit 4"}, Env: env, Stdin: blocked{}, Stdout: lineWriter(func() {
				err := s.Modify(ctx, container.Change{RemoveMounts: []string{"/ro", "/made/rw", "/mem", "/etc/one/file"}})
				f.check(err)
			}),
		})
		f.must(err)
		f.eventually("it is unmounted", func() bool { return f.run(s, "[ -e /ro/file ]").Code != 0 })
		f.must(p.CloseStdin(ctx))
		if st, err := p.Wait(ctx); err != nil || st.Code != 4 {
			t.Errorf("the reader: %+v, %v", st, err)
		}
		if got := f.ok(s, "cat /tmp/kept"); got != "content" {
			t.Errorf("kept %q", got)
		}
		if got := f.ok(s, "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(ro|made|mem|etc/one)' || true"); got != "" {
			t.Errorf("still mounted: %s", got)
		}
		if got := s.Record().Spec.Mounts; len(got) != 0 {
			t.Errorf("recorded: %+v", got)
		}
		var modified int
		for _, text := range tale(f.past(container.Oldest), s) {
			if text == "modified" {
				modified++
			}
		}
		if modified != 2 {
			t.Errorf("%d events say that it was modified", modified)
		}
	})
}

// lineWriter calls the function at the first write.
func lineWriter(f func()) *onceWriter { return &onceWriter{f: sync.OnceFunc(f)} }

type onceWriter struct{ f func() }

func (w *onceWriter) Write(p []byte) (int, error) {
	w.f()
	return len(p), nil
}

// TestModifyHostileTree has the container make links and move directories to
// have things mounted, or unmounted, where they should not.
func TestModifyHostileTree(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		dir, outside := t.TempDir(), t.TempDir()
		s := f.running(container.Spec{Mounts: []container.Mount{{Source: dir, Target: "/started/with"}}})
		up := strings.Repeat("../", 40)
		f.ok(s, "ln -s "+outside+" /absolute; ln -s "+up+outside+" /relative; ln -s /proc/1/root"+outside+" /magic; ln -s /loop /loop")
		for _, target := range []string{"/absolute/x", "/relative/y", "/absolute"} {
			f.must(s.Modify(ctx, container.Change{AddMounts: []container.Mount{{Source: dir, Target: target}}}))
		}
		for _, target := range []string{"/magic/z", "/loop/z"} {
			if err := s.Modify(ctx, container.Change{AddMounts: []container.Mount{{Source: dir, Target: target}}}); err == nil {
				t.Errorf("mounted on %s", target)
			}
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Errorf("made on the host: %v, %v", entries, err)
		}
		// What hides the host's things is not unmounted in the place of what was
		// mounted.
		f.ok(s, "mv /started /elsewhere; mkdir /started; ln -s /proc/acpi /started/with; [ -d /proc/acpi ] || ln -sf /proc/kcore /started/with")
		before := f.ok(s, "cat /proc/self/mountinfo")
		err := s.Modify(ctx, container.Change{RemoveMounts: []string{"/started/with"}})
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "moved") {
			t.Errorf("got %v", err)
		}
		if after := f.ok(s, "cat /proc/self/mountinfo"); after != before {
			t.Errorf("mounts changed from\n%s\nto\n%s", before, after)
		}
		f.ok(s, "rm -r /started; mv /elsewhere /started")
		f.must(s.Modify(ctx, container.Change{RemoveMounts: []string{"/started/with"}}))
	})
}

// TestModifySwappedTree adds and removes while a directory of the container is
// exchanged for a link to /proc, all the time.
func TestModifySwappedTree(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	dir := t.TempDir()
	s := f.running(container.Spec{})
	f.ok(s, "mkdir /a; ln -s /proc /b")
	st, err := s.Status(ctx)
	f.must(err)
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", st.Pid))
	f.must(err)
	defer root.Close()
	mounts := f.ok(s, "grep -c . /proc/self/mountinfo")
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for n := 0; ; n++ {
			// It stops as it began.
			select {
			case <-stop:
				if n%2 == 0 {
					stopped <- nil
					return
				}
			default:
			}
			if err := unix.Renameat2(int(root.Fd()), "a", int(root.Fd()), "b", unix.RENAME_EXCHANGE); err != nil {
				stopped <- err
				return
			}
		}
	}()
	added := 0
	for range 100 {
		if s.Modify(ctx, container.Change{AddMounts: []container.Mount{{Source: dir, Target: "/a/x"}}}) != nil {
			continue
		}
		added++
		f.eventually("it is found and removed", func() bool {
			return s.Modify(ctx, container.Change{RemoveMounts: []string{"/a/x"}}) == nil
		})
	}
	close(stop)
	f.must(<-stopped)
	if added == 0 {
		t.Error("nothing was ever mounted")
	}
	if got := f.ok(s, "grep -c . /proc/self/mountinfo"); got != mounts {
		t.Errorf("%s mounts became %s", mounts, got)
	}
}

func TestModifyDevices(t *testing.T) {
	const device = "/dev/loop-control" // which no container has
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{})
		f.must(s.Modify(ctx, container.Change{AddDevices: []container.Device{{Source: device, Target: "/dev/lc", Access: "r"}, {Source: "/dev/null", Target: "/dev/void"}}}))
		check := func() {
			t.Helper()
			f.ok(s, ": </dev/lc && ! (: >/dev/lc) 2>/dev/null && echo x >/dev/void")
		}
		check()
		f.must(s.Terminate(ctx))
		f.must(s.Start(ctx))
		check()
		if err := s.Modify(ctx, container.Change{AddDevices: []container.Device{{Source: device, Target: "/dev/zero"}}}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("in the place of another: %v", err)
		}
		f.must(s.Modify(ctx, container.Change{RemoveDevices: []string{"/dev/lc", "/dev/void"}}))
		f.ok(s, "! [ -e /dev/lc ] && ! [ -e /dev/void ] && echo x >/dev/null && head -c 1 /dev/zero")
		f.ok(s, "mknod /tmp/lc c 10 237 && ! (: </tmp/lc) 2>/dev/null")
	})
}

// TestModifyAtOnce has many programs change one system: no change is lost.
func TestModifyAtOnce(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	dir := t.TempDir()
	s := f.running(container.Spec{})
	var wg sync.WaitGroup
	const count = 12
	for i := range count {
		wg.Go(func() {
			other, err := f.Open(ctx, s.ID())
			if err != nil {
				t.Error(err)
				return
			}
			f.check(other.Modify(ctx, container.Change{AddMounts: []container.Mount{{Source: dir, Target: fmt.Sprintf("/at/%d", i)}}}))
			f.check(other.Close())
		})
	}
	wg.Wait()
	if got := f.ok(s, "grep -c ' /at/' /proc/self/mountinfo"); got != fmt.Sprint(count) {
		t.Errorf("%s are mounted", got)
	}
	again, err := f.Open(ctx, s.ID())
	f.must(err)
	if got := len(again.Record().Spec.Mounts); got != count {
		t.Errorf("%d are recorded", got)
	}
}

// modifierRole is set for this test's own program where it is to modify a
// system until it is killed.
const modifierRole = "HCS_TEST_MODIFIER"

type modifierOrder struct {
	host
	Dir, ID string
}

func (o *modifierOrder) run() error {
	service, err := o.open()
	if err != nil {
		return err
	}
	s, err := service.Open(context.Background(), o.ID)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		if err := s.Modify(context.Background(), toggle(s.Record(), o.Dir)); err != nil {
			return err
		}
	}
}

// toggle adds the mount and a limit, or takes them away.
func toggle(r container.Record, dir string) container.Change {
	if len(r.Spec.Mounts) > 0 {
		return container.Change{RemoveMounts: []string{"/toggled"}, Resources: container.ResourcesChange{Pids: new(int64(0))}}
	}
	return container.Change{
		AddMounts: []container.Mount{{Source: dir, Target: "/toggled"}}, Resources: container.ResourcesChange{Pids: new(int64(100))},
	}
}

// TestModifyKilled kills who modifies, or the shim, at any point: the record
// is what the system is.
func TestModifyKilled(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	dir := t.TempDir()
	f.must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	s := f.running(container.Spec{})
	rounds := 16
	if testing.Short() {
		rounds = 6
	}
	for round := range rounds {
		cmd := f.child(modifierRole, modifierOrder{f.host(), dir, s.ID()}, "ready")
		time.Sleep(time.Duration(rand.IntN(15_000)) * time.Microsecond)
		if round%4 == 3 {
			st, err := s.Status(ctx)
			f.must(err)
			f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
			f.gone(st.ShimPid)
		}
		f.must(cmd.Process.Kill())
		_ = cmd.Wait()
		// A change that was begun comes to its end; the next one waits for it.
		f.must(f.modifyWhenFree(s.ID(), container.Change{Resources: container.ResourcesChange{CPUs: new(1.0)}}))
		now, err := f.Open(ctx, s.ID())
		f.must(err)
		f.must(now.Start(ctx)) // if it died
		spec := now.Record().Spec
		wantMount, wantPids := fmt.Sprint(len(spec.Mounts)), "max"
		if spec.Resources.Pids > 0 {
			wantPids = fmt.Sprint(spec.Resources.Pids)
		}
		if got := f.ok(now, "grep -c ' /toggled ' /proc/self/mountinfo || true"); got != wantMount {
			t.Fatalf("round %d: mounted %s times, recorded %s", round, got, wantMount)
		}
		if st, err := now.Stats(ctx); err != nil || (st.PidsLimit == 0) != (wantPids == "max") || (wantMount == "1") != (wantPids != "max") {
			t.Fatalf("round %d: limit %d, recorded %s, %v", round, st.PidsLimit, wantPids, err)
		}
		f.must(now.Close())
	}
	entries, err := filepath.Glob(filepath.Join(f.config.Root, "containers", s.ID(), ".record-*"))
	f.must(err)
	if len(entries) > rounds {
		t.Errorf("left: %q", entries)
	}
	f.must(s.Terminate(ctx))
	f.must(s.Delete(ctx))
}

// TestModifyLate has the shim hear of a change when its client has died and
// others have changed the system twice, to and fro: it is not made any more.
func TestModifyLate(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{})
	record := filepath.Join(f.config.Root, "containers", s.ID(), "record.json")
	is, err := os.ReadFile(record)
	f.must(err)
	late := filepath.Join(filepath.Dir(record), "late")
	f.must(os.WriteFile(late, bytes.Replace(is, []byte(`"spec": {`), []byte(`"spec": {"hostname": "late",`), 1), 0o600))
	for _, cpus := range []float64{1, 0} {
		f.must(s.Modify(ctx, container.Change{Resources: container.ResourcesChange{CPUs: new(cpus)}}))
	}
	body, err := json.Marshal(wire.Change{Record: wire.Replacement{Path: record, Is: is, New: late}})
	f.must(err)
	c, err := wire.Dial(filepath.Join(f.runDir(s), wire.SocketName))
	f.must(err)
	defer c.Close()
	f.must(c.Send(wire.Message{Type: wire.Modify, Body: body}))
	_, err = c.Reply()
	if failure, ok := errors.AsType[*wire.Failure](err); !ok || failure.Class != wire.Conflict {
		t.Errorf("got %v", err)
	}
	now, err := f.Open(ctx, s.ID())
	f.must(err)
	if now.Record().Spec.Hostname == "late" {
		t.Error("the late change is in force")
	}
}

func (f *fixture) modifyWhenFree(id string, ch container.Change) error {
	s, err := f.Open(f.t.Context(), id)
	if err != nil {
		return err
	}
	return errors.Join(s.Modify(f.t.Context(), ch), s.Close())
}

// TestModifyMapped modifies a system with ids of its own: what is added is
// its root's as it is the host's.
func TestModifyMapped(t *testing.T) {
	testenv.NeedKernel(t, testenv.MappedMounts, testenv.LoopDevices)
	f := newFixture(t)
	f.config.Runtime = "native"
	f.open()
	ctx := t.Context()
	dir := t.TempDir() // whose way is for the host's root alone
	f.must(os.Chmod(dir, 0o700))
	f.must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	s := f.running(container.Spec{IDs: container.AutoIDs})
	add := container.Change{
		AddMounts:  []container.Mount{{Source: dir, Target: "/dir"}, {Source: filepath.Join(dir, "file"), Target: "/one"}, {Type: "tmpfs", Target: "/mem", Mode: 0o700}},
		AddDevices: []container.Device{{Source: "/dev/loop-control", Target: "/dev/lc"}},
		AddDisks:   []container.Disk{{Source: f.ext4Image(8 << 20), Target: "/disk"}},
	}
	f.must(s.Modify(ctx, add))
	check := func() {
		t.Helper()
		f.ok(s, "for f in /dir/file /one /mem/file /disk/file; do echo x >$f || exit 1; [ $(stat -c %u:%g $f) = 0:0 ] || exit 2; done; [ -e /dev/lc ]")
	}
	check()
	f.must(s.Terminate(ctx))
	f.must(s.Start(ctx))
	check()
	f.must(s.Modify(ctx, container.Change{
		RemoveMounts: []string{"/dir", "/one", "/mem"}, RemoveDevices: []string{"/dev/lc"}, RemoveDisks: []string{"/disk"},
	}))
	f.ok(s, "! [ -e /dir/file ] && ! grep -E ' /(dir|one|mem|disk|dev/lc) ' /proc/self/mountinfo")
	if info, err := os.Stat(filepath.Join(dir, "file")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 || info.Size() == 0 {
		t.Errorf("on the host: %+v, %v", info, err)
	}
}
