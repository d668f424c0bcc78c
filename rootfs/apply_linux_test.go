package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// layerCases are images, base layer first, and the tree that they are, one word for each object: "d/" is a directory,
// "f=text" a file, "l>target" a symbolic link, "h==f" another name of f, "p|" a FIFO.
var layerCases = []struct {
	name   string
	layers [][]tar.Header
	want   string
}{
	{"nothing", [][]tar.Header{{}}, ""},
	{
		"kinds",
		[][]tar.Header{{dir("d"), file("d/f", "x"), symlink("l", "d/f"), hardlink("h", "d/f"), fifo("p")}},
		"d/ d/f=x h==d/f l>d/f p|",
	},
	{"missing parents", [][]tar.Header{{file("a/b/c", "x")}}, "a/ a/b/ a/b/c=x"},
	{"parent after child", [][]tar.Header{{file("a/b", "x"), dir("a")}}, "a/ a/b=x"},
	{"parent through link", [][]tar.Header{{dir("d"), symlink("l", "d"), file("l/f", "x")}}, "d/ d/f=x l>d"},
	{"parent through absolute link", [][]tar.Header{{dir("d"), symlink("l", "/d"), file("l/f", "x")}}, "d/ d/f=x l>/d"},
	{"parent through dangling link", [][]tar.Header{{symlink("l", "d/e"), file("l/f", "x")}}, "d/ d/e/ d/e/f=x l>d/e"},
	{"file as parent", [][]tar.Header{{file("a", "x"), file("a/b", "y")}}, "a/ a/b=y"},
	{"last file wins", [][]tar.Header{{file("f", "old"), file("f", "new")}}, "f=new"},
	{"file over its hard link", [][]tar.Header{{file("f", "old"), hardlink("h", "f"), file("h", "new")}}, "f=old h=new"},
	{"file under its hard link", [][]tar.Header{{file("f", "old"), hardlink("h", "f"), file("f", "new")}}, "f=new h=old"},
	{"file over link", [][]tar.Header{{file("f", "old"), symlink("l", "f"), file("l", "new")}}, "f=old l=new"},
	{"file over directory", [][]tar.Header{{dir("d"), file("d/f", "x"), file("d", "y")}}, "d=y"},
	{"directory over file", [][]tar.Header{{file("d", "x"), dir("d")}}, "d/"},
	{"directory over link", [][]tar.Header{{dir("e"), symlink("d", "e"), dir("d"), file("d/f", "x")}}, "d/ d/f=x e/"},
	{"link over directory", [][]tar.Header{{dir("e"), dir("d"), file("d/f", "x"), symlink("d", "e"), file("d/g", "y")}}, "d>e e/ e/g=y"},
	{"link over its own way", [][]tar.Header{{dir("a/b"), file("a/b/f", "x"), symlink("a", "c"), file("a/b/g", "y")}}, "a>c c/ c/b/ c/b/g=y"},
	{"hard link to itself by another way", [][]tar.Header{{file("d/f", "x"), symlink("l", "d"), hardlink("l/f", "d/f")}}, "d/ d/f=x l>d"},
	{"hard link to a link", [][]tar.Header{{symlink("l", "x"), hardlink("h", "l")}}, "h>x l>x"},
	{"hard link over directory", [][]tar.Header{{file("f", "x"), dir("d"), file("d/g", "y"), hardlink("d", "f")}}, "d=x f==d"},

	{"whiteout of a file", [][]tar.Header{{file("f", "x"), file("g", "y")}, {wh("f")}}, "g=y"},
	{"whiteout of a directory", [][]tar.Header{{file("d/e/f", "x"), file("g", "y")}, {wh("d")}}, "g=y"},
	{"whiteout of a link", [][]tar.Header{{file("d/f", "x"), symlink("l", "d")}, {wh("l")}}, "d/ d/f=x"},
	{"whiteout below", [][]tar.Header{{dir("d"), file("d/f", "x"), file("d/g", "y")}, {dir("d"), wh("d/f")}}, "d/ d/g=y"},
	{"whiteout of nothing", [][]tar.Header{{file("f", "x")}, {wh("nothing")}}, "f=x"},
	{"whiteout, then new", [][]tar.Header{{file("f", "old")}, {wh("f"), file("f", "new")}}, "f=new"},
	{"new, then whiteout", [][]tar.Header{{file("f", "old")}, {file("f", "new"), wh("f")}}, "f=new"},
	{"whiteout, then directory", [][]tar.Header{{file("d/f", "old")}, {wh("d"), dir("d"), file("d/g", "new")}}, "d/ d/g=new"},
	{"whiteout, then child", [][]tar.Header{{file("d/f", "old")}, {wh("d"), file("d/g", "new")}}, "d/ d/g=new"},
	{"directory, then whiteout", [][]tar.Header{{file("d/f", "old")}, {dir("d"), file("d/g", "new"), wh("d")}}, "d/ d/g=new"},
	{"child, then whiteout", [][]tar.Header{{file("d/e/f", "old")}, {file("d/e/g", "new"), wh("d")}}, "d/ d/e/ d/e/g=new"},
	{"whiteout in the first layer", [][]tar.Header{{file("f", "x"), wh("f"), wh("g")}}, "f=x"},
	{"whiteout, then new, in three layers", [][]tar.Header{{file("f", "1")}, {wh("f")}, {file("f", "3")}}, "f=3"},
	{
		"type clash between layers",
		[][]tar.Header{{file("d/f", "x"), file("g", "y")}, {file("d", "z"), dir("g"), file("g/h", "w")}},
		"d=z g/ g/h=w",
	},
	{
		"file, then directory, over a directory",
		[][]tar.Header{{file("d/f", "old")}, {file("d", "x"), dir("d"), file("d/g", "new")}},
		"d/ d/g=new",
	},
	{"opaque", [][]tar.Header{{file("d/f", "x"), file("d/e/g", "y")}, {dir("d"), opq("d"), file("d/h", "z")}}, "d/ d/h=z"},
	{"opaque last", [][]tar.Header{{file("d/f", "x"), file("d/h", "y")}, {dir("d"), file("d/h", "z"), opq("d")}}, "d/ d/h=z"},
	{"opaque alone", [][]tar.Header{{file("d/f", "x")}, {opq("d")}}, "d/"},
	{"opaque above", [][]tar.Header{{file("d/e/f", "x")}, {dir("d/e"), file("d/e/g", "y"), opq("d")}}, "d/ d/e/ d/e/g=y"},
	{
		"opaque and whiteouts",
		[][]tar.Header{{file("d/f", "x"), file("d/e/g", "y")}, {dir("d"), wh("d/f"), opq("d"), wh("d/e/g"), wh("d/x/y"), file("d/z", "")}},
		"d/ d/z=",
	},
	{"opaque root", [][]tar.Header{{file("f", "x"), file("d/g", "y")}, {opq("."), file("d/h", "z")}, {file("i", "w")}}, "d/ d/h=z i=w"},
	{"opaque through link", [][]tar.Header{{file("d/f", "x"), symlink("l", "d")}, {dir("d"), symlink("l", "d"), opq("l")}}, "d/ l>d"},
}

// words is a tree as layerCases have it.
func words(t testing.TB, dir string) string {
	t.Helper()
	var all []string
	lines := listing(t, dir, view{content: true})
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		line := lines[name]
		kind, rest, _ := strings.Cut(line, " ")
		_, same, hard := strings.Cut(rest, "same as ")
		switch {
		case name == ".":
		case kind == "dir":
			all = append(all, name+"/")
		case kind == "symlink":
			_, target, _ := strings.Cut(rest, " -> ")
			all = append(all, name+">"+target)
		case hard:
			all = append(all, name+"=="+strings.Fields(same)[0])
		case kind == "file":
			all = append(all, name+"="+strings.Trim(rest[strings.LastIndexByte(rest, ' ')+1:], `"`))
		case kind == "fifo":
			all = append(all, name+"|")
		default:
			all = append(all, name+"?"+line)
		}
	}
	return strings.Join(all, " ")
}

func TestApplyDirectory(t *testing.T) {
	t.Parallel()
	for _, c := range layerCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dst := t.TempDir()
			for _, headers := range c.layers {
				_, err := apply(t, dst, bytes.NewReader(tarOf(t, headers...)), rootfs.ApplyOptions{})
				must(t, err)
			}
			if got := words(t, dst); got != c.want {
				t.Errorf("the tree is %q, want %q", got, c.want)
			}
		})
	}
}

// TestApplyOverlay mounts the layers, whose merged tree must be the same as when they are applied on top of each other,
// where links do not lead from one layer into another.
func TestApplyOverlay(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	for _, c := range layerCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, dir := newStore(t)
			testenv.NoLeaks(t, testenv.Scope{Dir: dir})
			var layers []*rootfs.Layer
			for _, headers := range c.layers {
				blob := tarOf(t, headers...)
				l, err := s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
				must(t, err)
				layers = append(layers, l)
			}
			target := filepath.Join(dir, "mnt")
			must(t, os.Mkdir(target, 0o700))
			x, err := s.CreateScratch(t.Context(), "x", layers...)
			must(t, err)
			must(t, sys.MountOverlay(s.Overlay(x, target, layers...)))
			defer func() { must(t, sys.Unmount(target)) }()
			if got := words(t, target); got != c.want {
				t.Errorf("the tree is %q, want %q", got, c.want)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	invalid := errdefs.ErrInvalidArgument
	for _, c := range []struct {
		name    string
		headers []tar.Header
		format  rootfs.Format
		err     error
		says    string
	}{
		{"whiteout device", []tar.Header{char("etc/x", 0, 0)}, rootfs.OverlayUpper, invalid, `"etc/x"`},
		{"link as root", []tar.Header{symlink(".", "/etc")}, rootfs.Directory, invalid, ""},
		{"file as root", []tar.Header{file(".", "x")}, rootfs.Directory, invalid, ""},
		{"hard link to nothing", []tar.Header{hardlink("h", "gone")}, rootfs.Directory, os.ErrNotExist, `target "gone"`},
		{"hard link to a whiteout", []tar.Header{wh("w"), hardlink("h", "w")}, rootfs.OverlayUpper, os.ErrNotExist, `target "w"`},
		{"hard link to a directory", []tar.Header{dir("d"), hardlink("h", "d")}, rootfs.Directory, sys.ErrNotPermitted, `"h"`},
		{"hard link to the root", []tar.Header{hardlink("h", ".")}, rootfs.Directory, invalid, ""},
		{"loop as parent", []tar.Header{symlink("l", "l"), file("l/x", "")}, rootfs.Directory, sys.ErrTooManyLinks, `"l/x"`},
	} {
		_, err := apply(t, t.TempDir(), bytes.NewReader(tarOf(t, c.headers...)), rootfs.ApplyOptions{Format: c.format})
		oneLine(t, err, c.err, c.says)
		if _, ok := errors.AsType[*layer.EntryError](err); !ok {
			t.Errorf("%s: error %v is of type %T", c.name, err, err)
		}
	}
}

func TestApplyLeavesOut(t *testing.T) {
	t.Parallel()
	blob := tarOf(t, char("c", 0, 0), tar.Header{Name: "f", PAXRecords: map[string]string{
		"SCHILY.xattr.user.kept": "1", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/x",
		"SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.security.ima": "x", "SCHILY.xattr.security.evm": "x",
		"SCHILY.xattr.system.nfs4_acl": "x",
	}})
	dst := t.TempDir()
	_, err := apply(t, dst, bytes.NewReader(blob), rootfs.ApplyOptions{})
	must(t, err)
	got := listing(t, dst, view{marks: true})
	if _, there := got["c"]; there || !strings.Contains(got["f"], "user.kept") || strings.Count(got["f"], `="`) != 1 {
		t.Errorf("the tree is %q", got)
	}
}

// TestApplyKeepsTimes sees that a directory which the layer only passes through looks as if nothing had happened.
func TestApplyKeepsTimes(t *testing.T) {
	t.Parallel()
	dst := t.TempDir()
	_, err := apply(t, dst, bytes.NewReader(tarOf(t, dir("."), dir("d"), file("d/f", "x"), dir("d/e"))), rootfs.ApplyOptions{})
	must(t, err)
	want := listing(t, dst, view{times: true})
	_, err = apply(t, dst, bytes.NewReader(tarOf(t, file("d/e/g", "x"), wh("d/f"), wh("x"), opq("d/e"))), rootfs.ApplyOptions{})
	must(t, err)
	got := listing(t, dst, view{times: true})
	delete(got, "d/e/g")
	delete(want, "d/f")
	compare(t, got, want)
}

// TestApplySameEverywhere unpacks a layer without any metadata of its directories twice.
func TestApplySameEverywhere(t *testing.T) {
	t.Parallel()
	blob := tarOf(t, file("a/b/c/d", "x"), file("a/e", "y"), symlink("l", "a/b"), file("l/f", "z"))
	var trees []map[string]string
	for range 2 {
		s, _ := newStore(t)
		l, err := s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
		must(t, err)
		trees = append(trees, listing(t, l.Path(), view{times: true}))
	}
	compare(t, trees[0], trees[1])
}

func TestApplyStopsWithContext(t *testing.T) {
	t.Parallel()
	root, err := inroot.Open(t.TempDir())
	must(t, err)
	defer func() { must(t, root.Close()) }()
	cause := errors.New("no more of this")
	ctx, cancel := context.WithCancelCause(t.Context())
	blob := tarOf(t, slices.Repeat([]tar.Header{file("f", "x")}, 1000)...)
	r := &hookReader{r: bytes.NewReader(blob), at: 100 << 10, hook: func() { cancel(cause) }}
	stats, err := rootfs.Apply(ctx, root, layer.NewReader(r, layer.Limits{}), rootfs.ApplyOptions{})
	oneLine(t, err, cause)
	if stats.Entries == 1000 {
		t.Error("all entries were applied")
	}
}

// hookReader calls hook once when at bytes were read.
type hookReader struct {
	r    io.Reader
	at   int
	hook func()
}

func (h *hookReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p[:min(len(p), 4096)])
	if h.at -= n; h.at <= 0 && h.hook != nil {
		h.hook()
		h.hook = nil
	}
	return n, err
}

// TestApplyOwners needs no root: it has nothing to give away.
func TestApplyOwners(t *testing.T) {
	t.Parallel()
	blob := tarOf(t, tar.Header{Name: "f", Uid: 1, Gid: 2, Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.x": "1"}},
		tar.Header{Name: "d", Typeflag: tar.TypeDir, Uid: 1, Mode: 0o2750}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Uid: 1, Linkname: "x"})
	dst := t.TempDir()
	_, err := apply(t, dst, bytes.NewReader(blob), rootfs.ApplyOptions{})
	if os.Geteuid() != 0 {
		oneLine(t, err, sys.ErrNotPermitted, "change owner")
		dst = t.TempDir()
		_, err = apply(t, dst, bytes.NewReader(blob), rootfs.ApplyOptions{Owner: rootfs.IgnoreOwner})
	}
	must(t, err)
	uid, gid := os.Geteuid(), os.Getegid()
	want := map[string]string{
		"d": fmt.Sprintf("dir 2750 %d:%d", uid, gid),
		"f": fmt.Sprintf("file 4755 %d:%d 0 e3b0c442", uid, gid),
		"l": fmt.Sprintf("symlink 0777 %d:%d -> x", uid, gid),
	}
	if uid == 0 {
		want = map[string]string{
			"d": "dir 2750 1:0", "f": `file 4755 1:2 trusted.x="1" 0 e3b0c442`, "l": "symlink 0777 1:0 -> x",
		}
	}
	got := listing(t, dst, view{})
	delete(got, ".")
	compare(t, got, want)
}

// TestApplyReplacedDirectory has a directory whose metadata waits for the end while its name comes to lead elsewhere.
func TestApplyReplacedDirectory(t *testing.T) {
	t.Parallel()
	d, e := dir("d"), dir("e")
	d.Mode, e.Mode = 0o1777, 0o711
	for _, format := range []rootfs.Format{rootfs.Directory, rootfs.OverlayUpper} {
		dst := t.TempDir()
		_, err := apply(t, dst, bytes.NewReader(tarOf(t, e, d, symlink("d", "e"))), rootfs.ApplyOptions{Format: format})
		must(t, err)
		if got := listing(t, dst, view{})["e"]; !strings.HasPrefix(got, "dir 0711 ") {
			t.Errorf("the link's target became %q", got)
		}
	}
}

// TestApplyInheritsNothing applies a layer below a directory that hands its group on.
func TestApplyInheritsNothing(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	blob := tarOf(t, file("f", "x"), dir("d"), file("d/g", "y"), symlink("l", "x"), fifo("p"), file("i/h", "z"))
	for _, format := range []rootfs.Format{rootfs.Directory, rootfs.OverlayUpper} {
		dst := t.TempDir()
		must(t, os.Chown(dst, 0, 7))
		must(t, os.Chmod(dst, 0o755|os.ModeSetgid))
		_, err := apply(t, dst, bytes.NewReader(blob), rootfs.ApplyOptions{Format: format})
		must(t, err)
		want := map[string]string{
			".": "dir 2755 0:7", "d": "dir 0755 0:0", "i": "dir 0755 0:0", "l": "symlink 0777 0:0 -> x", "p": "fifo 0644 0:0",
			"f": "file 0644 0:0 1 2d711642", "d/g": "file 0644 0:0 1 a1fce436", "i/h": "file 0644 0:0 1 594e519a",
		}
		compare(t, listing(t, dst, view{}), want)
	}
}
