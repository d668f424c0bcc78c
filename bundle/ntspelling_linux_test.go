package bundle_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// spelledLayer makes a layer over those before it of names that are spelled as it comes, and says in have what all of them show:
// by name in upper case whether it is a directory.
func spelledLayer(t *testing.T, r *rand.Rand, have map[string]bool) []byte {
	t.Helper()
	files := []layertest.WindowsFile{layertest.WindowsDir("Files"), layertest.WindowsDir("Hives")}
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for _, last := range []string{"a", "bc", "def"} {
			if r.IntN(2) == 0 {
				last = strings.ToUpper(last)
			}
			name := dir + "/" + last
			key := ntfs.Upcase(name)
			_, there := have[key]
			if there && r.IntN(4) == 0 {
				files = append(files, layertest.WindowsWhiteout(dir+"/"+swapped(r, last)))
				forgetBelow(have, key)
			}
			switch k := r.IntN(6); {
			case k < 2:
				files = append(files, layertest.WindowsData(name, name))
				forgetBelow(have, key)
				have[key] = false
			case k < 5 && depth < 3:
				if !have[key] {
					forgetBelow(have, key)
				}
				have[key] = true
				files = append(files, layertest.WindowsDir(name))
				fill(name, depth+1)
			}
		}
	}
	fill("Files", 1)
	tar, err := layertest.WindowsTar(files)
	must(t, err)
	return tar
}

func swapped(r *rand.Rand, s string) string {
	if r.IntN(2) == 0 {
		return strings.ToLower(s)
	}
	return strings.ToUpper(s)
}

func forgetBelow(have map[string]bool, key string) {
	for name := range have {
		if name == key || strings.HasPrefix(name, key+"/") {
			delete(have, name)
		}
	}
}

// TestSpelling reads layers that spell names as it comes in all ways that there are: unpacked, as one layer, and stacked. All
// show the same names, and these are spelled as by the first layer that had them.
func TestSpelling(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 7))
		have := make(map[string]bool)
		var tars [][]byte
		for range 4 {
			tars = append(tars, spelledLayer(t, r, have))
		}
		l, img := windowsImage(t, tars...)
		flat := squashed(t, l, img)
		var one []string
		for _, o := range readWindows(t, l, flat, 0) {
			if part, name := layer.SplitPart(o.Name); part == layer.FilesPart && name != "." {
				one = append(one, name)
			}
		}
		slices.Sort(one)
		unpacked := below(t, filepath.Join(unpack(t, l, img), "rootfs"))
		stacked := stackedNames(t, tars)
		if d := cmp.Diff(one, unpacked); d != "" {
			t.Errorf("seed %d: -as one layer +unpacked:\n%s", seed, d)
		}
		if d := cmp.Diff(one, stacked); d != "" {
			t.Errorf("seed %d: -as one layer +stacked:\n%s", seed, d)
		}
		var want []string
		for name := range have {
			want = append(want, strings.TrimPrefix(name, "FILES/"))
		}
		slices.Sort(want)
		var got []string
		for _, name := range one {
			got = append(got, ntfs.Upcase(name))
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("seed %d: -want +got:\n%s", seed, d)
		}
		if t.Failed() {
			return
		}
	}
}

// stackedNames imports layers and mounts them on top of each other.
func stackedNames(t *testing.T, tars [][]byte) []string {
	t.Helper()
	top := t.TempDir()
	var dirs, lower []string
	for i, tar := range tars {
		dir := filepath.Join(top, fmt.Sprint(i))
		_, err := rootfs.ImportNT(t.Context(), dir, dirs, layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(tar)), rootfs.NTOptions{})
		must(t, err)
		dirs, lower = append([]string{dir}, dirs...), append([]string{filepath.Join(dir, "Files")}, lower...)
	}
	target := filepath.Join(top, "mount")
	must(t, os.Mkdir(target, 0o700))
	must(t, sys.MountOverlay(sys.Overlay{Lower: lower, Target: target}))
	names := below(t, target)
	must(t, sys.Unmount(target))
	for _, name := range names {
		_, content, err := rootfs.OpenNT(dirs, path.Join("Files", strings.ToUpper(name)))
		if err != nil {
			t.Error(err)
		} else if content != nil {
			must(t, content.Close())
		}
	}
	return names
}

// below lists what is in a directory.
func below(t *testing.T, dir string) (names []string) {
	t.Helper()
	for name := range tree(t, dir) {
		if name = strings.TrimPrefix(name, "/"); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
