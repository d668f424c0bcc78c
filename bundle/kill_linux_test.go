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

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// childEnv has the test's program unpack the layout that it names to the
// bundle in the other, and wait to be killed in the middle of it.
const childEnv, bundleEnv = "BUNDLE_TEST_LAYOUT", "BUNDLE_TEST_BUNDLE"

func TestMain(m *testing.M) {
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
	// The others are unpacked from the top: the lowest layer is the last.
	last := hanging{Source: l, layer: img.Manifest.Layers[0]}
	return bundle.Unpack(ctx, last, img, to, bundle.UnpackOptions{Mappings: mappings()})
}

// hanging has a layer that ends nowhere.
type hanging struct {
	image.Source
	layer v1.Descriptor
}

func (h hanging) Blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	blob, err := h.Source.Blob(ctx, d)
	if err == nil && d.Digest == h.layer.Digest {
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
