package sys

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/testenv"
)

// formatted makes an image in a directory.
func formatted(t *testing.T, dir, fstype string, size int64) string {
	t.Helper()
	mkfs, image := testenv.NeedCommand(t, "mkfs."+fstype)[0], filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return image
}

func TestMountImage(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.LoopDevices)
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Settles: true})
	image, target := formatted(t, dir, "xfs", 320<<20), filepath.Join(dir, "mnt")
	must(t, os.Mkdir(target, 0o700))

	wantMount(t, target, false)
	must(t, MountImage(image, "xfs", target))
	t.Cleanup(func() { _ = Unmount(target) })
	wantMount(t, target, true)
	file := filepath.Join(target, "file")
	must(t, os.WriteFile(file, bytes.Repeat([]byte("x"), 1<<20), 0o600))

	before := room(t, target)
	must(t, os.Truncate(image, 640<<20))
	must(t, GrowXFS(target))
	if after := room(t, target); after < before+300<<20 {
		t.Errorf("it has room for %d bytes, and before for %d", after, before)
	}
	must(t, GrowXFS(target)) // there is nothing to do
	if b, err := os.ReadFile(file); err != nil || len(b) != 1<<20 {
		t.Errorf("the file has %d bytes, %v", len(b), err)
	}

	open, err := os.Open(file)
	must(t, err)
	if err := UnmountIdle(target); !errdefs.IsUnavailable(err) {
		t.Errorf("unmounted while a file is open: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { open.Close() }) // as if it was a program's that is being started
	must(t, UnmountIdle(target))
	wantMount(t, target, false)
	must(t, UnmountIdle(target))
	must(t, UnmountIdle(filepath.Join(dir, "nothing")))
}

// TestImageInUse has it mounted by one that writes and then by those that read.
func TestImageInUse(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.LoopDevices)
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Settles: true})
	image := formatted(t, dir, "ext4", 8<<20)
	open := func(readOnly bool) (*os.File, error) {
		return NewImage(Image{Path: image, Type: "ext4", ReadOnly: readOnly}, 0, nil)
	}
	refused := func(what string, readOnly bool) {
		if f, err := open(readOnly); !errors.Is(err, ErrImageInUse) {
			t.Errorf("%s: %v", what, err)
			if err == nil {
				f.Close()
			}
		}
	}
	writer, err := open(false)
	must(t, err)
	var both sync.WaitGroup
	both.Go(func() { refused("a second writer", false) })
	both.Go(func() { refused("a reader of what is written", true) })
	both.Wait()
	must(t, writer.Close())
	first, err := open(true) // when the kernel has let go of the writer's
	must(t, err)
	second, err := open(true)
	must(t, err)
	refused("a writer of what is read", false)
	must(t, errors.Join(first.Close(), second.Close()))
	again, err := open(false)
	must(t, err)
	must(t, again.Close())
}

func TestMountImageFails(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.LoopDevices)
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Settles: true})
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, make([]byte, 1<<20), 0o600))
	for _, c := range []struct{ image, fstype, target string }{
		{image, "xfs", dir}, // no file system
		{image, "nosuchfs", dir},
		{filepath.Join(dir, "none"), "xfs", dir},
	} {
		if err := MountImage(c.image, c.fstype, c.target); err == nil {
			t.Errorf("%+v is mounted", c)
			must(t, Unmount(c.target))
		}
	}
}

func TestMountBind(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI)
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir})
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	must(t, os.Mkdir(from, 0o700))
	must(t, os.Mkdir(to, 0o700))
	must(t, MountBind(from, to))
	t.Cleanup(func() { _ = Unmount(to) })
	wantMount(t, to, true)
	must(t, os.WriteFile(filepath.Join(to, "file"), nil, 0o600))
	if _, err := os.Stat(filepath.Join(from, "file")); err != nil {
		t.Error(err)
	}
	must(t, UnmountIdle(to))
	wantMount(t, to, false)
}

func wantMount(t *testing.T, target string, want bool) {
	t.Helper()
	if got, err := IsMountPoint(target); err != nil || got != want {
		t.Errorf("%s is a mount point: %t, %v, want %t", target, got, err, want)
	}
}

// room returns how many bytes a file system has in all.
func room(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	must(t, syscall.Statfs(dir, &st))
	return int64(st.Blocks) * st.Bsize
}
