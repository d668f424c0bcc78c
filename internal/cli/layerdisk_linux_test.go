package cli_test

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

// TestLayerDisk reads what "hcs layer export" put into a volume that is larger by now. It is not
// parallel because it looks for mounts that are left.
func TestLayerDisk(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "mkntfs")
	h := newHost(t)
	tar, name := filepath.Join(h.dir, "base.tar"), filepath.Join(h.dir, "base.vhdx")
	if err := writeLayer(tar, windowsLayers(t)["base.tar"]); err != nil {
		t.Fatal(err)
	}
	h.must("layer", "export", "--format", "vhdx", "--size", "64m", "-o", name, tar)
	testenv.NeedCommand(t, "ntfsresize")
	h.must("layer", "expand", "--size", "96m", name)
	d, err := disk.OpenFile(name, disk.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != 96<<20 {
		t.Errorf("the disk has %d bytes after it was expanded", d.Size())
	}
	got := ""
	err = disk.ReadNTFS(t.Context(), d, func(e *layer.Entry, r io.Reader) error {
		if e.Name != "Windows/other.ini" || // of the file's two names the first
			e.Kind != layer.File && e.Kind != layer.Stream {
			return nil
		}
		data, err := io.ReadAll(r)
		got += e.Stream + "=" + string(data) + ";"
		return err
	})
	if want := "=old\n;Zone.Identifier=zone;"; err != nil || got != want {
		t.Errorf("the volume has %q, %v; want %q", got, err, want)
	}
}

// TestLayerMounts runs the scripts on layers that are mounted. It is not
// parallel because it looks for mounts and loop devices that are left.
func TestLayerMounts(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.LoopDevices)
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Settles: true})
	t.Setenv("TMPDIR", dir) // the scripts' directories
	t.Run("scripts", func(t *testing.T) { layerScripts(t, "testdata/layerroot", dir) })
}
