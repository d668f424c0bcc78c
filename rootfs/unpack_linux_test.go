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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/rootfs"
)

// blobsOf makes layers of tar streams.
func blobsOf(blobs ...[]byte) []rootfs.LayerBlob {
	var layers []rootfs.LayerBlob
	for _, b := range blobs {
		layers = append(layers, rootfs.LayerBlob{
			DiffID: diffIDOf(b), Size: int64(len(b)),
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
		})
	}
	return layers
}

// inOrder applies layers one after the other, into a directory that is like a fresh one of UnpackTree.
func inOrder(t testing.TB, dir string, blobs [][]byte, opts rootfs.ApplyOptions) error {
	t.Helper()
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chtimes(dir, time.Unix(0, 0), time.Unix(0, 0)))
	for _, b := range blobs {
		if _, err := apply(t, dir, bytes.NewReader(b), opts); err != nil {
			return err
		}
	}
	return nil
}

// empty fails if the directory holds anything.
func empty(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

func TestUnpackTreeCases(t *testing.T) {
	t.Parallel()
	for _, c := range layerCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var blobs [][]byte
			for _, headers := range c.layers {
				blobs = append(blobs, tarOf(t, headers...))
			}
			dst := filepath.Join(t.TempDir(), "tree")
			_, err := rootfs.UnpackTree(t.Context(), dst, blobsOf(blobs...), rootfs.TreeOptions{})
			must(t, err)
			if got := words(t, dst); got != c.want {
				t.Errorf("the tree is %q, want %q", got, c.want)
			}
		})
	}
}

// TestUnpackTreeFlat has images that must not need to be applied in order.
func TestUnpackTreeFlat(t *testing.T) {
	t.Parallel()
	for name, layers := range map[string][][]tar.Header{
		"one": {{dir("d"), file("d/f", "x"), hardlink("d/h", "d/f"), file("d/f", "y"), symlink("l", "d"), file("i/j", "z")}},
		"typical": {
			{dir("etc"), file("etc/a", "1"), file("etc/b", "2"), symlink("bin", "usr/bin"), dir("usr"), dir("usr/bin"), file("usr/bin/x", "x")},
			{dir("etc"), wh("etc/a"), file("etc/b", "22"), dir("usr"), dir("usr/bin"), hardlink("usr/bin/y", "usr/bin/x")},
			{dir("etc"), opq("etc"), file("etc/c", "3")},
		},
		"link to what is rewritten": {
			{dir("d"), file("d/f", "old"), hardlink("d/h", "d/f"), hardlink("d/i", "d/f")},
			{dir("d"), file("d/f", "new")},
		},
		"link to a lower layer": {{file("f", "x")}, {hardlink("g", "f")}, {hardlink("h", "g")}, {file("f", "y")}},
		"directory over link":   {{dir("e"), symlink("d", "e")}, {dir("d"), file("d/f", "x")}},
		"file over directory":   {{dir("d"), file("d/f", "x")}, {file("d", "y")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var blobs [][]byte
			for _, headers := range layers {
				blobs = append(blobs, tarOf(t, headers...))
			}
			stats := compareWithOrder(t, blobs, rootfs.TreeOptions{})
			if stats.InOrder {
				t.Error("the layers were applied in order")
			}
		})
	}
}

// TestUnpackTreeDirlinks has directories that come onto links, which stay, and are hidden later: what was in them is where
// the links led.
func TestUnpackTreeDirlinks(t *testing.T) {
	t.Parallel()
	lower := []tar.Header{dir("b"), dir("d"), symlink("a", "/b"), symlink("d/a", "/b")}
	upper := []tar.Header{dir("a"), file("a/f", "x"), dir("d"), dir("d/a"), file("d/a/g", "y")}
	for name, layers := range map[string][][]tar.Header{
		"shown":              {lower, upper},
		"under a file":       {lower, upper, {file("a", "z"), file("d/a", "z")}},
		"under a whiteout":   {lower, upper, {wh("a"), wh("d")}},
		"in what is hidden":  {lower, upper, {file("d", "z")}},
		"another name":       {{dir("b"), symlink("s", "/b"), hardlink("a", "s")}, {dir("a"), file("a/f", "x")}},
		"another name below": {{dir("b"), symlink("s", "/b"), hardlink("a", "s")}, {dir("a"), file("a/f", "x")}, {wh("a")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var blobs [][]byte
			for _, headers := range layers {
				blobs = append(blobs, tarOf(t, headers...))
			}
			compareWithOrder(t, blobs, rootfs.TreeOptions{KeepDirlinks: true})
		})
	}
}

// compareWithOrder unpacks layers both ways and returns how UnpackTree did it.
func compareWithOrder(t testing.TB, blobs [][]byte, opts rootfs.TreeOptions) rootfs.TreeStats {
	t.Helper()
	top := t.TempDir()
	want, got := filepath.Join(top, "want"), filepath.Join(top, "got")
	wantErr := inOrder(t, want, blobs, rootfs.ApplyOptions{
		Owner: opts.Owner, UIDs: opts.UIDs, GIDs: opts.GIDs, Rootless: opts.Rootless, KeepDirlinks: opts.KeepDirlinks,
	})
	var manifest, again bytes.Buffer
	opts.Mtree = &manifest
	stats, err := rootfs.UnpackTree(t.Context(), got, blobsOf(blobs...), opts)
	switch {
	case wantErr != nil && err == nil && len(blobs) > 1 && strings.Contains(wantErr.Error(), "link"):
		// A hard link to nothing, or to a directory, that an upper layer hides is never tried.
	case wantErr != nil && err == nil:
		t.Errorf("UnpackTree succeeds; in order: %v", wantErr)
	case wantErr == nil && err != nil:
		t.Errorf("UnpackTree: %v; in order it succeeds", err)
	case wantErr == nil:
		v := view{times: true, holes: true, marks: true}
		compare(t, listing(t, got, v), listing(t, want, v))
		must(t, rootfs.WriteManifest(t.Context(), got, &again))
		if made, read := withoutComments(manifest.Bytes()), withoutComments(again.Bytes()); !bytes.Equal(made, read) {
			t.Errorf("the manifest is\n%s\nand of the tree it is\n%s", made, read)
		}
	}
	must(t, removeTree(want))
	if err == nil {
		must(t, removeTree(got))
	}
	empty(t, top)
	return stats
}

// removeTree removes a tree whose directories may have any mode.
func removeTree(dir string) error {
	_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// TestUnpackTreeRandom unpacks random images, tame ones and wild ones, and compares the result with that of applying the
// layers in order.
func TestUnpackTreeRandom(t *testing.T) {
	t.Parallel()
	count := 300
	if n, err := strconv.Atoi(os.Getenv("HCS_TEST_IMAGES")); err == nil {
		count = n
	}
	seed := rand.Uint64()
	flat := 0
	for i := range count {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wild := i%4 == 0
		blobs, text := randomImage(t, random, wild)
		if i%4 == 1 {
			blobs, text = linkedImage(t, random)
		}
		opts := rootfs.TreeOptions{Owner: rootfs.IgnoreOwner, Writers: 1 + i%3, KeepDirlinks: i%7 == 0, Rootless: i%11 == 0, Memory: i / 4 % 2}
		stats := compareWithOrder(t, blobs, opts)
		if t.Failed() {
			t.Fatalf("seed %d, image %d, in order: %v, options %+v\n%s", seed, i, stats.InOrder, opts, text)
		}
		if !stats.InOrder {
			flat++
		}
	}
	t.Logf("%d of %d images were unpacked from the top", flat, count)
	if flat < count/4 {
		t.Errorf("only %d of %d images were unpacked from the top", flat, count)
	}
}

// randomImage makes some layers. A tame image has entries for the directories that it uses, mostly.
func randomImage(t testing.TB, random *rand.Rand, wild bool) (blobs [][]byte, text string) {
	names := []string{
		"a", "b", "a/b", "a/c", "a/b/c", "a/b/d", "b/a", "b/c", "b/c/d", "c", "l", "l/c", "a/l", "a/l/c", "b/c/d/e",
	}
	if !wild {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.Contains(name, "l/") })
	}
	targets := []string{"a", "b", "a/b", "/a", "../a", ".", "nowhere", "l", "/b/c"}
	for n := range 1 + random.IntN(4) {
		var headers []tar.Header
		explicit, things := make(map[string]bool), make(map[string]bool)
		for range random.IntN(9) {
			name := names[random.IntN(len(names))]
			other := names[random.IntN(len(names))]
			content := fmt.Sprint(n, name, random.IntN(100))
			var h tar.Header
			switch k := random.IntN(20); {
			case k < 7:
				h = file(name, content)
			case k < 11:
				h = dir(name)
			case k < 12:
				h = symlink(name, targets[random.IntN(len(targets))])
			case k < 14 && name != other:
				h = hardlink(name, other)
			case k < 15:
				h = fifo(name)
			case k < 17:
				h = wh(name)
			case k < 18:
				h = opq(name)
			default:
				h = tar.Header{Name: name, Gname: content, Mode: 0o4711, PAXRecords: map[string]string{"SCHILY.xattr.user.x": content}}
			}
			h.ModTime = time.Unix(int64(random.IntN(1e9)), int64(random.IntN(1e9)))
			h.Format = tar.FormatPAX
			if h.Typeflag == tar.TypeDir {
				h.Mode = []int64{0o755, 0o700, 0o1777, 0o2750}[random.IntN(4)]
			}
			if h.Typeflag == tar.TypeLink {
				h.Format = tar.FormatUnknown
				h.ModTime = time.Time{}
			}
			if !wild {
				if explicit[name] || things[name] || slices.ContainsFunc(parents(name, nil), func(p tar.Header) bool { return things[p.Name] }) {
					continue
				}
				things[name] = h.Typeflag != tar.TypeDir && !strings.Contains(h.Name, ".wh.")
				explicit[name] = h.Typeflag == tar.TypeDir
				headers = append(headers, parents(h.Name, explicit)...)
			}
			headers = append(headers, h)
		}
		if random.IntN(4) == 0 {
			h := dir(".")
			h.Mode, h.ModTime = 0o751, time.Unix(int64(n), 0)
			headers = append(headers, h)
		}
		for _, h := range headers {
			text += fmt.Sprintf("%d: %c %s %s\n", n, max(h.Typeflag, '0'), h.Name, h.Linkname)
		}
		blobs = append(blobs, tarOf(t, headers...))
	}
	return blobs, text
}

// linkedImage makes a few layers of files and hard links with very few names, so that names are linked to, rewritten and
// hidden again and again. It links to nothing but what is there when the layers are applied in order.
func linkedImage(t testing.TB, random *rand.Rand) (blobs [][]byte, text string) {
	names := []string{"a", "b", "c", "d/a"}[:3+random.IntN(2)]
	there := make(map[string]bool)
	for n := range 2 + random.IntN(3) {
		headers := []tar.Header{dir("d")}
		brought := make(map[string]bool)
		for i := range 1 + random.IntN(8) {
			name, other := names[random.IntN(len(names))], names[random.IntN(len(names))]
			switch k := random.IntN(10); {
			case k < 4 && name != other && there[other]:
				headers = append(headers, hardlink(name, other))
			case k == 4 && !brought[name]:
				headers = append(headers, wh(name))
				delete(there, name)
				continue
			case k == 5:
				headers = append(headers, symlink(name, fmt.Sprint(n, i)))
			default:
				headers = append(headers, file(name, fmt.Sprint(n, name, i)))
			}
			there[name], brought[name] = true, true
		}
		if n > 0 && random.IntN(4) == 0 && !brought["d/a"] {
			headers = append(headers, opq("d"))
			delete(there, "d/a")
		}
		for _, h := range headers {
			text += fmt.Sprintf("%d: %c %s %s\n", n, max(h.Typeflag, '0'), h.Name, h.Linkname)
		}
		blobs = append(blobs, tarOf(t, headers...))
	}
	return blobs, text
}

// parents are entries for the directories that lead to name and have none yet.
func parents(name string, explicit map[string]bool) []tar.Header {
	var headers []tar.Header
	parts := strings.Split(name, "/")
	for i := 1; i < len(parts); i++ {
		p := strings.Join(parts[:i], "/")
		if !explicit[p] {
			if explicit != nil {
				explicit[p] = true
			}
			headers = append(headers, dir(p))
		}
	}
	return headers
}

func TestUnpackTreeRefuses(t *testing.T) {
	t.Parallel()
	good := tarOf(t, file("f", "x"))
	wrong := blobsOf(good)
	wrong[0].DiffID = diffIDOf([]byte("other"))
	wrongBlob := blobsOf(good)
	wrongBlob[0].Digest = diffIDOf([]byte("other"))
	broken := blobsOf(good)
	cause := errors.New("no such blob today")
	broken[0].Open = func(context.Context) (io.ReadCloser, error) { return nil, cause }
	for _, c := range []struct {
		name   string
		layers []rootfs.LayerBlob
		opts   rootfs.TreeOptions
		err    error
		says   string
	}{
		{"diffID", wrong, rootfs.TreeOptions{}, errdefs.ErrDataLoss, "its content has the digest"},
		{"blob", wrongBlob, rootfs.TreeOptions{}, errdefs.ErrDataLoss, "its blob has the digest"},
		{"open", broken, rootfs.TreeOptions{}, cause, "layer 0"},
		{"cut off", blobsOf(good, good[:700]), rootfs.TreeOptions{}, errdefs.ErrDataLoss, "layer 1"},
		{"link as root", blobsOf(tarOf(t, symlink(".", "x"))), rootfs.TreeOptions{}, errdefs.ErrInvalidArgument, "root is a symlink"},
		{"hard link to nothing", blobsOf(good, tarOf(t, hardlink("h", "gone"))), rootfs.TreeOptions{}, os.ErrNotExist, `"gone"`},
		{"overlay of two", blobsOf(good, good), rootfs.TreeOptions{Format: rootfs.OverlayUpper}, errdefs.ErrInvalidArgument, "2 layers"},
		{
			"unmapped", blobsOf(tarOf(t, tar.Header{Name: "f", Uid: 4000000})),
			rootfs.TreeOptions{Owner: rootfs.IgnoreOwner, UIDs: []rootfs.IDMap{{0, 1000, 65536}}},
			errdefs.ErrFailedPrecondition, "not mapped",
		},
	} {
		top := t.TempDir()
		_, err := rootfs.UnpackTree(t.Context(), filepath.Join(top, "tree"), c.layers, c.opts)
		oneLine(t, err, c.err, c.says)
		empty(t, top)
	}
	top := t.TempDir()
	_, err := rootfs.UnpackTree(t.Context(), top, blobsOf(good), rootfs.TreeOptions{})
	oneLine(t, err, errdefs.ErrAlreadyExists, "it exists")
}

func TestUnpackTreeStopsWithContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("no more of this")
	ctx, cancel := context.WithCancelCause(t.Context())
	blob := tarOf(t, slices.Repeat([]tar.Header{dir("d"), file("d/f", "x")}, 3000)...)
	layers := blobsOf(blob)
	layers[0].Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(&hookReader{r: bytes.NewReader(blob), at: 100 << 10, hook: func() { cancel(cause) }}), nil
	}
	top := t.TempDir()
	_, err := rootfs.UnpackTree(ctx, filepath.Join(top, "tree"), layers, rootfs.TreeOptions{})
	oneLine(t, err, cause)
	empty(t, top)
}
