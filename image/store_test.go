package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

const (
	childSource = "HCS_TEST_LOAD_SOURCE"
	childStore  = "HCS_TEST_LOAD_STORE"
	childHang   = "HCS_TEST_LOAD_HANG"
	childTarget = "HCS_TEST_ARCHIVE"
)

// TestMain is also the other process of tests that need one: it loads an
// image, or begins to and waits to be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childSource); dir != "" {
		if err := child(dir, os.Getenv(childStore)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(dir, store string) error {
	ctx := context.Background()
	src, img, err := image.OpenImage(ctx, image.Ref{Transport: "oci", Path: dir, Tag: "x"}, v1.Platform{})
	if err != nil {
		return err
	}
	if target := os.Getenv(childTarget); target != "" {
		return hangWriting(ctx, src, img, target)
	}
	s, err := image.OpenStore(store)
	if err != nil {
		return err
	}
	opts := image.LoadOptions{}
	if os.Getenv(childHang) != "" {
		opts.OnLayer = hang
	}
	_, err = s.Load(ctx, src, img, "x", opts)
	return err
}

// hangWriting writes an archive but for its end, says so, and waits for its death.
func hangWriting(ctx context.Context, src image.Source, img *image.Image, file string) error {
	t, err := image.Create(ctx, image.Ref{Transport: image.TransportDockerArchive, Path: file})
	if err != nil {
		return err
	}
	if err := t.Add(ctx, src, img, "name"); err != nil {
		return err
	}
	fmt.Println("half way")
	testenv.AwaitKill()
	return nil
}

// hang reads half of a layer, says so, and waits for its death.
func hang(_ context.Context, _ int, _ digest.Digest, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
		return err
	}
	fmt.Println("half way")
	testenv.AwaitKill()
	return nil
}

func reexec(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

func plainLoad(*testing.T) image.LoadOptions { return image.LoadOptions{} }

// unpackLoad reads each layer whole, and twice.
func unpackLoad(t *testing.T) image.LoadOptions {
	return image.LoadOptions{OnLayer: func(_ context.Context, i int, id digest.Digest, open func() (io.ReadCloser, error)) error {
		for range 2 {
			r, err := open()
			if err != nil {
				return err
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil {
				return err
			}
			if err := r.Close(); err != nil {
				return err
			}
			if n == 0 || id == "" {
				t.Errorf("layer %d, %s: %d bytes", i, id, n)
			}
		}
		return nil
	}}
}

// lazyLoad opens each layer and reads a little of it.
func lazyLoad(*testing.T) image.LoadOptions {
	return image.LoadOptions{OnLayer: func(_ context.Context, _ int, _ digest.Digest, open func() (io.ReadCloser, error)) error {
		r, err := open()
		if err != nil {
			return err
		}
		_, err = io.ReadFull(r, make([]byte, 10))
		return errors.Join(err, r.Close())
	}}
}

func files(t testing.TB, s *image.Store) []string {
	t.Helper()
	var list []string
	must(t, filepath.WalkDir(s.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, s.Dir()+"/"))
		}
		return err
	}))
	return list
}

func isEmpty(t testing.TB, s *image.Store) {
	t.Helper()
	if d := cmp.Diff([]string{"index.json", "oci-layout"}, files(t, s)); d != "" {
		t.Errorf("the store's files (-want +got):\n%s", d)
	}
	if images, err := s.Images(t.Context()); len(images) > 0 || err != nil {
		t.Errorf("the store has %d images, %v", len(images), err)
	}
}

func holds(t testing.TB, s *image.Store, img *image.Image, name string) {
	t.Helper()
	got, err := s.Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID() != img.ID() || got.Descriptor.Digest != img.Descriptor.Digest {
		t.Errorf("%s is %s, want %s", name, got.ID(), img.ID())
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(s.Dir() + "/.hcs-tmp/*"); left != nil {
		t.Errorf("left temporary files %q", left)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 900_000, 20, 300), "x"))
	for _, opts := range []func(*testing.T) image.LoadOptions{plainLoad, unpackLoad, lazyLoad} {
		src, img := open(t, l.ref("x"))
		s := newStore(t)
		o := opts(t)
		var done atomic.Int64
		o.Progress = func(p image.Progress) {
			if p.Done == p.Total {
				done.Add(1)
			}
		}
		for range 2 {
			if _, err := s.Load(t.Context(), src, img, "docker.io/library/x", o); err != nil {
				t.Fatal(err)
			}
		}
		holds(t, s, img, "x")
		if done.Load() < 4 {
			t.Errorf("%d layers were reported complete, want 4", done.Load())
		}
	}
}

func TestLoadFailsWithOnLayer(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 900_000), "x"))
	src, img := open(t, l.ref("x"))
	s := newStore(t)
	broken := errors.New("broken")
	_, err := s.Load(t.Context(), src, img, "x", image.LoadOptions{OnLayer: func(_ context.Context, i int, _ digest.Digest, open func() (io.ReadCloser, error)) error {
		if _, err := open(); err != nil || i == 0 {
			return err
		}
		return broken
	}})
	if !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
	isEmpty(t, s)
}

func TestLoadIsCancelled(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 900_000), "x"))
	src, img := open(t, l.ref("x"))
	s := newStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no longer wanted")
	_, err := s.Load(ctx, src, img, "x", image.LoadOptions{OnLayer: func(_ context.Context, _ int, _ digest.Digest, open func() (io.ReadCloser, error)) error {
		r, err := open()
		if err != nil {
			return err
		}
		cancel(cause)
		_, err = io.Copy(io.Discard, r)
		return err
	}})
	if !errors.Is(err, cause) {
		t.Errorf("error is %v", err)
	}
	isEmpty(t, s)
}

func TestLoadByManyAtOnce(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 4<<20, 20, 300), "x"))
	src, img := open(t, l.ref("x"))
	s := newStore(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			opts := []func(*testing.T) image.LoadOptions{plainLoad, unpackLoad, lazyLoad}[i%3](t)
			if _, err := s.Load(t.Context(), src, img, "x", opts); err != nil {
				t.Error(err)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			if out, err := reexec(t, childSource+"="+l.dir, childStore+"="+s.Dir()).Output(); err != nil {
				t.Errorf("another process: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	holds(t, s, img, "x")
}

func TestLoadIsKilled(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 5<<20), "x"))
	src, img := open(t, l.ref("x"))
	s := newStore(t)
	cmd := reexec(t, childSource+"="+l.dir, childStore+"="+s.Dir(), childHang+"=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line := make([]byte, 8); true {
		_, err = io.ReadFull(out, line)
		must(t, err)
	}
	removed, err := s.Prune(t.Context(), image.PruneOptions{})
	if err != nil || removed.Temps != 0 || !removed.Deferred {
		t.Errorf("prune while somebody loads: %+v, %v", removed, err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if left, _ := filepath.Glob(s.Dir() + "/.hcs-tmp/*"); len(left) != 1 {
		t.Errorf("the dead process left %q, want one file", left)
	}
	removed, err = s.Prune(t.Context(), image.PruneOptions{})
	if err != nil || removed.Temps != 1 || removed.Deferred {
		t.Errorf("prune: %+v, %v", removed, err)
	}
	isEmpty(t, s)
	if _, err := s.Load(t.Context(), src, img, "x", image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	holds(t, s, img, "x")
}

func TestLoadOntoAFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 3<<20), "x"))
	src, img := open(t, l.ref("x"))
	for _, opts := range []func(*testing.T) image.LoadOptions{plainLoad, unpackLoad, lazyLoad} {
		dir := t.TempDir()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "none", dir).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v\n%s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		})
		s, err := image.OpenStore(dir + "/store")
		must(t, err)
		_, err = s.Load(t.Context(), src, img, "x", opts(t))
		if err == nil || !strings.Contains(err.Error(), "no space left on device") || strings.Contains(err.Error(), "\n") {
			t.Errorf("error is %v, want one line about the full disk", err)
		}
		isEmpty(t, s)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := newLayout(t)
	a, b := l.image(host(), 10, 20), l.image(host(), 10, 30)
	l.index(tagged(a, "a"), tagged(b, "b"))
	s := newStore(t)
	load := func(tag, name string) *image.Image {
		src, img := open(t, l.ref(tag))
		got, err := s.Load(ctx, src, img, name, image.LoadOptions{})
		must(t, err)
		return got
	}
	first := load("a", "one")
	must(t, s.Tag(ctx, "one", "two:2"))
	for _, name := range []string{
		"one", "one:latest", "docker.io/library/one", "two:2", "one@" + string(a.Digest), "one:latest@" + string(a.Digest),
		string(a.Digest), string(first.ID()), first.ID().Encoded()[:12], a.Digest.Encoded()[:12],
	} {
		holds(t, s, first, name)
	}
	for name, class := range map[string]error{
		"two": errdefs.ErrNotFound, "nope": errdefs.ErrNotFound, "two:2@" + string(b.Digest): errdefs.ErrNotFound,
		"BAD": errdefs.ErrInvalidArgument, "oci:x": errdefs.ErrInvalidArgument, string(b.Digest): errdefs.ErrNotFound,
	} {
		if _, err := s.Image(ctx, name); !errors.Is(err, class) {
			t.Errorf("image %s: %v, want %v", name, err, class)
		}
	}
	if _, err := s.Remove(ctx, string(first.ID())); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("remove by an ID with two names: %v", err)
	}
	second := load("b", "one")
	removed, err := s.Remove(ctx, "two:2")
	if err != nil || len(removed.Images) != 1 || len(removed.Blobs) != 3 {
		t.Errorf("remove two:2: %+v, %v; want its manifest, its config, and one layer gone", removed, err)
	}
	holds(t, s, second, "one")
	load("a", "one")
	holds(t, s, second, string(second.ID()))
	kept, err := s.Prune(ctx, image.PruneOptions{Keep: []digest.Digest{second.ID()}})
	if err != nil || len(kept.Images) != 0 {
		t.Errorf("prune with a container: %+v, %v", kept, err)
	}
	pruned, err := s.Prune(ctx, image.PruneOptions{})
	if err != nil || !slices.Equal(pruned.Images, []digest.Digest{b.Digest}) {
		t.Errorf("prune: %+v, %v", pruned, err)
	}
	holds(t, s, first, "one")
	if _, err := s.Remove(ctx, first.ID().Encoded()[:10]); err != nil {
		t.Error(err)
	}
	isEmpty(t, s)
}

// TestSameConfiguration has several manifests with one configuration, as of
// layers that are compressed in other ways: an ID stands for one, always the
// same.
func TestSameConfiguration(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := newLayout(t)
	p := l.parts(host(), layerTar(t, "x", 10))
	tags := []string{"c", "a", "b"}
	var list []v1.Descriptor
	for _, tag := range tags {
		p.manifest.Annotations = map[string]string{"like": tag}
		list = append(list, tagged(l.write(p), tag))
	}
	other := l.image(host(), 10, 20)
	l.index(append(list, tagged(other, "d"))...)
	s := newStore(t)
	var images []*image.Image
	for _, tag := range append(tags, "d") {
		src, img := open(t, l.ref(tag))
		img, err := s.Load(ctx, src, img, tag, image.LoadOptions{})
		must(t, err)
		images = append(images, img)
	}
	id := string(images[0].ID())
	holds(t, s, images[1], id) // that of the first name
	holds(t, s, images[1], id[len("sha256:"):][:12])
	holds(t, s, images[0], list[0].Digest.String())
	if _, err := s.Remove(ctx, id); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("remove by an ID of three: %v", err)
	}
	must(t, s.Tag(ctx, id, "another"))
	holds(t, s, images[1], "another")
	for _, name := range []string{"a", "another"} {
		_, err := s.Remove(ctx, name)
		must(t, err)
	}
	holds(t, s, images[2], id)
	src, img := open(t, l.ref("d"))
	_, err := s.Load(ctx, src, img, "b", image.LoadOptions{}) // takes the name away
	must(t, err)
	holds(t, s, images[0], id)
}

func TestVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 10_000), "x"))
	src, img := open(t, l.ref("x"))
	s := newStore(t)
	_, err := s.Load(t.Context(), src, img, "x", image.LoadOptions{})
	must(t, err)
	d := img.Manifest.Layers[0]
	must(t, os.WriteFile(filepath.Join(s.Dir(), blobFile(d.Digest)), make([]byte, d.Size), 0o644))
	if err := s.Verify(t.Context()); !errors.Is(err, errdefs.ErrDataLoss) || !strings.Contains(err.Error(), string(d.Digest)) {
		t.Errorf("verify: %v", err)
	}
}

func TestCommit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newStore(t)
	base, err := s.Build(ctx, "base", v1.Image{Config: v1.ImageConfig{Cmd: []string{"a"}}}, image.Change{Layer: bytes.NewReader(layerTar(t, "a", 100))})
	must(t, err)
	raw := strings.Replace(string(base.RawConfig), `"config":{`, `"config":{"Healthcheck":{"Test":["NONE"]},`, 1)
	base.RawConfig = []byte(strings.Replace(raw, `{`, `{"docker_version":"1",`, 1))
	added := layerTar(t, "b", 5000)
	when := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	img, err := s.Commit(ctx, base, "next", image.Change{
		WriteLayer: func(w io.Writer) error { _, err := w.Write(zip(t, added)); return err },
		History:    v1.History{Created: &when, Comment: "more"},
		Edit:       func(c *v1.Image) { c.Config.Cmd = nil; c.Config.Env = []string{"A=b"} },
	})
	must(t, err)
	holds(t, s, img, "next")
	for _, want := range []string{`"Healthcheck":{"Test":["NONE"]}`, `"docker_version":"1"`, `"Env":["A=b"]`, `"comment":"more"`} {
		if !bytes.Contains(img.RawConfig, []byte(want)) {
			t.Errorf("the configuration lacks %s: %s", want, img.RawConfig)
		}
	}
	if bytes.Contains(img.RawConfig, []byte(`"Cmd"`)) || base.Config.Config.Cmd == nil {
		t.Errorf("the command is still there, or gone from the base: %s", img.RawConfig)
	}
	if want := append(slices.Clone(base.DiffIDs()), digest.FromBytes(added)); !slices.Equal(img.DiffIDs(), want) {
		t.Errorf("diffIDs are %s, want %s", img.DiffIDs(), want)
	}
	if got := img.Manifest.Layers[1].MediaType; got != v1.MediaTypeImageLayerGzip {
		t.Errorf("the layer's media type is %s", got)
	}
	broken := errors.New("broken")
	_, err = s.Commit(ctx, img, "never", image.Change{WriteLayer: func(io.Writer) error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("commit of a layer that fails: %v", err)
	}
	if _, err := s.Image(ctx, "never"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the image that failed: %v", err)
	}
	holds(t, s, img, "next")
}

func BenchmarkImage(b *testing.B) {
	l := newLayout(b)
	l.index(tagged(l.image(host(), 10, 20, 30, 40, 50), "x"))
	src, img := open(b, l.ref("x"))
	s := newStore(b)
	for i := range 50 {
		if _, err := s.Load(b.Context(), src, img, fmt.Sprintf("x:%d", i), image.LoadOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		s, err := image.OpenStore(s.Dir())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Image(b.Context(), "x:40"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	l := newLayout(b)
	l.index(tagged(l.image(host(), 64<<20), "x"))
	src, img := open(b, l.ref("x"))
	b.SetBytes(img.Size())
	for b.Loop() {
		s := newStore(b)
		if _, err := s.Load(b.Context(), src, img, "x", image.LoadOptions{}); err != nil {
			b.Fatal(err)
		}
		must(b, os.RemoveAll(s.Dir()))
	}
}
