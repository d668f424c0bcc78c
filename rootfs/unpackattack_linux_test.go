package rootfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// TestUnpackTreeAttacks unpacks every vector as a tree, by root and rootless: nothing outside may change, and the tree has to
// be as the vector says.
func TestUnpackTreeAttacks(t *testing.T) {
	t.Parallel()
	host := hostState()
	for _, v := range vectors(t) {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			t.Parallel()
			for name, opts := range map[string]rootfs.TreeOptions{
				"root":     {},
				"rootless": {Rootless: true},
				"dirlinks": {Rootless: true, KeepDirlinks: true},
				"overlay":  {Format: rootfs.OverlayUpper, Owner: rootfs.IgnoreOwner, UserXattr: os.Geteuid() != 0},
			} {
				if name == "overlay" && len(v.Layers) > 1 || name == "root" && os.Geteuid() != 0 {
					continue
				}
				t.Run(name, func(t *testing.T) { attackTree(t, v, opts) })
			}
		})
	}
	t.Cleanup(func() {
		if now := hostState(); now != host {
			t.Errorf("the host changed: %s, was %s", now, host)
		}
	})
}

func attackTree(t *testing.T, v layertest.Vector, opts rootfs.TreeOptions) {
	t.Helper()
	c := newCage(t)
	must(t, os.Remove(c.tree))
	opts.Limits = limitsOf(t, v)
	opts.Mtree = io.Discard
	var layers []rootfs.LayerBlob
	for _, b := range v.Layers {
		layers = append(layers, rootfs.LayerBlob{Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}})
	}
	before := c.outside(t)
	_, err := rootfs.UnpackTree(t.Context(), c.tree, layers, opts)
	after := c.outside(t)
	before["up"], after["up"] = "", "" // the tree's name came into it
	compare(t, after, before)
	t.Cleanup(func() { must(t, removeTree(c.tree)) })
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
	switch {
	case opts.Format == rootfs.OverlayUpper:
		judgeOverlay(t, v, err)
		return
	case !opts.Rootless:
		judge(t, v, err)
	case err != nil && v.Apply == "ok":
		t.Errorf("%s\nrootless: %v", v.About, err)
	}
	if err == nil && !opts.KeepDirlinks {
		if opts.Rootless {
			v = asRootless(v)
		}
		checkTree(t, v, c.tree)
	}
}

// asRootless is what a vector means to an ordinary user: device nodes are empty files, and only root gives capabilities.
func asRootless(v layertest.Vector) layertest.Vector {
	v.Tree = slices.Clone(v.Tree)
	for i, o := range v.Tree {
		if o.Kind == "char" || o.Kind == "block" {
			v.Tree[i].Kind = "file"
		}
	}
	v.Looks = slices.DeleteFunc(slices.Clone(v.Looks), func(l layertest.Look) bool {
		return l.Fact == "attr" && strings.HasPrefix(l.Value, "security.")
	})
	return v
}

// FuzzUnpackTree unpacks two layers of the fuzzer's instructions next to a canary, and compares with applying them in order.
func FuzzUnpackTree(f *testing.F) {
	for i := range byte(32) {
		f.Add([]byte{i, 1, 2, i + 1, 2, 3}, []byte{i + 2, 3, 1, i, 3, 2})
	}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		c := newCage(t)
		must(t, os.Remove(c.tree))
		before := c.outside(t)
		blobs := [][]byte{layerOf(t, lower), layerOf(t, upper)}
		_, err := rootfs.UnpackTree(t.Context(), c.tree, blobsOf(blobs...), rootfs.TreeOptions{Owner: rootfs.IgnoreOwner})
		if err == nil {
			must(t, removeTree(c.tree))
		}
		after := c.outside(t)
		before["up"], after["up"] = "", ""
		compare(t, after, before)
		if os.Geteuid() == 0 { // who may look into directories of any mode
			compareWithOrder(t, blobs, rootfs.TreeOptions{Owner: rootfs.IgnoreOwner})
		}
	})
}

// TestUnpackTreeKilled kills a process half way: nothing has the tree's name, and the next call removes what was left.
func TestUnpackTreeKilled(t *testing.T) {
	if dir := os.Getenv("HCS_TEST_UNPACK_HALF"); dir != "" {
		unpackHalf(t, dir)
	}
	t.Parallel()
	top := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnpackTreeKilled$")
	cmd.Env = append(os.Environ(), "HCS_TEST_UNPACK_HALF="+top)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, len(halfWay))
	_, err = io.ReadFull(out, line)
	if err != nil || string(line) != halfWay {
		t.Errorf("the process says %q, %v", line, err)
	}
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait() // killed
	entries, err := os.ReadDir(top)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() == "tree" {
		t.Fatalf("the killed process left %v", entries)
	}
	tree := filepath.Join(top, "tree")
	_, err = rootfs.UnpackTree(t.Context(), tree, blobsOf(tarOf(t, file("f", "x"))), rootfs.TreeOptions{})
	must(t, err)
	if got := words(t, tree); got != "f=x" {
		t.Errorf("the tree is %q", got)
	}
	must(t, os.RemoveAll(tree))
	empty(t, top)
}

const halfWay = "half way\n"

// unpackHalf unpacks a layer of which the end never comes.
func unpackHalf(t *testing.T, dir string) {
	blob := tarOf(t, file("a/f", "x"), file("b", strings.Repeat("x", 1<<20)), file("c", strings.Repeat("x", 1<<20)))
	hook := func() {
		fmt.Print(halfWay)
		testenv.AwaitKill()
	}
	layers := blobsOf(blob)
	layers[0].Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(&hookReader{r: bytes.NewReader(blob), at: 1500 << 10, hook: hook}), nil
	}
	_, err := rootfs.UnpackTree(t.Context(), filepath.Join(dir, "tree"), layers, rootfs.TreeOptions{})
	t.Fatalf("unpacked to the end: %v", err)
}

func TestUnpackTreeDiskFull(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top})
	must(t, exec.Command(testenv.NeedCommand(t, "mount")[0], "-t", "tmpfs", "-o", "size=256k", "none", top).Run())
	defer func() { must(t, sys.Unmount(top)) }()
	small := strings.Repeat("x", 40<<10)
	for name, blobs := range map[string][][]byte{
		"small": {tarOf(t, file("d/a", small), file("b", small), file("c", small), file("e", small), file("f", small), file("g", small), file("h", small))},
		"large": {tarOf(t, file("a", strings.Repeat("x", 1<<20)))},
		"lower": {tarOf(t, file("a", strings.Repeat("x", 1<<20))), tarOf(t, file("b", "x"))},
	} {
		_, err := rootfs.UnpackTree(t.Context(), filepath.Join(top, "tree"), blobsOf(blobs...), rootfs.TreeOptions{})
		oneLine(t, err, sys.ErrNoSpace, "unpack to")
		if err == nil {
			t.Errorf("%s fits", name)
		}
		empty(t, top)
	}
}

// TestUnpackTreeTogether unpacks to the same place several times at once: one wins, and the others say that it is there.
func TestUnpackTreeTogether(t *testing.T) {
	t.Parallel()
	good := tarOf(t, file("f", "x"))
	for range 20 {
		top := t.TempDir()
		results := make(chan error)
		for i := range 8 {
			blob, want := good, error(errdefs.ErrAlreadyExists)
			if i%2 == 1 {
				blob, want = good[:600], io.ErrUnexpectedEOF // which fails, and must not take others' work away
			}
			go func() {
				_, err := rootfs.UnpackTree(t.Context(), filepath.Join(top, "tree"), blobsOf(blob), rootfs.TreeOptions{})
				if errors.Is(err, want) || errors.Is(err, errdefs.ErrAlreadyExists) {
					err = errExpected
				}
				results <- err
			}()
		}
		won := 0
		for range 8 {
			switch err := <-results; {
			case err == nil:
				won++
			case !errors.Is(err, errExpected):
				t.Error(err)
			}
		}
		if got := words(t, filepath.Join(top, "tree")); won != 1 || got != "f=x" {
			t.Errorf("%d won, and the tree is %q", won, got)
		}
		must(t, os.RemoveAll(filepath.Join(top, "tree")))
		empty(t, top)
	}
}

var errExpected = errors.New("expected")
