package hcs_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// newHost returns a host of the test's own and the place of a busybox image.
func newHost(t *testing.T) (*hcs.Host, string) {
	t.Helper()
	bin := testenv.Programs(t)
	dir := t.TempDir()
	cgroup := "/hcs-test-" + filepath.Base(filepath.Dir(dir))
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Children: true, Cgroup: cgroup, Settles: true})
	h, err := hcs.Open(hcs.Config{
		Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Libexec: bin, CgroupParent: cgroup,
	})
	must(t, err)
	t.Cleanup(func() {
		ctx := context.Background()
		systems, err := h.Containers().Systems(ctx)
		must(t, err)
		for _, s := range systems {
			must(t, s.Terminate(ctx))
		}
		_, err = h.Prune(ctx)
		must(t, err)
	})
	return h, "oci:" + testenv.Image(t, "busybox")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a script in a new container of the image, and returns its output
// and the container.
func run(t *testing.T, h *hcs.Host, ref, script string) (string, *container.System) {
	t.Helper()
	ctx := t.Context()
	c, err := h.Create(ctx, hcs.Spec{Image: ref, Command: image.Overrides{Args: []string{"sh", "-c", script}}})
	must(t, err)
	must(t, c.Start(ctx))
	var out bytes.Buffer
	spec := *c.Record().Spec.Main
	spec.Role, spec.Stdout, spec.Stderr = container.Main, &out, &out
	p, err := c.CreateProcess(ctx, &spec)
	must(t, err)
	status, err := p.Wait(ctx)
	must(t, err)
	if status.Code != 0 {
		t.Fatalf("%s: exit status %d: %s", script, status.Code, out.String())
	}
	return strings.TrimSpace(out.String()), c
}

func TestImageToContainerToImage(t *testing.T) {
	h, busybox := newHost(t)
	ctx := t.Context()
	base, err := h.Load(ctx, busybox, hcs.LoadOptions{Name: "busybox"})
	must(t, err)
	if base.Name != "busybox:latest" {
		t.Errorf("name %q", base.Name)
	}
	_, c := run(t, h, "busybox", "echo content > /new; rm /bin/wget; mkdir /etc/d; echo x > /etc/d/f")
	img, err := h.Commit(ctx, c, hcs.CommitOptions{Name: "changed", Comment: "as a test", Edit: func(i *v1.Image) {
		i.Config.Env = append(i.Config.Env, "COLOUR=green")
	}})
	must(t, err)
	if len(img.DiffIDs()) != len(base.DiffIDs())+1 || img.DiffIDs()[0] != base.DiffIDs()[0] {
		t.Errorf("layers %v on %v", img.DiffIDs(), base.DiffIDs())
	}
	if got, _ := run(t, h, "changed", "cat /new /etc/d/f; echo $COLOUR; ls /bin/wget 2>/dev/null || echo gone"); got != "content\nx\ngreen\ngone" {
		t.Errorf("got %q", got)
	}
	if _, err := h.RemoveImage(ctx, "changed"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "container") {
		t.Errorf("remove an image in use: %v", err)
	}
	must(t, c.Delete(ctx))
}

func TestSaveAndLoad(t *testing.T) {
	h, busybox := newHost(t)
	ctx := t.Context()
	img, err := h.Load(ctx, busybox, hcs.LoadOptions{Name: "busybox"})
	must(t, err)
	dir := t.TempDir()
	for i, place := range []string{"oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/a.tar:v1", "docker-archive:" + dir + "/d.tar:box:1"} {
		must(t, h.Save(ctx, "busybox", place))
		other, _ := newHost(t)
		back, err := other.Load(ctx, place, hcs.LoadOptions{})
		must(t, err)
		if back.ID() != img.ID() || back.Name != []string{"layout:v1", "a:v1", "box:1"}[i] {
			t.Errorf("%s: %s %q, want %s", place, back.ID(), back.Name, img.ID())
		}
		if got, _ := run(t, other, back.Name, "echo fine"); got != "fine" {
			t.Errorf("%s: %q", place, got)
		}
	}
}

// TestTwentyAtOnce starts as many containers of an image that nobody has
// loaded yet: it is unpacked once.
func TestTwentyAtOnce(t *testing.T) {
	h, busybox := newHost(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, _ := run(t, h, busybox, "echo fine"); got != "fine" {
				t.Errorf("got %q", got)
			}
		})
	}
	wg.Wait()
	layers, err := h.Layers().Layers()
	must(t, err)
	if len(layers) != 1 {
		t.Errorf("%d layers", len(layers))
	}
}

func TestPruneLeavesNothing(t *testing.T) {
	h, busybox := newHost(t)
	ctx := t.Context()
	_, err := h.Load(ctx, busybox, hcs.LoadOptions{Name: "busybox"})
	must(t, err)
	_, c := run(t, h, "busybox", "true")
	_, err = h.Commit(ctx, c, hcs.CommitOptions{})
	must(t, err)
	p, err := h.Prune(ctx)
	must(t, err)
	if len(p.Containers.Containers) != 1 || len(p.Images.Images) != 1 || len(p.Layers.Layers) != 1 {
		t.Errorf("pruned %+v", p)
	}
	_, err = h.RemoveImage(ctx, "busybox")
	must(t, err)
	if layers, err := h.Layers().Layers(); err != nil || len(layers) != 0 {
		t.Errorf("layers left: %v, %v", layers, err)
	}
	must(t, filepath.WalkDir(h.Config().Root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.Contains(path, "index.json") && d.Name() != "oci-layout" &&
			!strings.Contains(path, "/.") && !strings.Contains(path, "/root/events/") { // what happened has happened
			t.Errorf("left: %s", path)
		}
		return err
	}))
}

func TestWhatCannotBeMade(t *testing.T) {
	h, busybox := newHost(t)
	for _, tt := range []struct {
		name  string
		spec  hcs.Spec
		class error
		text  string
	}{
		{"no such image", hcs.Spec{Image: "nope"}, errdefs.ErrNotFound, "nope"},
		{"no such layout", hcs.Spec{Image: "oci:/no/such/dir"}, errdefs.ErrNotFound, "/no/such/dir"},
		{"no such tag", hcs.Spec{Image: busybox + ":nope"}, errdefs.ErrNotFound, "nope"},
		{"neither image nor directory", hcs.Spec{}, errdefs.ErrInvalidArgument, "layers or a root directory"},
		{"relative directory", hcs.Spec{Image: busybox, Command: image.Overrides{Cwd: "tmp"}}, errdefs.ErrInvalidArgument, "tmp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Create(t.Context(), tt.spec)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
	if systems, err := h.Containers().Systems(t.Context()); err != nil || len(systems) != 0 {
		t.Errorf("left: %v, %v", systems, err)
	}
}
