package rootfs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// newVolume makes a volume, and a tree to stack it on.
func newVolume(t *testing.T) (v *rootfs.Volume, dir, lower string) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top, Settles: true})
	dir, lower = filepath.Join(top, "scratch, 1"), filepath.Join(top, "base layer", "Files")
	check(t, os.MkdirAll(lower, 0o750))
	check(t, os.WriteFile(filepath.Join(lower, "below"), []byte("1"), 0o600))
	v, err := rootfs.CreateVolume(t.Context(), dir)
	check(t, err)
	return v, dir, lower
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVolume(t *testing.T) {
	for _, size := range []uint64{0, 330 << 20} {
		v, dir, lower := newVolume(t)
		if size > 0 {
			testenv.NeedCommand(t, "mkfs.xfs")
			testenv.NeedKernel(t, testenv.LoopDevices)
			check(t, v.Grow(t.Context(), size))
		}
		check(t, v.Activate(t.Context()))
		check(t, v.Activate(t.Context()))
		check(t, v.Prepare(t.Context(), []string{lower}))
		check(t, v.Prepare(t.Context(), []string{lower}))
		if s, err := v.State(); err != nil || s != (rootfs.VolumeState{Active: true, Prepared: true, Size: size}) {
			t.Errorf("the state is %+v, %v", s, err)
		}
		if info, err := os.Stat(v.Root()); err != nil || info.Mode().Perm() != 0o750 {
			t.Errorf("the root is %v, %v", info, err)
		}
		check(t, os.WriteFile(filepath.Join(v.Root(), "above"), []byte("2"), 0o600))
		check(t, os.Remove(filepath.Join(v.Root(), "below")))
		for _, used := range []string{dir, filepath.Dir(lower)} {
			if err := rootfs.CheckUnused(used); !errdefs.IsUnavailable(err) {
				t.Errorf("%s is unused: %v", used, err)
			}
			if err := rootfs.RemoveUnused(t.Context(), used); !errdefs.IsUnavailable(err) {
				t.Errorf("%s can be removed: %v", used, err)
			}
		}
		if err := v.Deactivate(t.Context()); !errors.Is(err, rootfs.ErrPrepared) {
			t.Errorf("a prepared volume is deactivated: %v", err)
		}
		check(t, v.Unprepare(t.Context()))
		if _, err := os.Stat(filepath.Join(v.Upper(), "above")); err != nil {
			t.Error(err)
		}
		check(t, v.Deactivate(t.Context()))
		check(t, v.Deactivate(t.Context()))
		for _, used := range []string{dir, filepath.Dir(lower)} {
			check(t, rootfs.CheckUnused(used))
		}

		// Again, and what was written is still there.
		check(t, v.Activate(t.Context()))
		check(t, v.Prepare(t.Context(), []string{lower}))
		if names, err := os.ReadDir(v.Root()); err != nil || len(names) != 1 || names[0].Name() != "above" {
			t.Errorf("the tree is %v, %v", names, err)
		}
		check(t, v.Unprepare(t.Context()))
		check(t, v.Deactivate(t.Context()))
		for _, used := range []string{dir, filepath.Dir(lower)} {
			check(t, rootfs.RemoveUnused(t.Context(), used))
			if _, err := os.Stat(used); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is there: %v", used, err)
			}
		}
		if err := v.Activate(t.Context()); !errdefs.IsNotFound(err) {
			t.Errorf("a removed volume is activated: %v", err)
		}
	}
}

func TestVolumeOutOfOrder(t *testing.T) {
	v, dir, lower := newVolume(t)
	for _, c := range []struct {
		name string
		got  error
		want error
	}{
		{"unprepare at first", v.Unprepare(t.Context()), rootfs.ErrNotActive},
		{"prepare at first", v.Prepare(t.Context(), []string{lower}), rootfs.ErrNotActive},
		{"deactivate at first", v.Deactivate(t.Context()), nil},
		{"activate", v.Activate(t.Context()), nil},
		{"unprepare without prepare", v.Unprepare(t.Context()), rootfs.ErrNotPrepared},
		{"prepare on nothing", v.Prepare(t.Context(), nil), errdefs.ErrInvalidArgument},
		{"prepare on what is not there", v.Prepare(t.Context(), []string{lower + "x"}), os.ErrNotExist},
		{"limit while active", v.Grow(t.Context(), 1<<30), errdefs.ErrFailedPrecondition},
		{"deactivate", v.Deactivate(t.Context()), nil},
		{"limit of too much", v.Grow(t.Context(), 1<<63), errdefs.ErrOutOfRange},
		{"limit", v.Grow(t.Context(), 1), nil},
		{"less", v.Grow(t.Context(), 0), nil},
		{"more", v.Grow(t.Context(), 400<<20), nil},
	} {
		if !errors.Is(c.got, c.want) || c.want == nil && c.got != nil {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	if _, err := rootfs.CreateVolume(t.Context(), dir); !errdefs.IsAlreadyExists(err) {
		t.Errorf("made again: %v", err)
	}
	if _, err := rootfs.OpenVolume(filepath.Dir(dir)); !errdefs.IsNotFound(err) {
		t.Errorf("opened what is none: %v", err)
	}
	check(t, os.WriteFile(filepath.Join(dir, "volume.json"), []byte("{"), 0o600))
	if _, err := rootfs.OpenVolume(dir); !errdefs.IsDataLoss(err) {
		t.Errorf("opened what is damaged: %v", err)
	}
}

// TestVolumeLimit fills a volume, grows it and goes on, while it is in use.
func TestVolumeLimit(t *testing.T) {
	testenv.NeedCommand(t, "mkfs.xfs")
	v, _, lower := newVolume(t)
	testenv.NeedKernel(t, testenv.LoopDevices)
	check(t, v.Grow(t.Context(), 1))
	check(t, v.Activate(t.Context()))
	check(t, v.Prepare(t.Context(), []string{lower}))
	f, err := os.Create(filepath.Join(v.Root(), "big"))
	check(t, err)
	piece := make([]byte, 4<<20)
	piece[0] = 1
	for err == nil {
		_, err = f.Write(piece)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the volume is full: %v", err)
	}
	full, err := f.Seek(0, 1)
	check(t, err)
	if full > 330<<20 {
		t.Errorf("it took %d bytes", full)
	}
	if err := v.Unprepare(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("a tree in use is unmounted: %v", err)
	}
	check(t, v.Grow(t.Context(), 400<<20))
	if _, err := f.Write(piece); err != nil {
		t.Errorf("after it grew: %v", err)
	}
	check(t, f.Close())
	check(t, v.Unprepare(t.Context()))
	check(t, v.Deactivate(t.Context()))
}

// TestVolumeInUse has many processes' worth of handles at it at once: there is one mount of each kind in the end.
func TestVolumeInUse(t *testing.T) {
	v, dir, lower := newVolume(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			mine, err := rootfs.OpenVolume(dir)
			err = errors.Join(err, mine.Activate(t.Context()), mine.Prepare(t.Context(), []string{lower}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	check(t, v.Unprepare(t.Context()))
	if err := v.Unprepare(t.Context()); !errors.Is(err, rootfs.ErrNotPrepared) {
		t.Errorf("there was another mount: %v", err)
	}
	check(t, v.Deactivate(t.Context()))
	if err := v.Unprepare(t.Context()); !errors.Is(err, rootfs.ErrNotActive) {
		t.Errorf("there was another mount: %v", err)
	}
}

// TestVolumeKilled kills a process between the steps of the sequence at every moment that it gets to; the next one goes on.
func TestVolumeKilled(t *testing.T) {
	if dir := os.Getenv("HCS_TEST_VOLUME"); dir != "" {
		v, err := rootfs.OpenVolume(dir)
		check(t, err)
		for {
			check(t, v.Activate(t.Context()))
			check(t, v.Prepare(t.Context(), []string{os.Getenv("HCS_TEST_LOWER")}))
			check(t, v.Unprepare(t.Context()))
			check(t, v.Deactivate(t.Context()))
			if _, err := os.Stdout.WriteString("."); err != nil {
				return
			}
		}
	}
	v, dir, lower := newVolume(t)
	for range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVolumeKilled$")
		cmd.Env = append(os.Environ(), "HCS_TEST_VOLUME="+dir, "HCS_TEST_LOWER="+lower)
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		_, err = out.Read(make([]byte, 1))
		check(t, errors.Join(err, cmd.Process.Kill()))
		_ = cmd.Wait() // it was killed
		check(t, v.Activate(t.Context()))
		check(t, v.Prepare(t.Context(), []string{lower}))
		if _, err := os.Stat(filepath.Join(v.Root(), "below")); err != nil {
			t.Fatal(err)
		}
		check(t, v.Unprepare(t.Context()))
		check(t, v.Deactivate(t.Context()))
	}
}
