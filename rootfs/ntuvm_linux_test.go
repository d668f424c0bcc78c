package rootfs_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// uvmHives returns a utility VM's boot configuration, and a registry that tells its build.
func uvmHives(t testing.TB, build string) (boot, software string) {
	t.Helper()
	tree := newHive(t, "SOFTWARE")
	key, err := tree.Root().Create(`Microsoft\Windows NT\CurrentVersion`)
	must(t, err)
	var text []byte
	for _, c := range build + "\x00" {
		text = append(text, byte(c), 0)
	}
	must(t, key.SetValue(regf.Value{Name: "CurrentBuildNumber", Type: regf.TypeString, Data: text}))
	return treeBytes(t, newHive(t, "BCD")), treeBytes(t, tree)
}

const (
	uvmFiles = "UtilityVM/Files/"
	uvmBoot  = uvmFiles + "EFI/Microsoft/Boot/BCD"
)

// uvmBase is a base layer with a utility VM.
func uvmBase(t *testing.T, long string) []byte {
	t.Helper()
	boot, software := uvmHives(t, "20348")
	return tarOf(t, append(hiveHeaders(t),
		nt(dirOf("UtilityVM")), nt(dirOf("UtilityVM/Files")), nt(dirOf(uvmFiles+"EFI")), nt(dirOf(uvmFiles+"EFI/Microsoft")),
		nt(dirOf(uvmFiles+"EFI/Microsoft/Boot")), nt(file(uvmBoot, boot)), nt(file(uvmBoot+".LOG1", "log")),
		nt(dirOf(uvmFiles+"Windows")), nt(dirOf(uvmFiles+"Windows/System32")), nt(dirOf(uvmFiles+"Windows/System32/config")),
		nt(file(uvmFiles+"Windows/System32/config/SOFTWARE", software)),
		nt(file(uvmFiles+"Windows/kernel.exe", "kernel"), "MSWINDOWS.rawsd", sddl(t, long)),
		nt(tar.Header{Name: uvmFiles + "Windows/link", Typeflag: tar.TypeSymlink, Linkname: `C:\Windows\kernel.exe`}),
		nt(dirOf(uvmFiles+"anew")), nt(file(uvmFiles+"anew/lower", "x")), nt(dirOf(uvmFiles+"tools"), "MSWINDOWS.rawsd", sddl(t, long)),
		nt(file(uvmFiles+"tools/a", "a")), nt(file(uvmFiles+"tools/b", "b")))...)
}

// TestUtilityVMOfChild imports a layer that changes its parent's utility VM: it has a whole one.
func TestUtilityVMOfChild(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	long := "O:BAG:SYD:" + strings.Repeat("(A;OICI;FA;;;SY)", 100) // too long for an attribute
	top := t.TempDir()
	lower, plain, upper := filepath.Join(top, "1"), filepath.Join(top, "2"), filepath.Join(top, "3")
	opts := ntOptions()
	opts.Processing = rootfs.Processed
	_, err := rootfs.ImportNT(t.Context(), lower, nil, ntReader(uvmBase(t, long)), opts)
	must(t, err)
	_, err = rootfs.ImportNT(t.Context(), plain, []string{lower}, ntReader(tarOf(t, nt(dirOf("Files")), nt(dirOf("Hives")))), opts)
	must(t, err)
	if _, err := os.Stat(filepath.Join(plain, "UtilityVM")); err == nil {
		t.Error("a layer without a utility VM has one")
	}
	child := tarOf(t, nt(dirOf("Files")), nt(dirOf("Hives")), nt(dirOf("UtilityVM")), nt(dirOf("UtilityVM/Files")),
		wh(uvmFiles+"tools/a"), nt(dirOf(uvmFiles+"TOOLS")), nt(file(uvmFiles+"TOOLS/B", "new b")), nt(file(uvmFiles+"TOOLS/c", "c")),
		wh(uvmFiles+"anew"), nt(dirOf(uvmFiles+"anew")), nt(file(uvmFiles+"anew/upper", "y")))
	_, err = rootfs.ImportNT(t.Context(), upper, []string{plain, lower}, ntReader(child), opts)
	must(t, err)
	for name, want := range map[string]string{
		uvmFiles: "EFI Windows anew tools", uvmFiles + "tools": "a b c", uvmFiles + "anew": "upper",
		uvmFiles + "Windows": "System32 kernel.exe link", "UtilityVM": "Files SystemTemplate.vhdx SystemTemplateBase.vhdx",
	} {
		if got := strings.Join(names(t, filepath.Join(upper, name)), " "); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"tools/b": "new b", "tools/c": "c", "Windows/kernel.exe": "kernel", "Windows/link": "kernel"} {
		if got, err := os.ReadFile(filepath.Join(upper, uvmFiles, name)); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v", name, got, err)
		}
	}
	for _, stack := range [][]string{{upper}, {upper, plain, lower}} {
		checkEntry(t, stack, uvmFiles+"Windows/kernel.exe", long)
		if _, _, err := rootfs.OpenNT(stack, uvmFiles+"tools/a"); !errdefs.IsNotFound(err) {
			t.Errorf("what the layer removes is there: %v", err)
		}
	}
	checkBlank(t, filepath.Join(upper, "UtilityVM/SystemTemplate.vhdx"), 10<<30)
	for dir, want := range map[string]string{lower: "20348", upper: "20348"} {
		if got, err := os.ReadFile(filepath.Join(dir, "uvmbuildversion")); err != nil || string(got) != want {
			t.Errorf("%s has the build %q, %v", dir, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(upper, "bcd.bak")); err == nil {
		t.Error("a layer that brings no boot configuration has one kept")
	}
	var out bytes.Buffer
	must(t, rootfs.WriteNT(t.Context(), upper, &out))
	if !bytes.Equal(out.Bytes(), child) {
		t.Error("the layer goes out with other bytes")
	}
}
