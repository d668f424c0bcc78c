package bundle_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// TestMountWindows changes a bundle that is mounted and one that is copied in the same way, and compares the layers that come
// of it.
func TestMountWindows(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top})
	three, l, img := threeLayers(t)
	store := rootfs.Config{Dir: filepath.Join(top, "store")}
	one, two := filepath.Join(top, "one"), filepath.Join(top, "two")
	mount(t, l, img, store, one, two)
	copied := unpack(t, l, img)
	sameTree(t, "mounted", filepath.Join(one, "rootfs"), filepath.Join(copied, "rootfs"))
	var specs []string
	for _, b := range []string{one, copied} {
		spec, err := os.ReadFile(filepath.Join(b, "config.json"))
		must(t, err)
		specs = append(specs, string(spec))
	}
	if specs[0] != specs[1] {
		t.Errorf("mounted it has the configuration\n%s\ncopied\n%s", specs[0], specs[1])
	}
	if same := repacked(t, l, one, bundle.RepackOptions{}); len(same.DiffIDs()) != 3 {
		t.Error("an unchanged bundle gave a layer")
	}
	write(t, filepath.Join(one, "rootfs/app/only.txt"), "masked")
	if same := repacked(t, l, one, bundle.RepackOptions{Mask: []string{`C:\`}}); len(same.DiffIDs()) != 3 {
		t.Error("masked changes gave a layer")
	}
	edited := editedSoftware(t, three)
	var made [][]string
	for _, b := range []string{one, copied} {
		alterWindows(t, filepath.Join(b, "rootfs"), edited)
		img := repacked(t, l, b, bundle.RepackOptions{Mask: []string{`C:\APP\only.txt`}})
		all := readWindows(t, l, img, 3)
		checkDescriptors(t, all)
		list := lines(all)
		slices.Sort(list)
		made = append(made, list)
		want := foldedTree(t, without(t, filepath.Join(b, "rootfs"), "app/only.txt"))
		if diff := cmp.Diff(want, foldedTree(t, filepath.Join(unpack(t, l, img), "rootfs"))); diff != "" {
			t.Errorf("changed (-) and unpacked again (+):\n%s", diff)
		}
	}
	if got, want := strings.Join(made[0], "\n"), strings.Join(made[1], "\n"); got != want {
		t.Errorf("the layer of the mounted bundle has\n%s\nthat of the other\n%s", got, want)
	}
	if err := bundle.Mount(t.Context(), l, img, one, store); !errdefs.IsAlreadyExists(err) || !strings.HasSuffix(err.Error(), "unmount it first") {
		t.Errorf("mounted again: %v", err)
	}
	must(t, bundle.Unmount(t.Context(), one))
	write(t, filepath.Join(two, "rootfs/new"), "the layers are still there")
	must(t, bundle.Unmount(t.Context(), two))
	if left, _ := filepath.Glob(filepath.Join(top, "store/*/*sha256*")); len(left) > 0 {
		t.Errorf("layers are left: %v", left)
	}
}

// foldedTree is tree with names as Windows compares them: a layer on others cannot spell one otherwise than they do.
func foldedTree(t testing.TB, root string) map[string]string {
	t.Helper()
	folded := make(map[string]string)
	for name, object := range tree(t, root) {
		folded[strings.ToLower(name)] = object
	}
	return folded
}

// without removes a file that is not compared.
func without(t testing.TB, root, name string) string {
	t.Helper()
	if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return root
}

// editedSoftware is the hive of that name with a key more.
func editedSoftware(t testing.TB, three *layertest.WindowsImage) string {
	t.Helper()
	edited, _, err := layertest.EditHive(three.Software, `HKEY_LOCAL_MACHINE\SOFTWARE`, `[HKEY_LOCAL_MACHINE\SOFTWARE\New]
"A"="b"
`)
	must(t, err)
	return string(edited)
}

// alterWindows makes changes as Linux' own programs make them, and the hive the one of that name.
func alterWindows(t testing.TB, root, software string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(root, name) }
	write(t, in("Windows/System32/drivers/etc/hosts"), "10.0.0.1 all\n")
	must(t, os.Remove(in("Users/Public")))
	must(t, os.Rename(in("app/app.exe"), in("app/tool.exe")))
	must(t, os.Rename(in("Windows/win.ini"), in("Windows/WIN.INI")))
	must(t, os.Chmod(in("Windows/System32/App.dll"), 0o444))
	must(t, os.Mkdir(in("new"), 0o755))
	write(t, in("new/file.txt"), "plain")
	must(t, os.Link(in("new/file.txt"), in("new/same.txt")))
	must(t, os.Symlink("../app", in("new/link")))
	must(t, os.Remove(in("data")))
	must(t, os.Mkdir(in("data"), 0o755))
	write(t, in("Windows/System32/config/SOFTWARE"), software)
}

// TestMountTogether has several calls mount one bundle while another comes and goes, and takes it away from within.
func TestMountTogether(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top})
	_, l, img := threeLayers(t)
	store := rootfs.Config{Dir: filepath.Join(top, "store")}
	one, other := filepath.Join(top, "one"), filepath.Join(top, "other")
	results := make(chan error)
	for range 4 {
		go func() { results <- bundle.Mount(t.Context(), l, img, one, store) }()
		go func() { // the layers are without a bundle again and again
			err := bundle.Mount(t.Context(), l, img, other, store)
			if err == nil {
				err = bundle.Unmount(t.Context(), other)
			}
			if err != nil && !errdefs.IsAlreadyExists(err) {
				t.Errorf("the other bundle: %v", err)
			}
			results <- errdefs.ErrAlreadyExists
		}()
	}
	made := 0
	for range 8 {
		err := <-results
		if err == nil {
			made++
		} else if !errdefs.IsAlreadyExists(err) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d calls mounted it", made)
	}
	write(t, filepath.Join(one, "rootfs/new"), "it is there")
	t.Chdir(filepath.Join(one, "rootfs"))
	must(t, bundle.Unmount(t.Context(), "../../one"))
	t.Chdir(top)
	if left := leftovers(t, top); !slices.Equal(left, []string{"store"}) {
		t.Errorf("left behind: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(top, "store/*/*sha256*")); len(left) > 0 {
		t.Errorf("layers are left: %v", left)
	}
}

// TestRootfsWindows unpacks an image to a plain tree: it is the bundle's, without Windows' metadata.
func TestRootfsWindows(t *testing.T) {
	t.Parallel()
	_, l, img := threeLayers(t)
	copied := filepath.Join(unpack(t, l, img), "rootfs")
	o := bundle.UnpackOptions{Mappings: mappings()}
	there := t.TempDir()
	for _, dir := range []string{there, filepath.Join(t.TempDir(), "new")} {
		must(t, bundle.Rootfs(t.Context(), l, img, dir, o))
		sameTree(t, "unpacked", dir, copied)
		must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.Type()&os.ModeSymlink != 0 {
				return err
			}
			buf := make([]byte, 1000)
			n, err := syscall.Listxattr(p, buf)
			if n > 0 && strings.Contains(string(buf[:n]), "hcs.nt") {
				t.Errorf("%s has %q", p, buf[:n])
			}
			return err
		}))
		if left := leftovers(t, filepath.Dir(dir)); slices.ContainsFunc(left, func(name string) bool { return strings.HasPrefix(name, ".hcs") }) {
			t.Errorf("left behind: %q", left)
		}
		if err := bundle.Rootfs(t.Context(), l, img, dir, o); !errdefs.IsAlreadyExists(err) {
			t.Errorf("unpacked again: %v", err)
		}
	}
	o.KeepDirlinks = true
	if err := bundle.Rootfs(t.Context(), l, img, filepath.Join(there, "none"), o); !errdefs.IsInvalidArgument(err) {
		t.Errorf("links are kept: %v", err)
	}
}
