package disk_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/testenv"
)

// TestLibvhdiReadsChain has libvhdi read a differencing image through its parent: the only other reader of such images here.
func TestLibvhdiReadsChain(t *testing.T) {
	testenv.NeedRoot(t) // to mount
	tools := testenv.NeedCommand(t, "vhdimount", "umount")
	dir := t.TempDir()
	base, child, mount := filepath.Join(dir, "base.vhdx"), filepath.Join(dir, "child.vhdx"), filepath.Join(dir, "mount")
	must(t, os.Mkdir(mount, 0o700))
	model := make([]byte, 20*mib)
	r := rand.New(rand.NewPCG(3, 9))
	d := mustDisk(t)(disk.CreateFile(base, disk.Options{Format: disk.DynamicVHDX, Size: int64(len(model)), BlockSize: mib}))
	scribble(t, r, d, model, 15)
	must(t, d.Close())
	d = mustDisk(t)(disk.CreateChild(child, base, disk.Options{
		BlockSize: mib, ParentPaths: disk.Locator{Absolute: `C:\layers\base.vhdx`}, // libvhdi knows this path alone, and of it the name
	}, disk.FileOptions{}))
	scribble(t, r, d, model, 15)
	must(t, d.Close())

	run(t, tools[0], child, mount)
	t.Cleanup(func() {
		if out, err := exec.Command(tools[1], mount).CombinedOutput(); err != nil { // the test's context has ended
			t.Errorf("%v: %s", err, out)
		}
	})
	entries, err := os.ReadDir(mount)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	got, err := os.ReadFile(filepath.Join(mount, names[len(names)-1])) // one file for each of the chain, the child last
	must(t, err)
	wantBytes(t, "through libvhdi", got, model)
}
