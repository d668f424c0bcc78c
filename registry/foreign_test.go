package registry_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/registry"
)

const foreignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar"

// foreignImage returns an image with a layer that its registry need not have, and that layer's content.
func foreignImage(t *testing.T, mediaType string, urls ...string) (image.Source, *image.Image, []byte) {
	t.Helper()
	dir := t.TempDir()
	content := random(layerSize)
	far, near := put(t, dir, mediaType, content), put(t, dir, v1.MediaTypeImageLayer, random(1000))
	far.URLs = urls
	config := v1.Image{Platform: amd64, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{far.Digest, near.Digest}}}
	desc := putManifest(t, dir, put(t, dir, v1.MediaTypeImageConfig, encode(t, config)), far, near)
	desc.Annotations = map[string]string{v1.AnnotationRefName: "latest"}
	index := v1.Index{Manifests: []v1.Descriptor{desc}}
	index.SchemaVersion = 2
	write(t, filepath.Join(dir, v1.ImageIndexFile), string(encode(t, index)))
	write(t, filepath.Join(dir, v1.ImageLayoutFile), `{"imageLayoutVersion":"1.0.0"}`)
	src, img, err := image.OpenImage(t.Context(), image.Ref{Transport: image.TransportOCI, Path: dir, Tag: "latest"}, v1.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	return src, img, content
}

// TestForeignLayers has layers that are somewhere else: they are not sent to a registry, and are fetched from there.
func TestForeignLayers(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "validation: {manifests: {urls: {allow: ['.*']}}}")
	for name, far := range map[string]struct {
		mediaType string
		urls      []string // before that of a server
	}{
		"docker": {foreignLayer, []string{"file:///etc/passwd"}},
		"oci":    {v1.MediaTypeImageLayerNonDistributable, nil}, //nolint:staticcheck // images that have it exist
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var content []byte
			var asked atomic.Int64
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1); r.Header.Get("Authorization") != "" {
					t.Error("it was told the credentials")
				}
				if r.URL.Path != "/layer" {
					http.NotFound(w, r)
					return
				}
				if r.Header.Get("Range") == "" { // the rest is asked for
					w = &cutter{w, layerSize / 2, func([]byte) { panic(http.ErrAbortHandler) }}
				}
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(content)))
			}))
			t.Cleanup(elsewhere.Close)
			src, img, data := foreignImage(t, far.mediaType, append(far.urls, elsewhere.URL+"/gone", elsewhere.URL+"/layer")...)
			content = data
			p := startProxy(t, addr)
			ref := parse(t, p.addr+"/"+name+":1")
			if err := push(t.Context(), src, img, ref, registry.Config{User: user, Password: password}); err != nil {
				t.Fatal(err)
			}
			digest := string(img.Manifest.Layers[0].Digest)
			if got := p.with("POST"); len(got) != 2 {
				t.Errorf("uploads: %q, want those of the other layer and the configuration", got)
			}
			pulled, err := pull(t.Context(), newStore(t), ref, registry.Config{User: user, Password: password})
			if err != nil {
				t.Fatal(err)
			}
			if pulled.Descriptor.Digest != img.Descriptor.Digest || asked.Load() != 3 {
				t.Errorf("pulled %s after %d requests, want %s after 3", pulled.Descriptor.Digest, asked.Load(), img.Descriptor.Digest)
			}

			content = []byte(strings.Repeat("x", layerSize))
			_, err = pull(t.Context(), newStore(t), ref, registry.Config{})
			checkError(t, err, errdefs.ErrDataLoss, digest)
			elsewhere.Close()
			_, err = pull(t.Context(), newStore(t), ref, registry.Config{})
			checkError(t, err, errdefs.ErrNotFound, digest+" not found")

			if err := push(t.Context(), src, img, ref, registry.Config{Foreign: true}); err != nil {
				t.Fatal(err)
			}
			if _, err = pull(t.Context(), newStore(t), ref, registry.Config{}); err != nil {
				t.Errorf("the registry has all: %v", err)
			}
		})
	}
}

// TestForeignNowhere has a layer that is nowhere: it goes to the registry as any other.
func TestForeignNowhere(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img, _ := foreignImage(t, foreignLayer)
	_ = push(t.Context(), src, img, parse(t, p.addr+"/win:1"), registry.Config{}) // this registry wants URLs
	if got := p.with("POST"); len(got) != 3 {
		t.Errorf("uploads: %q, want those of both layers and the configuration", got)
	}
}
