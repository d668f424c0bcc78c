package bundle_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// unpackers unpack to a directory that may be there already.
var unpackers = map[string]func(*testing.T, *image.Layout, *image.Image, string) error{
	"bundle": func(t *testing.T, l *image.Layout, img *image.Image, dir string) error {
		return bundle.Unpack(t.Context(), l, img, dir, bundle.UnpackOptions{Mappings: mappings()})
	},
	"rootfs": func(t *testing.T, l *image.Layout, img *image.Image, dir string) error {
		return bundle.Rootfs(t.Context(), l, img, dir, bundle.UnpackOptions{Mappings: mappings()})
	},
}

// A directory that is there is filled, and not another one put in its place:
// somebody may work in it, or it is the end of a link.
func TestUnpackIntoDirectory(t *testing.T) {
	t.Parallel()
	layers := append([][]object{{func() object { d := dir("locked"); d.Mode = 0o555; return d }()}}, testLayers...)
	l, img := newImage(t, layers)
	for what, unpack := range unpackers {
		real, link := filepath.Join(t.TempDir(), "real"), filepath.Join(t.TempDir(), "link")
		must(t, os.Mkdir(real, 0o755))
		must(t, os.Symlink(real, link))
		before, err := os.Stat(real)
		must(t, err)
		must(t, unpack(t, l, img, link))
		after, err := os.Stat(link)
		must(t, err)
		if !os.SameFile(before, after) {
			t.Errorf("%s: the directory is another one", what)
		}
		fresh := filepath.Join(t.TempDir(), "fresh")
		must(t, unpack(t, l, img, fresh))
		root := map[string]string{"bundle": "rootfs", "rootfs": ""}[what]
		sameTree(t, what, filepath.Join(real, root), filepath.Join(fresh, root))
	}
}

func TestUnpackIntoMount(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	l, img := newImage(t, testLayers)
	for what, unpack := range unpackers {
		dir := t.TempDir()
		must(t, syscall.Mount("none", dir, "tmpfs", 0, ""))
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		if err := unpack(t, l, img, dir); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What is in the way stays.
func TestUnpackOverFile(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	for what, unpack := range unpackers {
		dir := t.TempDir()
		file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
		must(t, os.WriteFile(file, []byte("kept"), 0o600))
		must(t, os.Symlink("nowhere", link))
		for _, path := range []string{file, link} {
			if err := unpack(t, l, img, path); err == nil {
				t.Errorf("%s: unpacked over %s", what, filepath.Base(path))
			}
		}
		if err := unpackers["rootfs"](t, l, img, file); !errors.Is(err, errdefs.ErrAlreadyExists) {
			t.Errorf("over a file: %v", err)
		}
		if got, err := os.ReadFile(file); string(got) != "kept" {
			t.Errorf("%s: the file has %q: %v", what, got, err)
		}
		if _, err := os.Readlink(link); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Two that unpack to one place: one does, and the other finds the bundle. A
// failed one does not take away what the next one makes.
func TestUnpackTogether(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	for range 20 {
		parent := t.TempDir()
		b := filepath.Join(parent, "b")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var errs [6]error
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				ctx := t.Context()
				if i%3 == 0 {
					ctx = gone
				}
				errs[i] = bundle.Unpack(ctx, l, img, b, bundle.UnpackOptions{Mappings: mappings()})
			})
		}
		all.Wait()
		done := 0
		for _, err := range errs {
			switch {
			case err == nil:
				done++
			case !errors.Is(err, errdefs.ErrAlreadyExists) && !errors.Is(err, context.Canceled):
				t.Error(err)
			}
		}
		if done != 1 {
			t.Errorf("%d were unpacked", done)
		}
		if left, _ := filepath.Glob(filepath.Join(parent, ".*")); len(left) > 0 {
			t.Errorf("there are left: %v", left)
		}
		made, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "made"})
		must(t, err)
		if len(made.Manifest.Layers) != len(testLayers) {
			t.Error("the bundle is not what the image is")
		}
	}
}

// A layer that a full disk has no room for fails for that, and leaves nothing.
func TestRepackToFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	dir := t.TempDir()
	must(t, syscall.Mount("none", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	from, img := newImage(t, testLayers)
	must(t, os.CopyFS(filepath.Join(dir, "l"), os.DirFS(from.Dir())))
	l, err := image.OpenLayout(filepath.Join(dir, "l"))
	must(t, err)
	b := unpack(t, l, img)
	noise := make([]byte, 4<<20)
	_, _ = rand.Read(noise) // it never fails
	must(t, os.WriteFile(filepath.Join(b, "rootfs/noise"), noise, 0o600))
	before := tree(t, l.Dir())
	_, err = bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "made"})
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("to a full disk: %v", err)
	}
	if after := tree(t, l.Dir()); len(after) != len(before) {
		t.Errorf("there are %d files, want %d", len(after), len(before))
	}
}
