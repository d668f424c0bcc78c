package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/registry"
)

// TestWholeIndex copies an index with all that it leads to from a layout into
// a registry, within it, and back: every byte is as it was.
func TestWholeIndex(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	dir, root := newTree(t)
	copyTree(t, image.Ref{Transport: image.TransportOCI, Path: dir, Tag: "all"}, parse(t, p.addr+"/web:all"))
	p.clear(nil)
	copyTree(t, parse(t, p.addr+"/web:all"), parse(t, p.addr+"/web:again"))
	if got := p.with("POST"); len(got) > 0 {
		t.Errorf("what was there was uploaded again: %q", got)
	}
	copyTree(t, parse(t, p.addr+"/web:again"), parse(t, p.addr+"/other:all"))

	layout := image.Ref{Transport: image.TransportOCI, Path: filepath.Join(t.TempDir(), "layout"), Tag: "all"}
	copyTree(t, parse(t, p.addr+"/other@"+string(root.Digest)), layout)
	if diff := cmp.Diff(blobs(t, dir), blobs(t, layout.Path)); diff != "" {
		t.Errorf("the blobs that went out (-) and came back (+):\n%s", diff)
	}
	archive := image.Ref{Transport: image.TransportOCIArchive, Path: filepath.Join(t.TempDir(), "a.tar"), Tag: "all"}
	copyTree(t, layout, archive)
	last := image.Ref{Transport: image.TransportOCI, Path: filepath.Join(t.TempDir(), "layout"), Tag: "all"}
	copyTree(t, archive, last)
	if diff := cmp.Diff(blobs(t, dir), blobs(t, last.Path)); diff != "" {
		t.Errorf("the blobs that went into an archive (-) and came out (+):\n%s", diff)
	}
	src, err := image.Open(t.Context(), last)
	if err != nil {
		t.Fatal(err)
	}
	index, err := src.Index(t.Context())
	if err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != root.Digest {
		t.Errorf("the last layout lists %v, %v, want %s", index.Manifests, err, root.Digest)
	}
	tree, err := image.ReadTree(t.Context(), src, "all")
	if err != nil {
		t.Fatal(err)
	}
	docker := image.Ref{Transport: image.TransportDockerArchive, Path: filepath.Join(t.TempDir(), "d.tar")}
	checkError(t, image.CopyTree(t.Context(), src, tree, docker), errdefs.ErrInvalidArgument, "one platform each")
}

// TestIndexIsLast has a blob be refused: then there is no tag.
func TestIndexIsLast(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	dir, _ := newTree(t)
	blob := filepath.Join(dir, "blobs", "sha256")
	entries, err := os.ReadDir(blob)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() == layerSize {
			write(t, filepath.Join(blob, e.Name()), strings.Repeat("x", layerSize))
		}
	}
	src, err := image.Open(t.Context(), image.Ref{Transport: image.TransportOCI, Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := image.ReadTree(t.Context(), src, "all")
	if err != nil {
		t.Fatal(err)
	}
	ref := parse(t, addr+"/web:all")
	to, err := registry.Create(t.Context(), ref, registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	checkError(t, to.AddTree(t.Context(), src, tree, "all"), errdefs.ErrDataLoss, "its content has digest")
	_, err = registry.Open(t.Context(), ref, registry.Config{})
	checkError(t, err, errdefs.ErrNotFound, "not found")
}

// newTree makes a layout with an index of two images, an index of one of
// them, and an attestation.
func newTree(t *testing.T) (dir string, root v1.Descriptor) {
	t.Helper()
	dir = t.TempDir()
	var manifests []v1.Descriptor
	shared := put(t, dir, v1.MediaTypeImageLayer, random(layerSize))
	for _, arch := range []string{"amd64", "arm64"} {
		config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch}, RootFS: v1.RootFS{Type: "layers"}}
		own := put(t, dir, v1.MediaTypeImageLayer, random(1000))
		config.RootFS.DiffIDs = []digest.Digest{shared.Digest, own.Digest}
		desc := putManifest(t, dir, put(t, dir, v1.MediaTypeImageConfig, encode(t, config)), shared, own)
		desc.Platform = &config.Platform
		manifests = append(manifests, desc)
	}
	said := put(t, dir, "application/vnd.in-toto+json", []byte(`{"predicateType":"test"}`))
	attestation := putManifest(t, dir, put(t, dir, "application/vnd.oci.empty.v1+json", []byte("{}")), said)
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"} // as BuildKit has it
	inner := putIndexBlob(t, dir, manifests[1])
	root = putIndexBlob(t, dir, manifests[0], attestation, inner)
	root.Annotations = map[string]string{v1.AnnotationRefName: "all"}
	index := v1.Index{Manifests: []v1.Descriptor{root}}
	index.SchemaVersion = 2
	write(t, filepath.Join(dir, v1.ImageIndexFile), string(encode(t, index)))
	write(t, filepath.Join(dir, v1.ImageLayoutFile), `{"imageLayoutVersion":"1.0.0"}`)
	return dir, root
}

func random(size int) []byte {
	content := make([]byte, size)
	_, _ = rand.Read(content)
	return content
}

func putManifest(t *testing.T, dir string, config v1.Descriptor, layers ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	return put(t, dir, v1.MediaTypeImageManifest, encode(t, m))
}

func putIndexBlob(t *testing.T, dir string, manifests ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: manifests}
	index.SchemaVersion = 2
	return put(t, dir, v1.MediaTypeImageIndex, encode(t, index))
}

func open(t *testing.T, ref image.Ref) (image.Source, error) {
	t.Helper()
	if ref.Transport == image.TransportDocker {
		return registry.Open(t.Context(), ref, registry.Config{})
	}
	return image.Open(t.Context(), ref)
}

func copyTree(t *testing.T, from, to image.Ref) {
	t.Helper()
	src, err := open(t, from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	tree, err := image.ReadTree(t.Context(), src, from.Selector())
	if err != nil {
		t.Fatal(err)
	}
	if to.Transport != image.TransportDocker {
		if err := image.CopyTree(t.Context(), src, tree, to); err != nil {
			t.Fatal(err)
		}
		return
	}
	target, err := registry.Create(t.Context(), to, registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := target.AddTree(t.Context(), src, tree, to.Tag); err != nil {
		t.Fatal(err)
	}
	if err := target.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// blobs returns the digests of a layout's blobs, by the names that they have.
func blobs(t *testing.T, dir string) map[string]digest.Digest {
	t.Helper()
	found := map[string]digest.Digest{}
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		found[d.Name()] = digest.FromBytes(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestCopyToLayout has a registry hold up one layer until the other is asked
// for: some are fetched at a time, and each is reported.
func TestCopyToLayout(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	ref := parse(t, p.addr+"/web:1")
	if err := push(t.Context(), src, img, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large, small := string(img.Manifest.Layers[0].Digest), string(img.Manifest.Layers[1].Digest)
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
		switch {
		case strings.Contains(r.URL.Path, small):
			once()
		case strings.Contains(r.URL.Path, large):
			select {
			case <-asked:
			case <-r.Context().Done():
			}
		}
		return w, true
	})
	var (
		mu   sync.Mutex
		last = map[digest.Digest]image.Progress{}
	)
	ctx, cancel := context.WithTimeoutCause(t.Context(), testenv.Patience, errors.New("one layer waits for the other"))
	defer cancel()
	from, err := registry.Open(ctx, ref, registry.Config{Progress: func(l image.Progress) {
		mu.Lock()
		defer mu.Unlock()
		last[l.Blob] = l
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if img, err = image.Resolve(ctx, from, ref.Selector(), amd64); err != nil {
		t.Fatal(err)
	}
	layout := image.Ref{Transport: image.TransportOCI, Path: t.TempDir(), Tag: "1"}
	if err := image.Copy(ctx, from, img, layout); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, l := range img.Manifest.Layers {
		p := last[l.Digest]
		if p.Done != l.Size || p.Total != l.Size || seen[p.Layer] {
			t.Errorf("of layer %s, of %d bytes, the last report is %+v", l.Digest, l.Size, p)
		}
		seen[p.Layer] = true
	}
	if len(last) != 2 {
		t.Errorf("reports of %d blobs, want the two layers", len(last))
	}
}
