package bundle_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/ntfs"
)

func write(t testing.TB, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func repacked(t testing.TB, l *image.Layout, b string, o bundle.RepackOptions) *image.Image {
	t.Helper()
	o.Tag = "new"
	img, err := bundle.Repack(t.Context(), l, b, o)
	must(t, err)
	return img
}

// TestRepackWindows makes a layer of changes that Linux' own programs make, and unpacks the new image to see the same tree.
func TestRepackWindows(t *testing.T) {
	t.Parallel()
	three, l, img := threeLayers(t)
	b := unpack(t, l, img)
	if same := repacked(t, l, b, bundle.RepackOptions{}); len(same.DiffIDs()) != 3 {
		t.Fatalf("a layer of no changes")
	}
	edited := editedSoftware(t, three)
	alterWindows(t, filepath.Join(b, "rootfs"), edited)
	must(t, os.Chmod(filepath.Join(b, "rootfs/Windows/hidden.sys"), 0o644))

	made := repacked(t, l, b, bundle.RepackOptions{Refresh: true})
	all := readWindows(t, l, made, 3)
	want := []string{
		`dir Files`, `dir Files/Users`, `whiteout Files/Users/Public`,
		`dir Files/Windows`, `dir Files/Windows/System32`, `file Files/Windows/System32/App.dll readonly|archive MZ dll`,
		`dir Files/Windows/System32/config`,
		`dir Files/Windows/System32/drivers`, `dir Files/Windows/System32/drivers/etc`,
		`file Files/Windows/System32/drivers/etc/hosts 10.0.0.1 all`,
		`file Files/Windows/WIN.INI [fonts]`, `file Files/Windows/hidden.sys hidden|system|archive system`,
		`dir Files/app`, `whiteout Files/app/app.exe`, `file Files/app/tool.exe MZ app`,
		`dir Files/data`,
		`dir Files/new`, `file Files/new/file.txt plain`, `symlink Files/new/link -> ..\app directory|reparse`,
		`hardlink Files/new/same.txt = Files/new/file.txt`,
		`dir Hives`, `file Hives/Software_Delta`,
	}
	got := lines(all)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("no %q", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) && line != "dir Files/Windows/System32/config" {
			t.Errorf("unwanted %q", line)
		}
	}
	checkDescriptors(t, all)

	again := unpack(t, l, made)
	windows, err := os.Stat(filepath.Join(again, "rootfs/Windows"))
	must(t, err)
	must(t, os.Rename(filepath.Join(again, "rootfs/Windows/win.ini"), filepath.Join(again, "rootfs/Windows/WIN.INI"))) // as it was spelled first
	must(t, os.Chtimes(filepath.Join(again, "rootfs/Windows"), windows.ModTime(), windows.ModTime()))
	sameTree(t, "unpacked again", filepath.Join(again, "rootfs"), filepath.Join(b, "rootfs"))
	for _, dir := range []string{b, again} {
		data, err := os.ReadFile(filepath.Join(dir, "Hives/Software_Base"))
		must(t, err)
		sameHive(t, string(data), edited)
	}
	if same := repacked(t, l, b, bundle.RepackOptions{}); len(same.DiffIDs()) != 4 {
		t.Error("the bundle is not one of the new image")
	}
	diff, err := bundle.Diff(t.Context(), bundle.Side{Source: l, Image: squashed(t, l, made)}, bundle.Side{Source: l, Image: made})
	must(t, err)
	if len(diff.Files) > 0 {
		t.Errorf("one layer is not as four: %+v", diff.Files)
	}
}

// checkDescriptors looks at what was inherited and at what stayed.
func checkDescriptors(t testing.TB, all []winObject) {
	t.Helper()
	inherited := "O:BAG:SYD:AI(A;ID;FA;;;BA)(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)" // the first is the creator
	for _, o := range all {
		want := map[string]string{
			"Files/new/file.txt": inherited, "Files/Windows/System32/drivers/etc/hosts": layertest.WindowsFileSDDL,
			"Files/Windows/WIN.INI": layertest.WindowsOwnSDDL, "Files/app/tool.exe": layertest.WindowsFileSDDL,
		}[o.Name]
		if want == "" {
			continue
		}
		sd, err := ntfs.ParseSecurityDescriptor(o.NT.SecurityDescriptor)
		must(t, err)
		if text, _ := sd.SDDL(); text != want {
			t.Errorf("%s has %s, want %s", o.Name, text, want)
		}
	}
}

// TestRepackWindowsRefuses makes what no Windows layer can tell.
func TestRepackWindowsRefuses(t *testing.T) {
	t.Parallel()
	_, l, img := threeLayers(t)
	for name, do := range map[string]func(in string) error{
		`a:b`:     func(in string) error { return os.WriteFile(in+"/a:b", nil, 0o644) },
		`CON`:     func(in string) error { return os.WriteFile(in+"/app/CON", nil, 0o644) },
		`APP.exe`: func(in string) error { return os.WriteFile(in+"/app/APP.exe", nil, 0o644) },
		`pipe`:    func(in string) error { return syscall.Mkfifo(in+"/pipe", 0o644) },
	} {
		b := unpack(t, l, img)
		must(t, do(filepath.Join(b, "rootfs")))
		_, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "bad"})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
