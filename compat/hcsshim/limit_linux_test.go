package hcsshim_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
)

// TestSizeLimit has a container fill its layer, which grows under it then.
func TestSizeLimit(t *testing.T) {
	layer := calls{home(t), "scratch"}
	testenv.NeedKernel(t, testenv.LoopDevices)
	testenv.NeedCommand(t, "mkfs.xfs")
	const size = 340 << 20
	check(t, layer.create())
	check(t, hcsshim.ExpandSandboxSize(layer.DriverInfo, layer.id, size))
	check(t, layer.activate())
	check(t, layer.prepare())
	mount, err := hcsshim.GetLayerMountPath(layer.DriverInfo, layer.id)
	check(t, err)
	f, err := os.Create(filepath.Join(mount, "big"))
	check(t, err)
	piece := make([]byte, 8<<20)
	for err == nil {
		_, err = f.Write(piece)
	}
	if at, _ := f.Seek(0, 1); !errors.Is(err, syscall.ENOSPC) || at > size {
		t.Fatalf("after %d bytes: %v", at, err)
	}
	check(t, hcsshim.ExpandSandboxSize(layer.DriverInfo, layer.id, size/2)) // it has that
	if _, err := f.Write(piece); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("it grew: %v", err)
	}
	check(t, hcsshim.ExpandScratchSize(layer.DriverInfo, layer.id, 2*size))
	_, err = f.Write(piece)
	check(t, errors.Join(err, f.Close()))
	check(t, down(layer.DriverInfo, layer.id))
	check(t, layer.destroy())
}
