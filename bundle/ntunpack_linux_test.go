package bundle_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// TestUnpackWindows unpacks three layers, and compares the tree with the one layer that flatten makes of them.
func TestUnpackWindows(t *testing.T) {
	t.Parallel()
	three, l, img := threeLayers(t)
	b := unpack(t, l, img)
	var want []string
	for _, o := range readWindows(t, l, squashed(t, l, img), 0) {
		if o.Kind == layer.Stream {
			continue
		}
		name := o.Name
		if part, inside := layer.SplitPart(name); part == layer.FilesPart {
			name = filepath.Join("rootfs", inside)
		}
		want = append(want, name)
		sameObject(t, b, name, o)
	}
	slices.Sort(want)
	var got []string
	for _, top := range []string{"rootfs", "UtilityVM"} {
		for name := range tree(t, filepath.Join(b, top)) {
			got = append(got, top+name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, hive := range []string{"rootfs/Windows/System32/config/SOFTWARE", "Hives/Software_Base"} {
		data, err := os.ReadFile(filepath.Join(b, hive))
		must(t, err)
		sameHive(t, string(data), string(three.Software))
	}
	for link, want := range map[string]string{"rootfs/data": "app", "rootfs/Documents and Settings": "Users"} {
		target, err := os.Readlink(filepath.Join(b, link))
		must(t, err)
		if target != want {
			t.Errorf("%s leads to %q", link, target)
		}
	}
}

// sameObject compares an object of a bundle with an entry of a layer.
func sameObject(t testing.TB, b, name string, o winObject) {
	t.Helper()
	if o.Kind == layer.Symlink && os.Geteuid() != 0 {
		return // an ordinary user's links have no attributes
	}
	e, content, err := rootfs.OpenNT([]string{b}, name)
	must(t, err)
	var data []byte
	if content != nil {
		data = make([]byte, e.Size)
		_, err := content.ReadAt(data, 0)
		if len(data) > 0 {
			must(t, err)
		}
		must(t, content.Close())
	}
	if o.Kind != layer.Hardlink && (e.Kind != o.Kind || !e.ModTime.Equal(o.ModTime) || string(data) != o.content) {
		t.Errorf("%s is a %s of %v with %q", name, e.Kind, e.ModTime, data)
	}
	if o.Kind != layer.Hardlink && (e.NT.Attributes != o.NT.Attributes || !bytes.Equal(e.NT.SecurityDescriptor, o.NT.SecurityDescriptor) ||
		!bytes.Equal(e.NT.Reparse, o.NT.Reparse) || fmt.Sprint(e.NT.EA) != fmt.Sprint(o.NT.EA) || !e.NT.CreationTime.Equal(o.NT.CreationTime)) {
		t.Errorf("%s has %+v, want %+v", name, e.NT, o.NT)
	}
}

// leftovers are the names in a directory, those that begin with a dot too.
func leftovers(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
