package hcsshim_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/compat/hcsshim/pkg/ociwclayer"
	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/testenv"
)

// uvmNames are a utility VM in an image's base layer, and what a layer above changes in it.
var (
	uvmNames = []string{
		"UtilityVM/", "UtilityVM/Files/", "UtilityVM/Files/EFI/", "UtilityVM/Files/EFI/Microsoft/", "UtilityVM/Files/EFI/Microsoft/Boot/",
		"UtilityVM/Files/EFI/Microsoft/Boot/BCD", "UtilityVM/Files/EFI/Microsoft/Boot/BCD.LOG", "UtilityVM/Files/kernel.exe", "UtilityVM/Files/old.sys",
	}
	childUVMNames = []string{"Files/", "Hives/", "UtilityVM/", "UtilityVM/Files/", "-UtilityVM/Files/old.sys", "UtilityVM/Files/new.sys"}
)

// TestProcessCalls makes base layers of directories, as who extracts the files himself does. Its errors are Windows' own.
func TestProcessCalls(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	dir := filepath.Join(t.TempDir(), "layer")
	fails := func(what string, want syscall.Errno, err error) {
		t.Helper()
		path, ok := err.(*os.PathError) //nolint:errorlint // as clients do it
		if !ok || !errors.Is(err, want) {
			t.Errorf("%s: %v, want code %#x in a path error", what, err, uintptr(want))
		} else if !strings.HasPrefix(path.Op, "hcsshim::Process") {
			t.Errorf("%s: the operation is %q", what, path.Op)
		}
	}
	uvm := filepath.Join(dir, "UtilityVM")
	fails("nothing", 0x3, hcsshim.ProcessBaseLayer(dir))
	fails("nothing", 0x3, hcsshim.ProcessUtilityVMImage(uvm))
	put := func(name, content string) {
		t.Helper()
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	for _, name := range append(baseNames, uvmNames...) {
		if strings.Contains(name, "/config/") && !strings.HasSuffix(name, "/") {
			fails("before "+name, 0x3, hcsshim.ProcessBaseLayer(dir+"/."))
			put(name, contentOf(t, name))
		}
	}
	put("Files/Windows/System32/config/SAM", "this is no hive")
	fails("a file that is no hive", 0x3f1, hcsshim.ProcessBaseLayer(dir))
	put("Files/Windows/System32/config/SAM", "")
	put("UtilityVM/Files/EFI/Microsoft/Boot/bcd.txt", "")
	fails("no boot configuration", 0x3, hcsshim.ProcessUtilityVMImage(uvm))
	put("UtilityVM/Files/EFI/Microsoft/Boot/bcd", "")
	fails("an empty boot configuration", 0x3f1, hcsshim.ProcessUtilityVMImage(uvm))
	put("UtilityVM/Files/EFI/Microsoft/Boot/bcd", contentOf(t, "/BCD"))
	for range 2 {
		check(t, hcsshim.ProcessBaseLayer(dir))
		check(t, hcsshim.ProcessUtilityVMImage(uvm))
	}
}

// TestUtilityVMSequence imports an image with a utility VM: both layers have a whole one, with a template for a machine's disk,
// and go out as they came.
func TestUtilityVMSequence(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	base, child := imageLayer(t, append(baseNames, uvmNames...)), imageLayer(t, childUVMNames)
	path := func(elem ...string) string { return filepath.Join(append([]string{info.HomeDir}, elem...)...) }
	_, err := ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(base), path("1"), nil)
	check(t, err)
	_, err = ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(child), path("2"), []string{path("1")})
	check(t, err)
	for id, want := range map[string]string{"1": "EFI kernel.exe old.sys", "2": "EFI kernel.exe new.sys old.sys"} {
		var names []string
		entries, err := os.ReadDir(path(id, "UtilityVM", "Files"))
		check(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("the utility VM of layer %s has %q", id, got)
		}
		d, err := disk.OpenFile(path(id, "UtilityVM", "SystemTemplate.vhdx"), disk.FileOptions{})
		check(t, err)
		if d.Size() != 10<<30 || d.Info().Format != disk.DifferencingVHDX {
			t.Errorf("the template is %+v", d.Info())
		}
		check(t, d.Close())
		check(t, hcsshim.ProcessUtilityVMImage(path(id, "UtilityVM")))
	}
	if st, err := os.Lstat(path("2", "UtilityVM", "Files", "old.sys")); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("what the layer removes is %v, %v", st, err)
	}
	const bcd = "UtilityVM/Files/EFI/Microsoft/Boot/BCD"
	for name, same := range map[string]bool{"UtilityVM/Files/kernel.exe": true, bcd: false, bcd + ".LOG": false} {
		lower, err1 := os.Stat(path("1", name))
		upper, err2 := os.Stat(path("2", name))
		check(t, errors.Join(err1, err2))
		if os.SameFile(lower, upper) != same {
			t.Errorf("%s is shared: %v, want %v", name, !same, same)
		}
	}
	for name, want := range map[string]string{"bcd.bak": contentOf(t, bcd), "bcd.log.bak": "content of " + bcd + ".LOG", "bcd.log1.bak": ""} {
		if b, err := os.ReadFile(path("1", name)); string(b) != want || (err != nil) != (want == "") {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
	}
	for id, want := range map[string][]byte{"1": base, "2": child} {
		var out bytes.Buffer
		check(t, ociwclayer.ExportLayerToTar(t.Context(), &out, path(id), nil))
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("layer %s has other bytes", id)
		}
	}
}
