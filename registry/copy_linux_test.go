package registry_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/registry"
)

// copyImage copies an image from a registry to a place.
func copyImage(t *testing.T, from, to image.Ref) error {
	t.Helper()
	src, err := registry.Open(t.Context(), from, registry.Config{})
	if err != nil {
		return err
	}
	defer src.Close()
	img, err := image.Resolve(t.Context(), src, from.Selector(), amd64)
	if err != nil {
		return err
	}
	return image.Copy(t.Context(), src, img, to)
}

// TestCopyToFullDisk copies to a layout, and to archives, on a disk that has
// room for a part: what was there before is there still, and nothing else.
func TestCopyToFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	ref := parse(t, start(t, "", "")+"/web:1")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir})
	if out, err := exec.Command(testenv.NeedCommand(t, "mount")[0], "-t", "tmpfs", "-o", "size=2m", "none", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	layout := filepath.Join(dir, "layout")
	if _, err := image.CreateLayout(t.Context(), layout); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	for _, to := range []image.Ref{
		{Transport: image.TransportOCI, Path: layout, Tag: "x"},
		{Transport: image.TransportOCIArchive, Path: filepath.Join(dir, "oci.tar"), Tag: "x"},
		{Transport: image.TransportDockerArchive, Path: filepath.Join(dir, "docker.tar"), Tag: "x:1"},
	} {
		err := copyImage(t, ref, to)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), to.Path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("copy to %s: %v, want one line about the full disk that names it", to, err)
		}
		// What came whole before the large layer did not is kept for the next time.
		after := files(t, dir)
		for _, desc := range []v1.Descriptor{img.Manifest.Layers[1], img.Manifest.Config, img.Descriptor} {
			after = strings.ReplaceAll(after, "/layout/blobs/sha256/"+desc.Digest.Encoded()+"\n", "")
		}
		if after != before {
			t.Errorf("copy to %s leaves\n%s\nwhere there was\n%s", to, after, before)
		}
	}
}

// files lists what is below a directory.
func files(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		fmt.Fprintln(&list, strings.TrimPrefix(name, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// TestCopiesAtOnce copies one image to one layout several times at once, under
// the same tag and under others: all are there, and whole.
func TestCopiesAtOnce(t *testing.T) {
	t.Parallel()
	ref := parse(t, start(t, "", "")+"/web:1")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(t.TempDir(), "layout")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			to := image.Ref{Transport: image.TransportOCI, Path: layout, Tag: fmt.Sprint("t", i/2)}
			if err := copyImage(t, ref, to); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		tag := fmt.Sprint("t", i)
		src, copied, err := image.OpenImage(t.Context(), image.Ref{Transport: image.TransportOCI, Path: layout, Tag: tag}, v1.Platform{})
		if err != nil {
			t.Fatal(err)
		}
		if copied.Descriptor.Digest != img.Descriptor.Digest {
			t.Errorf("%s is %s, want %s", tag, copied.Descriptor.Digest, img.Descriptor.Digest)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
	if found := blobs(t, layout); len(found) != 4 {
		t.Errorf("the layout has %d blobs", len(found))
	}
	for name, d := range blobs(t, layout) {
		if d.Encoded() != name {
			t.Errorf("blob %s has the digest %s", name, d)
		}
	}
	if strings.Contains(files(t, layout), ".hcs-tmp") {
		t.Errorf("left behind:\n%s", files(t, layout))
	}
}
