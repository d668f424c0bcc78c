package rootfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs/rootfs"
)

// TestDirectoriesThroughReplacedLinks reaches directories through symbolic links that are gone in the end, or that sort
// before what they lead to: all get the modes and times that they are to have, and what took the links' place keeps its own.
func TestDirectoriesThroughReplacedLinks(t *testing.T) {
	t.Parallel()
	at := func(h tarHeader, mode, sec int64) tarHeader {
		h.Mode, h.ModTime = mode, time.Unix(sec, 0)
		return h
	}
	d, y, f := at(dir("d"), 0o711, 1e9), at(dir("l/y"), 0o1750, 2e9), file("l/x/f", "x")
	last := func(h tarHeader) tarHeader { return at(h, 0o751, 3e8) }
	for name, c := range map[string]struct {
		layers [][]tarHeader
		also   string // a directory that took the link's place
	}{
		"by a file":         {layers: [][]tarHeader{{d, symlink("l", "d"), f, y, last(file("l", "y"))}}},
		"by a directory":    {layers: [][]tarHeader{{d, symlink("l", "d"), f, y, last(dir("l")), last(dir("l/y"))}}, also: "l/y"},
		"by another link":   {layers: [][]tarHeader{{d, dir("e"), last(dir("e/y")), symlink("l", "d"), f, y, symlink("l", "e")}}, also: "e/y"},
		"in a chain":        {layers: [][]tarHeader{{d, symlink("k", "/d"), symlink("l", "./k"), f, y, symlink("k", "l")}}},
		"with its parent":   {layers: [][]tarHeader{{d, symlink("p/k", "../d"), symlink("l", "p/k"), f, y, file("p", "x")}}},
		"by a whiteout":     {layers: [][]tarHeader{{d, symlink("l", "d")}, {f, y, wh("l")}}},
		"by opacity":        {layers: [][]tarHeader{{d, symlink("p/k", "../d"), symlink("l", "p/k")}, {f, y, opq("p")}}},
		"dangling":          {layers: [][]tarHeader{{symlink("l", "d"), f, y, d, last(file("l", "y"))}}},
		"by what is behind": {layers: [][]tarHeader{{d, symlink("d/l", "."), file("d/x/f", "x"), at(dir("d/y"), 0o1750, 2e9), last(dir("d/l/l")), file("d/l/l/f", "x"), d}}, also: "d/l"},
		"not, and is last":  {layers: [][]tarHeader{{d, symlink("l", "d"), f, y}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var blobs [][]byte
			for _, headers := range c.layers {
				blobs = append(blobs, tarOf(t, headers...))
			}
			tree := filepath.Join(t.TempDir(), "tree")
			must(t, inOrder(t, tree, blobs, rootfs.ApplyOptions{}))
			got := listing(t, tree, view{times: true})
			for name, want := range map[string]struct {
				mode string
				sec  int64
			}{"d": {"dir 0711 ", 1e9}, "d/x": {"dir 0755 ", 0}, "d/y": {"dir 1750 ", 2e9}, c.also: {"dir 0751 ", 3e8}} {
				when := time.Unix(want.sec, 0).UTC().Format("2006-01-02T15:04:05.000000000")
				if line := got[name]; name != "" && !(strings.HasPrefix(line, want.mode) && strings.HasSuffix(line, when)) {
					t.Errorf("%s is %q, want %q and %q", name, line, want.mode, when)
				}
			}
		})
	}
}

// TestWhiteoutKeepsTimes prunes directories that keep something of the layer's, and their times with it.
func TestWhiteoutKeepsTimes(t *testing.T) {
	t.Parallel()
	tree := filepath.Join(t.TempDir(), "tree")
	lower := tarOf(t, file("a/x", "old"), file("a/b/y", "old"), dir("a/b/c"))
	must(t, inOrder(t, tree, [][]byte{lower, tarOf(t, dir("a/b/c"), wh("a"))}, rootfs.ApplyOptions{}))
	got := listing(t, tree, view{times: true})
	for _, name := range []string{".", "a", "a/b"} {
		if !strings.HasSuffix(got[name], " 1970-01-01T00:00:00.000000000") {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	if len(got) != 4 {
		t.Errorf("the tree has %d objects, want a/b/c alone: %v", len(got)-1, got)
	}
}

// TestLinkToForbiddenDirectory reaches a directory that in the end nobody may enter by a name that sorts before its own.
func TestLinkToForbiddenDirectory(t *testing.T) {
	t.Parallel()
	closed, below := dir("d"), dir("a/x")
	closed.Mode, below.Mode = 0o040, 0o711
	tree := t.TempDir()
	_, err := apply(t, tree, bytes.NewReader(tarOf(t, closed, symlink("a", "d"), below)), rootfs.ApplyOptions{})
	must(t, err)
	must(t, os.Chmod(filepath.Join(tree, "d"), 0o700))
	if info, err := os.Stat(filepath.Join(tree, "d/x")); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("d/x is %v, %v", info, err)
	}
}

// TestOverlayOpaqueThroughReplacedLink leaves no whiteouts in an opaque directory that was named by a link which is gone.
func TestOverlayOpaqueThroughReplacedLink(t *testing.T) {
	t.Parallel()
	tree := t.TempDir()
	headers := []tarHeader{dir("d"), symlink("l", "d"), wh("l/gone"), opq("l"), file("l", "x")}
	_, err := apply(t, tree, bytes.NewReader(tarOf(t, headers...)), rootfs.ApplyOptions{
		Format: rootfs.OverlayUpper, UserXattr: os.Geteuid() != 0,
	})
	must(t, err)
	empty(t, filepath.Join(tree, "d"))
}
