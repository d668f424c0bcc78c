package bundle_test

import (
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
)

// windowsImage makes a layout with an image of the layers under the tag "base".
func windowsImage(t testing.TB, tars ...[]byte) (*image.Layout, *image.Image) {
	t.Helper()
	l, err := image.CreateLayout(t.Context(), filepath.Join(t.TempDir(), "layout"))
	must(t, err)
	config := v1.Image{Platform: v1.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.20348.1"}}
	base, err := l.New(t.Context(), "base", config)
	must(t, err)
	e, err := l.Edit(t.Context(), base)
	must(t, err)
	defer e.Close()
	for _, tar := range tars {
		_, err := e.AddTar(t.Context(), layer.Gzip, bytes.NewReader(tar))
		must(t, err)
		e.AddHistory(v1.History{CreatedBy: "test"})
	}
	img, err := e.Commit(t.Context(), "base")
	must(t, err)
	return l, img
}

func threeLayers(t testing.TB) (*layertest.WindowsImage, *image.Layout, *image.Image) {
	t.Helper()
	three, err := layertest.NewWindowsImage()
	must(t, err)
	tars, err := three.Tars()
	must(t, err)
	l, img := windowsImage(t, tars...)
	return three, l, img
}

// winObject is an entry of a Windows layer and what it holds.
type winObject struct {
	*layer.Entry
	content string
}

// readWindows reads a layer of an image, strictly: what is written here has nothing to mend.
func readWindows(t testing.TB, l *image.Layout, img *image.Image, i int) (all []winObject) {
	t.Helper()
	tar, err := image.OpenTar(t.Context(), l, img.Manifest.Layers[i], img.DiffIDs()[i])
	must(t, err)
	r := layer.ReadOptions{Encoding: layer.NT, Strict: true}.NewReader(tar)
	for e, err := range r.All() {
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		all = append(all, winObject{e, string(content)})
	}
	_, err = io.Copy(io.Discard, tar)
	must(t, err)
	must(t, tar.Close())
	return all
}

// line is an object in short.
func (o winObject) line() string {
	s := o.Kind.String() + " " + o.Name
	if o.Stream != "" {
		s += ":" + o.Stream
	}
	switch o.Kind {
	case layer.Hardlink:
		return s + " = " + o.Link
	case layer.Symlink:
		link, err := ntfs.ParseLink(o.NT.Reparse)
		if err == nil {
			s += " -> " + link.Target()
		}
	}
	if o.Kind != layer.Whiteout && o.Kind != layer.Stream && o.NT.Attributes != ntfs.AttrArchive && o.NT.Attributes != ntfs.AttrDirectory {
		s += " " + o.NT.Attributes.String()
	}
	if (o.Kind == layer.File || o.Kind == layer.Stream) && !strings.HasPrefix(o.content, "regf") {
		s += " " + strings.TrimSpace(o.content)
	}
	return s
}

func lines(all []winObject) (list []string) {
	for _, o := range all {
		list = append(list, o.line())
	}
	return list
}

func squashed(t testing.TB, l *image.Layout, img *image.Image) *image.Image {
	t.Helper()
	e, err := l.Edit(t.Context(), img)
	must(t, err)
	defer e.Close()
	must(t, bundle.Squash(t.Context(), l, img, e, bundle.SquashOptions{Compression: layer.Gzip}))
	flat, err := e.Commit(t.Context(), "flat")
	must(t, err)
	return flat
}

// sameHive compares what is in two hives: nothing is in a delta between them.
func sameHive(t testing.TB, got, want string) {
	t.Helper()
	a, err := regf.Parse([]byte(got))
	must(t, err)
	b, err := regf.Parse([]byte(want))
	must(t, err)
	d, err := regf.Diff(a, b)
	must(t, err)
	root := d.Root()
	for n := range root.Subkeys() {
		t.Errorf("key %q differs", n.Name())
	}
	if len(root.Values()) > 0 {
		t.Error("values of the root differ")
	}
}

// TestFlattenWindows makes one layer of three: names are one whatever their case, whiteouts and replacements count, hard
// links lead to what they led to, the registry's changes are in the hives.
func TestFlattenWindows(t *testing.T) {
	t.Parallel()
	three, l, img := threeLayers(t)
	flat := squashed(t, l, img)
	if n := len(flat.DiffIDs()); n != 1 {
		t.Fatalf("%d layers", n)
	}
	all := readWindows(t, l, flat, 0)
	want := []string{
		`dir Files`,
		`symlink Files/Documents and Settings -> C:\Users hidden|system|directory|reparse`,
		`dir Files/Users`, `dir Files/Users/Public`, `dir Files/Windows`,
		// the file that was win.ini, whose other name is left
		`dir Files/app`, `file Files/app/ini.lnk [fonts]`, "stream Files/app/ini.lnk:Zone.Identifier [ZoneTransfer]\r\nZoneId=3",
		`file Files/Windows/hidden.sys readonly|hidden|system|archive system`,
		`dir Files/Windows/System32`,
		`file Files/Windows/System32/notepad.exe MZ notepad`,
		`hardlink Files/Windows/notepad.exe = Files/Windows/System32/notepad.exe`,
		`dir Files/Windows/System32/drivers`, `dir Files/Windows/System32/drivers/etc`,
		`file Files/Windows/System32/drivers/etc/hosts 127.0.0.1 localhost`,
		`dir Files/Windows/System32/config`,
		`file Files/Windows/System32/config/DEFAULT`, `file Files/Windows/System32/config/SAM`,
		`file Files/Windows/System32/config/SECURITY`, `file Files/Windows/System32/config/SYSTEM`,
		`file Files/Windows/System32/config/SOFTWARE`,
		`dir UtilityVM`, `dir UtilityVM/Files`, `file UtilityVM/Files/bootmgr boot`,
		`file Files/Windows/System32/App.dll MZ dll`,
		`file Files/app/app.exe MZ app`,
		`symlink Files/data -> C:\app directory|reparse`,
		`file Files/Windows/win.ini [fonts]`,
	}
	if got := lines(all); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, o := range all {
		switch o.Name {
		case "Files/Windows/System32/config/SOFTWARE":
			sameHive(t, o.content, string(three.Software))
		case "Files/Windows/win.ini":
			sd, err := ntfs.ParseSecurityDescriptor(o.NT.SecurityDescriptor)
			must(t, err)
			if s, _ := sd.SDDL(); s != layertest.WindowsOwnSDDL {
				t.Errorf("win.ini has %s", s)
			}
		}
		if o.Kind != layer.Stream && !o.ModTime.Equal(layertest.WindowsTime) {
			t.Errorf("%s is of %v", o.Name, o.ModTime)
		}
	}
	if again := squashed(t, l, flat); again.DiffIDs()[0] != flat.DiffIDs()[0] {
		t.Error("one layer became another one")
	}
}
