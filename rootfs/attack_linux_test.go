package rootfs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// cage is a directory with things that must not change, and a tree in the middle of them for attacks to get out of.
type cage struct {
	dir, tree string
	before    map[string]string
}

func newCage(t testing.TB) *cage {
	t.Helper()
	c := &cage{dir: t.TempDir()}
	c.tree = filepath.Join(c.dir, "up", "tree")
	must(t, os.MkdirAll(c.tree, 0o755))
	for _, d := range []string{".", "up"} {
		must(t, os.MkdirAll(filepath.Join(c.dir, d, "canarydir"), 0o751))
		for _, f := range []string{"canary", "canarydir/x", "canarydir/passwd", "passwd"} {
			must(t, os.WriteFile(filepath.Join(c.dir, d, f), []byte("outside"), 0o640))
		}
	}
	c.before = c.outside(t)
	return c
}

// outside describes everything but the tree.
func (c *cage) outside(t testing.TB) map[string]string {
	t.Helper()
	return listing(t, c.dir, view{times: true, skip: "up/tree"})
}

// check fails if anything outside changed.
func (c *cage) check(t testing.TB) {
	t.Helper()
	compare(t, c.outside(t), c.before)
}

// hostCanaries are what vectors aim at by absolute names; the machine has none of them.
var hostCanaries = []string{"/canary", "/canarydir", "/evil", "/x"}

func hostState() string {
	var s strings.Builder
	for _, name := range hostCanaries {
		_, err := os.Lstat(name)
		s.WriteString(fmt.Sprint(name, err, ";"))
	}
	return s.String()
}

func vectors(t testing.TB) []layertest.Vector {
	t.Helper()
	all, err := layertest.Vectors()
	must(t, err)
	if len(all) < 30 {
		t.Fatalf("there are %d vectors only", len(all))
	}
	return all
}

func limitsOf(t testing.TB, v layertest.Vector) layer.Limits {
	t.Helper()
	var l layer.Limits
	for field, n := range v.Limits {
		reflect.ValueOf(&l).Elem().FieldByName(field).SetInt(n)
	}
	return l
}

// TestAttacks applies every vector in both formats: nothing outside of the tree may change, and the tree has to be as the
// vector says.
func TestAttacks(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // vectors have owners and devices
	host := hostState()
	for _, v := range vectors(t) {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			t.Parallel()
			t.Run("directory", func(t *testing.T) { attackDirectory(t, v, rootfs.ApplyOptions{}) })
			t.Run("overlay", func(t *testing.T) { attackOverlay(t, v) })
			t.Run("store", func(t *testing.T) { attackStore(t, v) })
		})
	}
	t.Cleanup(func() {
		if now := hostState(); now != host {
			t.Errorf("the host changed: %s, was %s", now, host)
		}
	})
}

func attackDirectory(t *testing.T, v layertest.Vector, opts rootfs.ApplyOptions) {
	c := newCage(t)
	_, err := applyAll(t, v, func(int) string { return c.tree }, opts)
	c.check(t)
	judge(t, v, err)
	if err == nil {
		checkTree(t, v, c.tree)
	}
}

// TestAttacksRootless is for everybody.
func TestAttacksRootless(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			t.Parallel()
			attackDirectory(t, asRootless(v), rootfs.ApplyOptions{Rootless: true})
		})
	}
}

// attackOverlay unpacks each layer on its own, and looks at the mount of all.
func attackOverlay(t *testing.T, v layertest.Vector) {
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	c := newCage(t)
	testenv.NoLeaks(t, testenv.Scope{Dir: c.dir})
	var lower []string
	opaque, err := applyAll(t, v, func(i int) string {
		dir := filepath.Join(c.tree, fmt.Sprint(i))
		must(t, os.Mkdir(dir, 0o755))
		lower = slices.Insert(lower, 0, dir)
		return dir
	}, rootfs.ApplyOptions{Format: rootfs.OverlayUpper})
	c.check(t)
	judgeOverlay(t, v, err)
	if err == nil {
		lower = lower[:len(lower)-opaque]
		checkLayers(t, v, lower)
		if len(lower) == 1 { // a bind mount would show whiteouts
			lower = append(lower, t.TempDir())
		}
		checkMount(t, v, sys.Overlay{Lower: lower})
		c.check(t)
	}
}

// attackStore unpacks each layer into a store, and looks at the mount of all.
func attackStore(t *testing.T, v layertest.Vector) {
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	c := newCage(t)
	testenv.NoLeaks(t, testenv.Scope{Dir: c.dir})
	s, err := rootfs.Open(rootfs.Config{Dir: c.tree, Limits: limitsOf(t, v)})
	must(t, err)
	var lower []string
	var layers []*rootfs.Layer
	for _, blob := range v.Layers {
		l, err := s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
		c.check(t)
		judgeStore(t, v, err)
		if err != nil {
			if len(layers) == 0 {
				nothingLeft(t, c.tree)
			}
			return
		}
		layers, lower = append(layers, l), append(lower, l.Path())
	}
	checkLayers(t, v, lower)
	checkMount(t, v, s.Overlay(nil, "", layers...))
	c.check(t)
}

// judgeStore lets the first layers of a vector that fails in the end be good.
func judgeStore(t *testing.T, v layertest.Vector, err error) {
	t.Helper()
	if err != nil || len(v.Layers) == 1 {
		judgeOverlay(t, v, err)
	}
}

// checkLayers sees that what is not to be in a layer is not on disk either, where overlayfs might only hide it.
func checkLayers(t *testing.T, v layertest.Vector, dirs []string) {
	t.Helper()
	for _, dir := range dirs {
		got := listing(t, dir, view{marks: true})
		for _, l := range v.Looks {
			if l.Fact == "noattr" && got[l.Name] != "" && !looks(got[l.Name], l) {
				t.Errorf("%s\n%s is %q in the layer, want %s %s", v.About, l.Name, got[l.Name], l.Fact, l.Value)
			}
		}
	}
}

// checkMount mounts layers and checks what is to be seen then.
func checkMount(t *testing.T, v layertest.Vector, o sys.Overlay) {
	t.Helper()
	o.Target = filepath.Join(t.TempDir(), "mnt")
	must(t, os.Mkdir(o.Target, 0o755))
	must(t, sys.MountOverlay(o))
	defer func() { must(t, sys.Unmount(o.Target)) }()
	checkTree(t, v, o.Target)
}

// applyAll also returns the index of the topmost layer that hides all below.
func applyAll(t *testing.T, v layertest.Vector, where func(i int) string, opts rootfs.ApplyOptions) (opaque int, err error) {
	t.Helper()
	for i, blob := range v.Layers {
		root, err := inroot.Open(where(i))
		must(t, err)
		r := layer.NewReader(bytes.NewReader(blob), limitsOf(t, v))
		stats, err := rootfs.Apply(t.Context(), root, r, opts)
		must(t, root.Close())
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q has more than one line", err)
			}
			return 0, err
		}
		if stats.Opaque {
			opaque = i
		}
	}
	return opaque, nil
}

func judge(t *testing.T, v layertest.Vector, err error) {
	t.Helper()
	switch {
	case v.Apply == "either":
	case (v.Apply == "ok") != (err == nil):
		t.Errorf("%s\napply ended with: %v; want %s", v.About, err, v.Apply)
	}
}

// judgeOverlay lets a layer refuse what it can only do together with those below it.
func judgeOverlay(t *testing.T, v layertest.Vector, err error) {
	t.Helper()
	if len(v.Layers) > 1 && err != nil {
		return
	}
	if err != nil && strings.Contains(err.Error(), "would be a whiteout") {
		return
	}
	judge(t, v, err)
}

func checkTree(t *testing.T, v layertest.Vector, tree string) {
	t.Helper()
	if os.Geteuid() != 0 {
		openUp(t, tree)
	}
	got := listing(t, tree, view{content: true, marks: true})
	for _, want := range v.Tree {
		line := got[want.Name]
		ok := strings.HasPrefix(line, want.Kind+" ")
		switch want.Kind {
		case "file":
			ok = ok && strings.HasSuffix(line, fmt.Sprintf(" %q", want.Content))
		case "symlink":
			ok = ok && strings.HasSuffix(line, " -> "+want.Link)
		}
		if !ok {
			t.Errorf("%s\n%s is %q, want %v", v.About, want.Name, line, want)
		}
	}
	for _, l := range v.Looks {
		if line := got[l.Name]; !looks(line, l) {
			t.Errorf("%s\n%s is %q, want %s %s", v.About, l.Name, line, l.Fact, l.Value)
		}
	}
	for _, name := range v.Gone {
		if line, there := got[name]; there {
			t.Errorf("%s\n%s is still there: %s", v.About, name, line)
		}
	}
}

// openUp lets a tree's owner read all of it.
func openUp(t *testing.T, tree string) {
	t.Helper()
	must(t, filepath.WalkDir(tree, func(name string, d fs.DirEntry, err error) error {
		if d.IsDir() && err == nil || d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil && (info.Mode()&0o400 == 0 || d.IsDir() && info.Mode()&0o500 != 0o500) {
				err = os.Chmod(name, info.Mode()|0o700)
			}
		}
		return err
	}))
}

// looks compares with a line of a listing.
func looks(line string, l layertest.Look) bool {
	if l.Fact == "mode" {
		_, rest, _ := strings.Cut(line, " ")
		return strings.HasPrefix(rest, l.Value+" ")
	}
	return line != "" && strings.Contains(line, " "+l.Value+"=") == (l.Fact == "attr")
}

// TestAttackByExistingTree applies harmless layers to a tree that somebody prepared.
func TestAttackByExistingTree(t *testing.T) {
	t.Parallel()
	for _, prepared := range []string{"../../canarydir", "/canarydir", "../canarydir", "l", "..", "/", "."} {
		for _, format := range []rootfs.Format{rootfs.Directory, rootfs.OverlayUpper} {
			c := newCage(t)
			must(t, os.Symlink(prepared, filepath.Join(c.tree, "l")))
			must(t, os.Symlink(c.dir+"/canarydir", filepath.Join(c.tree, "m")))
			for _, h := range []string{"l/x", "l/new", "m/x", "l", "m/sub/x"} {
				blob := tarOf(t, file(h, "evil"), dir(h+"dir"), wh("l/passwd"), wh("m/passwd"), opq("l/canarydir"),
					hardlink("h", h), wh("l/l"), opq("m"))
				_, _ = apply(t, c.tree, bytes.NewReader(blob), rootfs.ApplyOptions{Format: format, UserXattr: true})
				c.check(t)
			}
		}
	}
}

// FuzzApply applies layers made of the fuzzer's bytes next to a canary, both as they come and as a list of instructions
// that always make a valid layer.
func FuzzApply(f *testing.F) {
	for _, v := range vectors(f) {
		for _, blob := range v.Layers {
			f.Add(blob)
		}
	}
	for i := range byte(32) {
		f.Add([]byte{i, 1, 2, i + 1, 2, 3, i + 2, 3, 1, i, 3, 2})
	}
	c := newCage(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, format := range []rootfs.Format{rootfs.Directory, rootfs.OverlayUpper} {
			for _, blob := range [][]byte{data, layerOf(t, data)} {
				opts := rootfs.ApplyOptions{Format: format, Owner: rootfs.IgnoreOwner, UserXattr: os.Geteuid() != 0}
				_, _ = apply(t, c.tree, bytes.NewReader(blob), opts)
				c.check(t)
			}
			clearTree(t, c.tree)
		}
	})
}

func clearTree(t testing.TB, tree string) {
	t.Helper()
	root, err := inroot.Open(tree)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	top, err := root.OpenDir(".")
	must(t, err)
	defer func() { must(t, top.Close()) }()
	must(t, top.Self().Chmod(0o755))
	names, err := top.Names()
	must(t, err)
	for _, name := range names {
		must(t, top.RemoveAll(name))
	}
	for attr := range must2(top.Self().Xattrs()) {
		must(t, top.Self().RemoveXattr(attr))
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// layerOf reads instructions of three bytes: what, where, and the other name.
func layerOf(t testing.TB, data []byte) []byte {
	names := []string{
		"a", "b", "a/b", "a/b/c", "b/a", "a/x", "l", "l/x", "l/l", "l/a/b", "canary", "canarydir/x", ".",
	}
	targets := []string{"a", "b", "..", "../..", "/", "../canarydir", "/a", "../../canarydir", "l", "a/b", ".", "a/../.."}
	var headers []tarHeader
	for ; len(data) >= 3 && len(headers) < 64; data = data[3:] {
		name, other := names[int(data[1])%len(names)], int(data[2])
		target := targets[other%len(targets)]
		switch data[0] % 9 {
		case 0:
			headers = append(headers, file(name, target))
		case 1:
			headers = append(headers, dir(name))
		case 2:
			headers = append(headers, symlink(name, target))
		case 3:
			if link := names[other%len(names)]; link != name {
				headers = append(headers, hardlink(name, link))
			}
		case 4:
			headers = append(headers, fifo(name))
		case 5:
			headers = append(headers, wh(name))
		case 6:
			headers = append(headers, opq(name))
		case 7:
			h := dir(name)
			h.Mode = int64(other)
			headers = append(headers, h)
		case 8:
			headers = append(headers, char(name, 0, int64(other&1)))
		}
	}
	return tarOf(t, headers...)
}
