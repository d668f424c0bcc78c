package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// What the programs of TestVolumeShared are told.
const (
	sharedDir    = "HCS_TEST_SHARED_DIR"
	sharedBase   = "HCS_TEST_SHARED_BASE"
	sharedSeed   = "HCS_TEST_SHARED_SEED"
	sharedRounds = 150
)

// TestVolumeShared has two programs mount, unmount, grow and read one volume with a limit, in any order, at once. Each call does
// what it says or fails as it would have had the other program's calls come between two of its own; what was written before is
// read whole, each time, and the file system is sound in the end. It is removed by both then, and nothing of it stays.
func TestVolumeShared(t *testing.T) {
	if dir := os.Getenv(sharedDir); dir != "" {
		check(t, shareVolume(t.Context(), dir, os.Getenv(sharedBase)))
		return
	}
	testenv.NeedCommand(t, "mkfs.xfs")
	testenv.NeedCommand(t, "xfs_repair")
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay, testenv.LoopDevices)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top, Settles: true})
	base, dir := importedBase(t, filepath.Join(top, "base")), filepath.Join(top, "scratch")
	_, err := rootfs.CreateScratchLayer(t.Context(), dir, []string{base}, 1)
	check(t, err)
	v, err := rootfs.OpenVolume(dir)
	check(t, err)
	check(t, v.Activate(t.Context()))
	check(t, v.Prepare(t.Context(), []string{filepath.Join(base, "Files")}))
	check(t, os.WriteFile(filepath.Join(v.Root(), "written"), nil, 0o600))
	check(t, v.Unprepare(t.Context()))
	check(t, v.Deactivate(t.Context()))

	runShared(t, dir, base)
	state, err := v.State()
	check(t, err)
	if state.Prepared {
		check(t, v.Unprepare(t.Context()))
	}
	check(t, v.Deactivate(t.Context()))
	info, err := os.Stat(filepath.Join(dir, "data.xfs"))
	if err != nil || uint64(info.Size()) != state.Size {
		t.Errorf("the image has %d bytes, its record says %d, %v", info.Size(), state.Size, err)
	}
	if out, err := exec.Command("xfs_repair", "-n", "-f", filepath.Join(dir, "data.xfs")).CombinedOutput(); err != nil {
		t.Errorf("the file system is damaged: %v\n%s", err, out)
	}
	check(t, v.Activate(t.Context())) // who removes it first has to take it down
	runShared(t, dir, "")
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was removed, and is there: %v", err)
	}
}

// importedBase makes a layer with one file.
func importedBase(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "below", Mode: 0o644}))
	check(t, w.Close())
	_, err := rootfs.ImportLayer(t.Context(), dir, nil, layer.NewReader(&b, layer.Limits{}), rootfs.NTOptions{})
	check(t, err)
	return dir
}

// runShared runs two programs at once. Without a base they remove the volume.
func runShared(t *testing.T, dir, base string) {
	t.Helper()
	var programs []*exec.Cmd
	for i := range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVolumeShared$")
		cmd.Env = append(os.Environ(), sharedDir+"="+dir, sharedBase+"="+base, sharedSeed+"="+strconv.Itoa(i+rand.IntN(1<<20)))
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		check(t, cmd.Start())
		programs = append(programs, cmd)
	}
	for _, cmd := range programs {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func shareVolume(ctx context.Context, dir, base string) error {
	if base == "" {
		return removeShared(ctx, dir)
	}
	v, err := rootfs.OpenVolume(dir)
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(os.Getenv(sharedSeed), 10, 64)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(seed, 0))
	size := uint64(320 << 20)
	calls := []struct {
		name string
		call func() error
	}{
		{"activate", func() error { return v.Activate(ctx) }},
		{"prepare", func() error { return v.Prepare(ctx, []string{filepath.Join(base, "Files")}) }},
		{"unprepare", func() error { return v.Unprepare(ctx) }},
		{"deactivate", func() error { return v.Deactivate(ctx) }},
		{"read", func() error { return readShared(ctx, dir, base) }},
		{"grow", func() error { size += 1 << 20; return v.Grow(ctx, size) }},
	}
	for range sharedRounds {
		c := calls[random.IntN(len(calls))]
		err := c.call()
		if errdefs.IsFailedPrecondition(err) || errdefs.IsUnavailable(err) && (c.name == "unprepare" || c.name == "deactivate") {
			continue // as the other program has left it, or is reading
		}
		if err != nil {
			return fmt.Errorf("seed %d: %s: %w", seed, c.name, err)
		}
	}
	return nil
}

func readShared(ctx context.Context, dir, base string) error {
	found := false
	err := rootfs.ExportLayer(ctx, dir, []string{base}, func(e *layer.Entry, _ io.Reader) error {
		found = found || e.Name == "written"
		return nil
	})
	if err == nil && !found {
		err = errors.New("what was written is not there")
	}
	return err
}

// removeShared removes a volume that another program does something with, too.
func removeShared(ctx context.Context, dir string) error {
	for {
		v, err := rootfs.OpenVolume(dir)
		if err == nil {
			err = errors.Join(v.Deactivate(ctx), rootfs.RemoveUnused(ctx, dir))
		}
		if errdefs.IsNotFound(err) || errors.Is(err, os.ErrNotExist) || err == nil {
			return nil
		}
		if !errdefs.IsUnavailable(err) {
			return err
		}
	}
}
