package container_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// ownDisk mounts a file system of its own until the test's end. It returns the directory and the disk's number.
func (f *fixture) ownDisk() (dir, number string) {
	f.t.Helper()
	testenv.NeedKernel(f.t, testenv.LoopDevices)
	commands := testenv.NeedCommand(f.t, "mkfs.ext4", "mount", "umount")
	image, dir := filepath.Join(f.t.TempDir(), "image"), f.t.TempDir()
	f.must(os.WriteFile(image, nil, 0o600))
	f.must(os.Truncate(image, 32<<20))
	for _, args := range [][]string{{commands[0], "-q", "-F", image}, {commands[1], "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			f.t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	f.t.Cleanup(func() {
		if out, err := exec.Command(commands[2], dir).CombinedOutput(); err != nil {
			f.t.Errorf("unmount: %v: %s", err, out)
		}
	})
	return dir, diskNumber(f, dir)
}

func diskNumber(f *fixture, dir string) string {
	var st unix.Stat_t
	f.must(unix.Stat(dir, &st))
	text, err := os.ReadFile("/sys/dev/block/" + strings.Join([]string{strconv.Itoa(int(unix.Major(st.Dev))), strconv.Itoa(int(unix.Minor(st.Dev)))}, ":") + "/dev")
	f.must(err)
	return strings.TrimSpace(string(text))
}

// TestMountLimits writes to a directory faster than it may.
func TestMountLimits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		f.needV1()
		ctx := t.Context()
		dir, disk := f.ownDisk()
		other, otherDisk := f.ownDisk()
		s := f.running(container.Spec{Mounts: []container.Mount{{Source: dir, Target: "/d", Bandwidth: 1 << 20, IOPS: 1000}}})
		want := func(name, value string) {
			t.Helper()
			f.wantControls(s, map[string]string{"blkio/blkio.throttle." + name + "_device": value})
		}
		want("read_bps", disk+" 1048576")
		want("write_iops", disk+" 1000")
		begin := time.Now()
		f.ok(s, "dd if=/dev/zero of=/d/file bs=65536 count=48 oflag=direct")
		if took := time.Since(begin); took < 2*time.Second { // of 3 MiB at 1 MiB a second; it may begin with some
			t.Errorf("it took %v", took)
		}
		f.must(s.Modify(ctx, container.Change{AddMounts: []container.Mount{{Source: other, Target: "/o", IOPS: 500}}}))
		if got := f.control(s, "blkio", "blkio.throttle.read_iops_device"); !strings.Contains(got, disk+" 1000") || !strings.Contains(got, otherDisk+" 500") {
			t.Errorf("the limits are %q", got)
		}
		f.must(s.Modify(ctx, container.Change{RemoveMounts: []string{"/d"}}))
		want("read_iops", otherDisk+" 500")
		want("write_bps", "")
		f.must(s.Terminate(ctx))
	})
}

// TestMountLimitsRefused asks for limits that the kernel does not have: the error names the mount.
func TestMountLimitsRefused(t *testing.T) {
	f := newFixture(t)
	f.needV1()
	ctx := t.Context()
	dir, _ := f.ownDisk()
	below := filepath.Join(dir, "below")
	f.must(os.Mkdir(below, 0o755))
	limited := container.Mount{Source: dir, Target: "/limited", Bandwidth: 1 << 20}
	for what, c := range map[string]struct {
		spec container.Spec
		want string
	}{
		"the root's disk": {
			container.Spec{Mounts: []container.Mount{{Source: f.dir, Target: "/limited", IOPS: 10}}}, "its root",
		},
		"other limits than the root's": {container.Spec{
			Mounts:    []container.Mount{{Source: f.dir, Target: "/limited", IOPS: 10}},
			Resources: container.Resources{IOPS: 20},
		}, "its root"},
		"another's disk": {container.Spec{Mounts: []container.Mount{limited, {Source: below, Target: "/b"}}}, "/b"},
		"no disk":        {container.Spec{Mounts: []container.Mount{{Source: "/dev/shm", Target: "/limited", IOPS: 10}}}, "on no disk"},
	} {
		s := f.created(c.spec)
		if err := s.Start(ctx); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "/limited") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, m := range map[string]container.Mount{
		"a tmpfs": {Type: "tmpfs", Target: "/limited", IOPS: 10}, "a size": {Source: dir, Target: "/limited", Size: 1 << 20},
	} {
		_, err := f.Create(ctx, container.Spec{Layers: f.layers, Mounts: []container.Mount{m}})
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "/limited") {
			t.Errorf("%s: %v", what, err)
		}
	}
	same := f.running(container.Spec{
		Mounts:    []container.Mount{{Source: f.dir, Target: "/same", IOPS: 100}, limited},
		Resources: container.Resources{IOPS: 100},
	})
	err := same.Modify(ctx, container.Change{AddMounts: []container.Mount{{Source: below, Target: "/b"}}})
	if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "/b") {
		t.Errorf("modify: %v", err)
	}
	f.ok(same, "test ! -e /b")
	f.must(same.Terminate(ctx))
}
