package image_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 300_000, 0), "v1"))
	dir := t.TempDir()
	places := []image.Ref{
		l.ref("v1"),
		parse(t, "docker-archive:"+dir+"/d.tar:debian:12"),
		parse(t, "oci-archive:"+dir+"/o.tar:v2"),
		parse(t, "oci:"+dir+"/l:v3"),
	}
	_, first := open(t, places[0])
	for i, to := range places[1:] {
		src, img := open(t, places[i])
		if err := image.Copy(t.Context(), src, img, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, place := range places {
		src, img := open(t, place)
		if img.ID() != first.ID() || img.Descriptor.Digest != first.Descriptor.Digest {
			t.Errorf("%s: image %s, manifest %s; want %s and %s", place, img.ID(), img.Descriptor.Digest, first.ID(), first.Descriptor.Digest)
		}
		if d := cmp.Diff(first.DiffIDs(), img.DiffIDs()); d != "" {
			t.Errorf("%s: diffIDs (-want +got):\n%s", place, d)
		}
		for _, d := range img.Manifest.Layers {
			if _, err := readAll(t, src, d); err != nil {
				t.Errorf("%s: %v", place, err)
			}
		}
	}
}

func TestArchivesAreDeterministic(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 300_000), "v1"))
	src, img := open(t, l.ref("v1"))
	for _, transport := range []string{"oci-archive", "docker-archive"} {
		var made [][]byte
		for range 2 {
			file := filepath.Join(t.TempDir(), "x.tar")
			if err := image.Copy(t.Context(), src, img, parse(t, transport+":"+file+":a")); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, raw)
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); left != nil {
				t.Errorf("%s: left %q", transport, left)
			}
		}
		if !bytes.Equal(made[0], made[1]) {
			t.Errorf("%s: two archives of one image differ", transport)
		}
	}
}

// A docker archive of old: no layout in it, layers in directories of their
// own, one of them a link to another.
func TestLegacyDockerArchive(t *testing.T) {
	t.Parallel()
	layer := layerTar(t, "a", 5000)
	config := v1.Image{Platform: image.HostPlatform(), RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{
		digest.FromBytes(layer), digest.FromBytes(layer), digest.FromBytes(layer),
	}}}
	raw := marshal(t, config)
	name := digest.FromBytes(raw).Encoded() + ".json"
	contents := []tarFile{
		{name: "1/layer.tar", content: layer},
		{name: "2/layer.tar", link: "../1/layer.tar"},
		{name: "3/layer.tar", content: zip(t, layer)},
		{name: name, content: raw},
		{name: "manifest.json", content: []byte(`[{"Config":"` + name + `","RepoTags":["debian:12","x/y:z"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`)},
	}
	for _, compress := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "d.tar")
		made := makeTar(t, contents)
		if compress {
			made = zip(t, made)
		}
		if err := os.WriteFile(file, made, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"", ":debian:12", ":docker.io/x/y:z"} {
			src, img := open(t, parse(t, "docker-archive:"+file+tag))
			if img.ID() != digest.FromBytes(raw) {
				t.Errorf("%q: image %s, want %s", tag, img.ID(), digest.FromBytes(raw))
			}
			got, err := newStore(t).Load(t.Context(), src, img, "d", image.LoadOptions{})
			if err != nil || got.ID() != img.ID() {
				t.Errorf("%q: load: %v", tag, err)
			}
		}
		_, _, err := image.OpenImage(t.Context(), parse(t, "docker-archive:"+file+":debian:11"), v1.Platform{})
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("another tag: %v", err)
		}
	}
}

func TestTagsOfALayout(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	a, b := l.image("linux/amd64", 10), l.image("linux/arm64", 20)
	l.index(tagged(a, "12"), tagged(b, "latest"))
	src, img := open(t, l.ref("12"))
	to := parse(t, "oci:"+l.dir+":latest")
	if err := image.Copy(t.Context(), src, img, to); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"12", "latest"} {
		if _, img := open(t, l.ref(tag)); img.Descriptor.Digest != a.Digest {
			t.Errorf("tag %s leads to %s, want %s", tag, img.Descriptor.Digest, a.Digest)
		}
	}
	if _, err := os.Stat(filepath.Join(l.dir, ".hcs-tmp")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the layout has our temporary directory: %v", err)
	}
	_, _, err := image.OpenImage(t.Context(), l.ref("nope"), v1.Platform{})
	want := `image "oci:` + l.dir + `:nope": tag "nope" not found in layout ` + l.dir + ` (it has: 12, latest)`
	if err == nil || err.Error() != want || !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown tag: %v, want %s", err, want)
	}
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	all := map[string]v1.Descriptor{}
	var list []v1.Descriptor
	for _, p := range []string{"linux/amd64", "linux/amd64/v3", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "windows/amd64", "windows(10.0.20348.2227)/amd64", "windows(10.0.17763.1)/amd64"} {
		all[p] = l.image(p, 10)
		list = append(list, on(all[p], p))
	}
	bare := l.image("linux/s390x", 10) // its platform is in its configuration alone
	artifact := l.blob("application/x-other", []byte("other"))
	inner := l.json(v1.MediaTypeImageIndex, indexOf(append(list, bare, artifact)...))
	l.index(tagged(l.json(v1.MediaTypeImageIndex, indexOf(inner)), "all"))
	src, err := image.Open(t.Context(), l.ref("all"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]digest.Digest{
		"linux/amd64": all["linux/amd64"].Digest, "amd64/v2": all["linux/amd64"].Digest, "amd64/v4": all["linux/amd64/v3"].Digest,
		"x86_64": all["linux/amd64"].Digest, "arm": all["linux/arm/v7"].Digest, "arm/v6": all["linux/arm/v6"].Digest,
		"arm64": all["linux/arm64/v8"].Digest, "aarch64": all["linux/arm64/v8"].Digest, "windows/amd64": all["windows/amd64"].Digest,
		"s390x": bare.Digest, "arm/v5": "", "linux/riscv64": "", "windows/arm64": "", "windows(10.0.2)/amd64": "",
		"windows(10.0.20348)/amd64": all["windows(10.0.20348.2227)/amd64"].Digest, "Windows/amd64:10.0.17763.1": all["windows(10.0.17763.1)/amd64"].Digest,
	}
	for name, want := range tests {
		p, err := image.ParsePlatform(name)
		if err != nil {
			t.Fatal(err)
		}
		img, err := image.Resolve(t.Context(), src, "all", p)
		switch {
		case want == "" && !errors.Is(err, errdefs.ErrNotFound):
			t.Errorf("%s: %v, want that it is not found", name, err)
		case want != "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && img.Descriptor.Digest != want:
			t.Errorf("%s: it is the image for %+v", name, img.Config.Platform)
		}
	}
}

func TestNoPlatforms(t *testing.T) {
	t.Parallel()
	if p, err := image.ParsePlatform("Windows"); err != nil || p.OS != "windows" || p.Architecture != runtime.GOARCH {
		t.Errorf("a system alone: %+v, %v", p, err)
	}
	for _, s := range []string{"", "/", "linux/", "a/b/c/d", "windows(10.0/amd64", "windows10.0)/amd64:", "windows()/amd64", "windows(10)amd64", "windows(1)/amd64:2", "windows/amd64:", "windows/amd64:1:2", "windows(a/b)/amd64"} {
		if p, err := image.ParsePlatform(s); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	}
}

// TestNoImages has indexes that list manifests of other things, without a
// platform, as registries keep them beside an image.
func TestNoImages(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	img := l.image(host(), 10)
	empty := l.blob(v1.MediaTypeEmptyJSON, []byte("{}"))
	payload := l.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte("payload"))
	artifact := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: empty, Layers: []v1.Descriptor{empty}}
	artifact.SchemaVersion = 2
	signature := artifact
	signature.Config = l.json(v1.MediaTypeImageConfig, v1.Image{RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{payload.Digest}}})
	signature.Layers = []v1.Descriptor{payload}
	others := []v1.Descriptor{l.json(v1.MediaTypeImageManifest, artifact), l.json(v1.MediaTypeImageManifest, signature)}
	damaged := l.json(v1.MediaTypeImageManifest, map[string]any{"schemaVersion": 2})
	l.index(
		tagged(l.json(v1.MediaTypeImageIndex, indexOf(append(others, img)...)), "beside"),
		tagged(l.json(v1.MediaTypeImageIndex, indexOf(others...)), "alone"),
		tagged(others[1], "itself"),
		tagged(l.json(v1.MediaTypeImageIndex, indexOf(damaged, img)), "damaged"),
	)
	src, err := image.Open(t.Context(), l.ref("beside"))
	must(t, err)
	found, err := image.Resolve(t.Context(), src, "beside", v1.Platform{})
	if err != nil || found.Descriptor.Digest != img.Digest {
		t.Errorf("beside others: %v", err)
	}
	for tag, want := range map[string]error{
		"alone": errdefs.ErrNotFound, "itself": errdefs.ErrInvalidArgument, "damaged": errdefs.ErrInvalidArgument,
	} {
		if _, err := image.Resolve(t.Context(), src, tag, v1.Platform{}); !errors.Is(err, want) {
			t.Errorf("%s: %v", tag, err)
		}
	}
}
