package bundle_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

// childEnv has the test's program unpack the layout that it names to the
// bundle in the other, and wait to be killed in the middle of it.
const childEnv, bundleEnv = "BUNDLE_TEST_LAYOUT", "BUNDLE_TEST_BUNDLE"

// squashEnv has it squash the image instead, in the directory that it names.
const squashEnv = "BUNDLE_TEST_SQUASH"

// repackEnv has it repack the bundle that it names, and then make it one of the
// new image.
const repackEnv = "BUNDLE_TEST_REPACK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(repackEnv); dir != "" {
		fmt.Fprintln(os.Stderr, repackHuge(os.Getenv(childEnv), dir))
		os.Exit(1)
	}
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, unpackSlowly(dir, os.Getenv(bundleEnv)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func unpackSlowly(dir, to string) error {
	l, err := image.OpenLayout(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	img, err := image.Resolve(ctx, l, "base", v1.Platform{})
	if err != nil {
		return err
	}
	// The others are unpacked from the top: the lowest layer is the last. Those of Windows are read twice, from the base.
	last := hanging{Source: l, layer: img.Manifest.Layers[0], before: new(int)}
	if img.Config.OS == "windows" {
		last.layer, *last.before = img.Manifest.Layers[len(img.Manifest.Layers)-1], 1
	}
	if work := os.Getenv(squashEnv); work != "" {
		if os.Geteuid() != 0 {
			*last.before = 1 // it looks for devices first
		}
		e, err := l.Edit(ctx, img)
		if err != nil {
			return err
		}
		return bundle.Squash(ctx, last, img, e, bundle.SquashOptions{Compression: layer.Gzip, Work: work})
	}
	return bundle.Unpack(ctx, last, img, to, bundle.UnpackOptions{Mappings: mappings()})
}

// hanging has a layer that ends nowhere, after it was read as often as before says.
type hanging struct {
	image.Source
	layer  v1.Descriptor
	before *int
}

func (h hanging) Blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	blob, err := h.Source.Blob(ctx, d)
	if err == nil && d.Digest == h.layer.Digest {
		if *h.before--; *h.before >= 0 {
			return blob, nil
		}
		blob = endless{blob, new(sync.Once)}
	}
	return blob, err
}

type endless struct {
	io.ReadCloser
	told *sync.Once
}

func (e endless) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	e.told.Do(func() { fmt.Println("now") })
	testenv.AwaitKill()
	return 0, err
}

// A killed unpack leaves nothing under the bundle's name, and the next one
// removes what it left beside it, also where the directory has something else
// in it.
func TestKilledUnpack(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	killedUnpack(t, l, img)
	_, l, img = threeLayers(t)
	killedUnpack(t, l, img)
}

func killedUnpack(t *testing.T, l *image.Layout, img *image.Image) {
	t.Helper()
	for _, with := range []string{"nothing", "notes"} {
		parent := t.TempDir()
		b := filepath.Join(parent, "b")
		if with == "notes" {
			must(t, os.Mkdir(b, 0o755))
			must(t, os.WriteFile(filepath.Join(b, "notes"), nil, 0o600))
		}
		before := len(tree(t, parent))
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), childEnv+"="+l.Dir(), bundleEnv+"="+b)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		if _, err := io.ReadFull(out, make([]byte, len("now\n"))); err != nil {
			t.Error(err)
		}
		must(t, child.Process.Kill())
		_ = child.Wait() // it was killed
		for _, name := range []string{"config.json", "rootfs", "umoci.json"} {
			if _, err := os.Lstat(filepath.Join(b, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("with %s there is %s: %v", with, name, err)
			}
		}
		if after := len(tree(t, parent)); after == before {
			t.Error("it was killed before there was anything")
		}
		must(t, bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()}))
		left, err := filepath.Glob(filepath.Join(parent, "*", ".hcs*"))
		must(t, err)
		beside, err := filepath.Glob(filepath.Join(parent, ".*"))
		must(t, err)
		if len(left)+len(beside) > 0 {
			t.Errorf("with %s there are left: %v %v", with, left, beside)
		}
	}
}

// What a squash that was killed leaves the next one removes; one that goes on
// is left alone, and so is what somebody else may have put there.
func TestKilledSquash(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	work := t.TempDir()
	squash := func() {
		e, err := l.Edit(t.Context(), img)
		must(t, err)
		defer e.Close()
		must(t, bundle.Squash(t.Context(), l, img, e, bundle.SquashOptions{Compression: layer.Gzip, Work: work}))
	}
	must(t, os.Mkdir(filepath.Join(work, ".hcs-squash-open"), 0o755))
	must(t, os.Chmod(filepath.Join(work, ".hcs-squash-open"), 0o755))
	must(t, os.Symlink(t.TempDir(), filepath.Join(work, ".hcs-squash-link")))
	count := func() int {
		entries, err := os.ReadDir(work)
		must(t, err)
		return len(entries)
	}
	before := count()

	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), childEnv+"="+l.Dir(), squashEnv+"="+work)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	if _, err := io.ReadFull(out, make([]byte, len("now\n"))); err != nil {
		t.Error(err)
	}
	alive := count()
	if alive != before+1 {
		t.Error("the child has no directory")
	}
	squash()
	if now := count(); now != alive {
		t.Errorf("%d directories while another squash goes on, and then %d", alive, now)
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	squash()
	if after := count(); after != before {
		t.Errorf("%d directories at first, and %d in the end", before, after)
	}
}

// hugeFile is what nobody comes to the end of.
const hugeFile = "usr/huge"

func repackHuge(dir, b string) error {
	l, err := image.OpenLayout(dir)
	if err != nil {
		return err
	}
	_, err = bundle.Repack(context.Background(), l, b, bundle.RepackOptions{Tag: "huge", Mask: []string{"/" + hugeFile}, Refresh: true})
	return err
}

// TestKilledRefresh kills a repack while it lists the files of the bundle that
// it refreshes. The bundle is what it was, and the next one leaves nothing more
// in it.
func TestKilledRefresh(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := unpack(t, l, img)
	huge := filepath.Join(b, "rootfs", hugeFile)
	must(t, os.WriteFile(huge, nil, 0o600))
	must(t, os.Truncate(huge, 1<<40))
	names := func() (list []string) {
		entries, err := os.ReadDir(b)
		must(t, err)
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	before := names()
	meta, err := os.ReadFile(filepath.Join(b, bundle.MetaName))
	must(t, err)
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), childEnv+"="+l.Dir(), repackEnv+"="+b)
	child.Stderr = os.Stderr
	must(t, child.Start())
	for deadline := time.Now().Add(time.Minute); len(names()) == len(before); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("nothing is being written")
			break
		}
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	if now, err := os.ReadFile(filepath.Join(b, bundle.MetaName)); err != nil || string(now) != string(meta) {
		t.Errorf("after the kill %s is %s, %v", bundle.MetaName, now, err)
	}
	must(t, os.Remove(huge))
	_, err = bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "next", Refresh: true})
	must(t, err)
	if after := names(); len(after) != len(before) {
		t.Errorf("the bundle had %q, and has %q", before, after)
	}
}
