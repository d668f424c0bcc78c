package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

// readProblem tells how a layer is read by itself: what is mended, and why it cannot be read.
func readProblem(tar []byte, strict bool) (warnings int, err error) {
	r := layer.ReadOptions{Encoding: layer.NT, Strict: strict, Warn: func(layer.Warning) { warnings++ }}.NewReader(bytes.NewReader(tar))
	for _, err := range r.All() {
		if err != nil {
			return warnings, err
		}
	}
	_, err = r.Trailer()
	return warnings, err
}

// TestWindowsShapes puts layers as BuildKit, buildah and crane make them, and hostile ones, on top of another: what can be
// read is unpacked, with a warning for all that is mended, and refused when strict; of what cannot nothing is left.
func TestWindowsShapes(t *testing.T) {
	t.Parallel()
	three, err := layertest.NewWindowsImage()
	must(t, err)
	tars, err := three.Tars()
	must(t, err)
	vectors, err := layertest.NTVectors()
	must(t, err)
	unpacked := 0
	for _, v := range vectors {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			l, img := windowsImage(t, tars[0], v.Layers[0])
			place := t.TempDir()
			b := filepath.Join(place, "bundle")
			mended, bad := readProblem(v.Layers[0], false)
			warned := 0
			o := bundle.UnpackOptions{Mappings: mappings(), Warn: func(n int, _ layer.Warning) {
				if n == 2 {
					warned++
				}
			}}
			err := bundle.Unpack(t.Context(), l, img, b, o)
			if (err == nil) != (bad == nil) && !strings.Contains(fmt.Sprint(err), "find the hard link's target") {
				t.Fatalf("unpack: %v, read: %v", err, bad)
			}
			if err == nil {
				unpacked++
				staysInside(t, filepath.Join(b, "rootfs"))
			} else if left := leftovers(t, place); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			if err == nil && warned != mended {
				t.Errorf("%d warnings, not %d", warned, mended)
			}
			if mended == 0 {
				return
			}
			o.Strict = true
			strict := bundle.Unpack(t.Context(), l, img, filepath.Join(place, "strict"), o)
			if _, refused := readProblem(v.Layers[0], true); err == nil && (strict == nil) != (refused == nil) {
				t.Errorf("strict: %v, want %v", strict, refused)
			}
		})
	}
	if unpacked < len(vectors)/4 {
		t.Errorf("only %d of %d layers were unpacked", unpacked, len(vectors))
	}
}

// staysInside looks for links that lead out of a tree.
func staysInside(t testing.TB, root string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := os.Readlink(p)
		if filepath.IsAbs(target) {
			t.Errorf("%s leads to %s", p, target)
		}
		return err
	}))
}

// TestWindowsLinksOut has a junction and a symbolic link that lead out of the tree, in each other's way: what comes below them
// in an upper layer, or is inserted, stays in the tree, under the name that was first.
func TestWindowsLinksOut(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.Mkdir(outside, 0o755))
	up := strings.Repeat(`..\`, 40) + strings.ReplaceAll(outside[1:], "/", `\`)
	base, err := layertest.WindowsTar([]layertest.WindowsFile{
		layertest.WindowsDir("Files"), layertest.WindowsLink("Files/out", up, 0xA000000C),
	})
	must(t, err)
	upper, err := layertest.WindowsTar([]layertest.WindowsFile{
		layertest.WindowsDir("Files"), layertest.WindowsDir("Files/OUT"), layertest.WindowsData("Files/OUT/x", "x"), layertest.WindowsDir("Hives"),
	})
	must(t, err)
	l, img := windowsImage(t, base, upper)
	b := unpack(t, l, img)
	if data, err := os.ReadFile(filepath.Join(b, "rootfs/out/x")); err != nil || string(data) != "x" {
		t.Errorf("%q: %v", data, err)
	}
	l, img = windowsImage(t, base)
	b = unpack(t, l, img)
	must(t, os.Remove(filepath.Join(b, "rootfs/out")))
	must(t, os.Symlink(outside, filepath.Join(b, "rootfs/Windows")))
	if _, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "new", Refresh: true}); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, outside); len(left) > 0 {
		t.Errorf("outside is %v", left)
	}
}

// TestWindowsFullDisk unpacks to a disk that is too small: nothing is left.
func TestWindowsFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	tar, err := layertest.WindowsTar([]layertest.WindowsFile{
		layertest.WindowsDir("Files"), layertest.WindowsData("Files/large", strings.Repeat("0123456789abcdef", 1<<17)),
	})
	must(t, err)
	l, img := windowsImage(t, tar)
	place := t.TempDir()
	must(t, syscall.Mount("none", place, "tmpfs", 0, "size=1m"))
	defer func() { must(t, syscall.Unmount(place, 0)) }()
	err = bundle.Unpack(t.Context(), l, img, filepath.Join(place, "b"), bundle.UnpackOptions{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("unpack: %v", err)
	}
	if left := leftovers(t, place); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
