package hcsshim_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
)

// home makes a directory for layers with a base layer "base" in it, which has one file.
func home(t *testing.T) hcsshim.DriverInfo {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	dir := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Settles: true})
	files := filepath.Join(dir, "base", "Files")
	check(t, os.MkdirAll(files, 0o755))
	check(t, os.WriteFile(filepath.Join(files, "license.txt"), []byte("MIT"), 0o600))
	return hcsshim.DriverInfo{HomeDir: dir}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (i calls) parents() []string { return []string{filepath.Join(i.HomeDir, "base")} }

// calls are the calls on one layer.
type calls struct {
	hcsshim.DriverInfo
	id string
}

func (i calls) create() error {
	return hcsshim.CreateSandboxLayer(i.DriverInfo, i.id, i.parents()[0], i.parents())
}
func (i calls) activate() error   { return hcsshim.ActivateLayer(i.DriverInfo, i.id) }
func (i calls) prepare() error    { return hcsshim.PrepareLayer(i.DriverInfo, i.id, i.parents()) }
func (i calls) unprepare() error  { return hcsshim.UnprepareLayer(i.DriverInfo, i.id) }
func (i calls) deactivate() error { return hcsshim.DeactivateLayer(i.DriverInfo, i.id) }
func (i calls) destroy() error    { return hcsshim.DestroyLayer(i.DriverInfo, i.id) }
func (i calls) base() error       { return hcsshim.DestroyLayer(i.DriverInfo, "base") }
func (i calls) expand() error     { return hcsshim.ExpandSandboxSize(i.DriverInfo, i.id, 1) }
func (i calls) read() error {
	r, err := hcsshim.NewLayerReader(i.DriverInfo, i.id, i.parents())
	if err != nil {
		return err
	}
	return r.Close()
}

// TestOutOfOrder is the table of what calls at the wrong moment return. Codes of the rows that say so are those that Windows
// is known to return; the others are this project's choice.
func TestOutOfOrder(t *testing.T) {
	type call struct {
		name string
		do   func(calls) error
		want syscall.Errno // 0 is success
	}
	var (
		create, activate, prepare       = calls.create, calls.activate, calls.prepare
		unprepare, deactivate, destroy  = calls.unprepare, calls.deactivate, calls.destroy
		up, unprepared, notReady, inUse = []call{{"activate", activate, 0}, {"prepare", prepare, 0}}, notPrepared, syscall.Errno(0x15), syscall.Errno(0x20)
	)
	for _, c := range []struct {
		name  string
		calls []call
	}{
		{"known: unprepare of a layer that is not active", []call{{"unprepare", unprepare, notActive}}},
		{"known: unprepare of an active layer", []call{{"activate", activate, 0}, {"unprepare", unprepare, unprepared}}},
		{"known: unprepare twice", append(slices.Clone(up), call{"unprepare", unprepare, 0}, call{"again", unprepare, unprepared})},
		{"known: deactivate of a layer that is not active", []call{{"deactivate", deactivate, 0}}},
		{"known: base of a prepared layer", append(slices.Clone(up), call{"destroy", calls.base, inUse})},
		{"destroy of an active layer", []call{{"activate", activate, 0}, {"destroy", destroy, inUse}}},
		{"destroy of a prepared layer", append(slices.Clone(up), call{"destroy", destroy, inUse})},
		{"prepare of a layer that is not active", []call{{"prepare", prepare, notReady}}},
		{"read of a layer that is not active", []call{{"read", calls.read, notReady}}},
		{"read of an active layer", []call{{"activate", activate, 0}, {"read", calls.read, 0}}},
		{"read of a prepared layer", append(slices.Clone(up), call{"read", calls.read, 0x139f}, call{"unprepare", unprepare, 0}, call{"again", calls.read, 0})},
		{"read of nothing", []call{{"destroy", destroy, 0}, {"read", calls.read, 0x3}}},
		{"activate twice", []call{{"activate", activate, 0}, {"again", activate, 0}}},
		{"prepare twice", append(slices.Clone(up), call{"again", prepare, 0})},
		{"deactivate of a prepared layer", append(slices.Clone(up), call{"deactivate", deactivate, 0x139f})},
		{"create twice", []call{{"create", create, 0xb7}}},
		{"expand of an active layer without limit", []call{{"activate", activate, 0}, {"expand", calls.expand, 0x139f}}},
		{"destroy twice", []call{{"destroy", destroy, 0}, {"again", destroy, 0}}},
		{"activate of nothing", []call{{"destroy", destroy, 0}, {"activate", activate, 0x3}}},
		{"prepare of nothing", []call{{"destroy", destroy, 0}, {"prepare", prepare, 0x3}}},
		{"unprepare of nothing", []call{{"destroy", destroy, 0}, {"unprepare", unprepare, 0x3}}},
		{"deactivate of nothing", []call{{"destroy", destroy, 0}, {"deactivate", deactivate, 0x3}}},
		{"expand of nothing", []call{{"destroy", destroy, 0}, {"expand", calls.expand, 0x3}}},
		{"without its base", []call{{"activate", activate, 0}, {"base", calls.base, 0}, {"prepare", prepare, 0x3}}},
		{"create without base", []call{{"destroy", destroy, 0}, {"base", calls.base, 0}, {"create", create, 0x3}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			layer := calls{home(t), "scratch"}
			check(t, layer.create())
			for _, call := range c.calls {
				err := call.do(layer)
				if got := code(err); got != call.want || (err == nil) != (call.want == 0) {
					t.Errorf("%s: %v, want code %#x", call.name, err, uintptr(call.want))
				}
				if call.want != 0 && !errors.Is(err, call.want) {
					t.Errorf("%s: the error does not unwrap to its code: %v", call.name, err)
				}
			}
			_ = layer.unprepare() // may be so already
			check(t, os.MkdirAll(filepath.Join(layer.HomeDir, "scratch"), 0o700))
			check(t, layer.deactivate())
		})
	}
}

// TestReadOnlyLayer calls everything of a base layer, which containerd mounts as it is.
func TestReadOnlyLayer(t *testing.T) {
	info := home(t)
	check(t, hcsshim.ActivateLayer(info, "base"))
	check(t, hcsshim.PrepareLayer(info, "base", nil))
	path, err := hcsshim.GetLayerMountPath(info, "base")
	check(t, err)
	if b, err := os.ReadFile(filepath.Join(path, "Files", "license.txt")); err != nil || string(b) != "MIT" {
		t.Errorf("read %q, %v", b, err)
	}
	check(t, hcsshim.UnprepareLayer(info, "base"))
	check(t, hcsshim.DeactivateLayer(info, "base"))
}

func TestLayerExists(t *testing.T) {
	t.Parallel()
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	for i, want := range []bool{false, true, false} {
		if got, err := hcsshim.LayerExists(info, "x"); err != nil || got != want {
			t.Errorf("step %d: %t, %v", i, got, err)
		}
		switch i {
		case 0:
			check(t, hcsshim.CreateLayer(info, "x", ""))
			if err := hcsshim.CreateLayer(info, "x", ""); code(err) != 0xb7 {
				t.Errorf("created twice: %v", err)
			}
		case 1:
			check(t, hcsshim.DestroyLayer(info, "x"))
		}
	}
	if err := hcsshim.CreateLayer(info, "no/x", ""); code(err) != 3 {
		t.Errorf("created without a home: %v", err)
	}
}

// TestContainerdScratch is a scratch layer as containerd's snapshotter makes it: a copy of the base's blank disk.
func TestContainerdScratch(t *testing.T) {
	layer := calls{home(t), "1"}
	check(t, os.Mkdir(filepath.Join(layer.HomeDir, "1"), 0o700))
	check(t, os.WriteFile(filepath.Join(layer.HomeDir, "1", "sandbox.vhdx"), nil, 0o600))
	check(t, layer.activate())
	check(t, layer.prepare())
	path, err := hcsshim.GetLayerMountPath(layer.DriverInfo, layer.id)
	check(t, err)
	if _, err := os.Stat(filepath.Join(path, "license.txt")); err != nil {
		t.Error(err)
	}
	check(t, down(layer.DriverInfo, layer.id))
	check(t, down(layer.DriverInfo, layer.id))
	check(t, layer.destroy())
}

// TestProcesses has processes at layers of one base at once, and kills each of them some times, anywhere; whoever comes next
// finds a layer that it can take up and down, with all that was written.
func TestProcesses(t *testing.T) {
	info := home(t)
	var wg sync.WaitGroup
	for n := range 3 {
		layer := calls{info, fmt.Sprint("scratch-", n)}
		check(t, layer.create())
		wg.Go(func() {
			for round := range 6 {
				if err := killed(layer); err != nil {
					t.Error(err)
				}
				if err := written(layer, round); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(down(info, layer.id), layer.destroy()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// killed starts a process that takes the layer up and down, and kills it when it did that once.
func killed(layer calls) error {
	cmd := exec.Command(os.Args[0], append([]string{layer.HomeDir, layer.id}, layer.parents()...)...)
	cmd.Env = append(os.Environ(), helper+"=cycle")
	var said strings.Builder
	cmd.Stderr = &said
	cmd.Stdin = endless{}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(out, make([]byte, 2)); err != nil {
		return errors.Join(fmt.Errorf("the process ends: %w: %s", err, &said), cmd.Process.Kill(), cmd.Wait())
	}
	err = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return err
}

// endless is a standard input that always has a byte more.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "x"), nil }

// written takes the layer up, counts the files of former rounds and adds one.
func written(layer calls, round int) error {
	if err := up(layer.DriverInfo, layer.id, layer.parents()); err != nil {
		return err
	}
	path, err := hcsshim.GetLayerMountPath(layer.DriverInfo, layer.id)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(path)
	if err == nil && len(names) != 1+round {
		err = fmt.Errorf("round %d: %d names", round, len(names))
	}
	return errors.Join(err, os.WriteFile(filepath.Join(path, fmt.Sprint(round)), nil, 0o600), down(layer.DriverInfo, layer.id))
}
