package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/sys"
)

// volume is a directory that somebody prepared for a system to write to: the
// mount of a scratch layer over busybox. The second result is where it keeps
// what is written.
func (f *fixture) volume() (dir, upper string) {
	f.t.Helper()
	layer, err := f.config.Layers.Layer(f.layers[0])
	f.must(err)
	dir, scratch := f.t.TempDir(), f.t.TempDir()
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	f.must(errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)))
	f.must(sys.MountOverlay(sys.Overlay{Lower: []string{layer.Path()}, Upper: upper, Work: work, Target: dir}))
	f.t.Cleanup(func() { f.check(sys.Unmount(dir)) })
	return dir, upper
}

// TestWriteInPlace has what a system writes in its root directory itself,
// which is a mount, as a scratch layer's is, and stays as it is when the system
// goes.
func TestWriteInPlace(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		root, upper := f.volume()
		for _, ephemeral := range []bool{false, true} {
			s := f.running(container.Spec{RootDir: root, WriteInPlace: true, Ephemeral: ephemeral})
			f.ok(s, "echo inside >> /mark; rm -f /bin/wc; mkdir -p /made")
			if _, err := s.Scratch(); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), root) {
				t.Errorf("scratch: %v", err)
			}
			f.must(s.Terminate(ctx))
			if !ephemeral {
				f.must(s.Delete(ctx))
			}
		}
		if text, err := os.ReadFile(filepath.Join(upper, "mark")); err != nil || string(text) != "inside\ninside\n" {
			t.Errorf("what it wrote: %q, %v", text, err)
		}
		if _, err := os.Lstat(filepath.Join(root, "bin/wc")); !os.IsNotExist(err) {
			t.Errorf("what it removed: %v", err)
		}
		scratches, err := f.config.Layers.Scratches()
		if err != nil || len(scratches) != 0 {
			t.Errorf("%d scratch layers, %v; want none", len(scratches), err)
		}
	})
}

// TestReadOnlyInPlace takes the two together.
func TestReadOnlyInPlace(t *testing.T) {
	f := newFixture(t)
	root, _ := f.volume()
	s := f.running(container.Spec{RootDir: root, WriteInPlace: true, ReadOnly: true})
	if r := f.run(s, "echo x > /mark"); r.Code == 0 {
		t.Error("it wrote")
	}
	if _, err := os.Lstat(filepath.Join(root, "mark")); !os.IsNotExist(err) {
		t.Error("it is there")
	}
	f.must(s.Terminate(t.Context()))
}

// TestInPlaceIsShared has two systems on one directory, one of them pruned after
// its shim was killed: the other's files are nobody's to remove.
func TestInPlaceIsShared(t *testing.T) {
	f := newFixture(t)
	root, _ := f.volume()
	one := f.running(container.Spec{RootDir: root, WriteInPlace: true})
	two := f.running(container.Spec{RootDir: root, WriteInPlace: true})
	f.ok(one, "echo one > /shared")
	if got := f.ok(two, "cat /shared"); got != "one" {
		t.Errorf("the other sees %q", got)
	}
	st, err := one.Status(t.Context())
	f.must(err)
	p, err := os.FindProcess(st.ShimPid)
	f.must(err)
	f.must(p.Kill())
	f.gone(st.Pid)
	_, err = f.Prune(t.Context())
	f.must(err)
	if got := f.ok(two, "cat /shared"); got != "one" {
		t.Errorf("after the first was pruned: %q", got)
	}
}
