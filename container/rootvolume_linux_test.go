package container_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/rootfs"
)

// TestRootVolumeOfTheKilled kills programs that have mounted a volume for a
// system, before and after they have started it: Prune takes both down, but not
// as long as the program lives, and not a system that runs.
func TestRootVolumeOfTheKilled(t *testing.T) {
	f := newFixture(t)
	dir, lower := filepath.Join(f.dir, "volume"), f.extracted()
	v, err := rootfs.CreateVolume(t.Context(), dir)
	f.must(err)
	expect := func(mounted bool, systems int) {
		t.Helper()
		state, err := v.State()
		f.must(err)
		list, err := f.Systems(t.Context())
		f.must(err)
		if state.Active != mounted || state.Prepared != mounted || len(list) != systems {
			t.Fatalf("%+v, %d systems; want it mounted: %t, %d systems", state, len(list), mounted, systems)
		}
	}
	prune := func() {
		t.Helper()
		_, err := f.Prune(t.Context())
		f.must(err)
	}
	for _, started := range []bool{false, true} {
		cmd, _ := f.program(programOrder{Start: started, Volume: &volumeOrder{dir, lower}})
		prune()
		expect(true, 1)
		f.killProgram(cmd)
		if started {
			prune()
			expect(true, 1)
			list, err := f.Systems(t.Context())
			f.must(err)
			f.must(list[0].Terminate(t.Context()))
		}
		prune()
		expect(false, 0)
	}
}

// extracted returns the directory of the layer.
func (f *fixture) extracted() string {
	f.t.Helper()
	l, err := f.config.Layers.Layer(f.layers[0])
	f.must(err)
	return l.Path()
}

// TestRootVolumeInUse has somebody in the volume's tree: the system stays until
// he has gone.
func TestRootVolumeInUse(t *testing.T) {
	f := newFixture(t)
	dir, lower := filepath.Join(f.dir, "volume"), f.extracted()
	v, err := rootfs.CreateVolume(t.Context(), dir)
	f.must(err)
	s, err := (&volumeOrder{dir, lower}).create(t.Context(), f.Service)
	f.must(err)
	file, err := os.Create(filepath.Join(v.Root(), "file"))
	f.must(err)
	if err := s.Delete(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("deleted while its volume is in use: %v", err)
	}
	f.must(file.Close())
	f.must(s.Delete(t.Context()))
	if state, err := v.State(); err != nil || state.Active {
		t.Errorf("%+v, %v", state, err)
	}
	for _, spec := range []container.Spec{
		{RootDir: dir, RootVolume: &container.RootVolume{Dir: dir}},
		{RootDir: dir, WriteInPlace: true, Ephemeral: true, RootVolume: &container.RootVolume{Dir: dir}},
		{RootDir: dir, WriteInPlace: true, RootVolume: &container.RootVolume{Dir: "volume"}},
	} {
		if _, err := f.Create(t.Context(), spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
}
