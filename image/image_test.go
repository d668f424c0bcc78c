package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
)

// A layoutDir is a layout under construction: what tests write by hand.
type layoutDir struct {
	t   testing.TB
	dir string
}

func newLayout(t testing.TB) *layoutDir {
	t.Helper()
	l := &layoutDir{t, t.TempDir()}
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	l.index()
	return l
}

func (l *layoutDir) file(name string, content []byte) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func blobFile(d digest.Digest) string {
	return filepath.Join("blobs", string(d.Algorithm()), d.Encoded())
}

func (l *layoutDir) blob(mediaType string, content []byte) v1.Descriptor {
	l.t.Helper()
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	l.file(blobFile(d.Digest), content)
	return d
}

func (l *layoutDir) json(mediaType string, value any) v1.Descriptor {
	l.t.Helper()
	return l.blob(mediaType, marshal(l.t, value))
}

func marshal(t testing.TB, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (l *layoutDir) index(list ...v1.Descriptor) {
	l.t.Helper()
	l.file("index.json", marshal(l.t, indexOf(list...)))
}

func indexOf(list ...v1.Descriptor) v1.Index {
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	if list == nil {
		index.Manifests = []v1.Descriptor{}
	}
	return index
}

func tagged(d v1.Descriptor, tag string) v1.Descriptor {
	d.Annotations = map[string]string{v1.AnnotationRefName: tag}
	return d
}

func on(d v1.Descriptor, platform string) v1.Descriptor {
	p, err := image.ParsePlatform(platform)
	if err != nil {
		panic(err)
	}
	d.Platform = &p
	return d
}

// layerTar returns a layer of one file with size bytes that do not compress.
func layerTar(t testing.TB, name string, size int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%-32.32s", name)))
	_, _ = rnd.Read(content)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zip(t testing.TB, raw []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A parts is an image before it is written, for tests that spoil it.
type parts struct {
	config   v1.Image
	manifest v1.Manifest
}

func (l *layoutDir) parts(platform string, layers ...[]byte) *parts {
	l.t.Helper()
	p := &parts{}
	plat, err := image.ParsePlatform(platform)
	if err != nil {
		l.t.Fatal(err)
	}
	p.config.Platform = plat
	p.config.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	p.config.Config.Cmd = []string{"/bin/sh"}
	p.manifest.MediaType = v1.MediaTypeImageManifest
	p.manifest.SchemaVersion = 2
	p.manifest.Layers = []v1.Descriptor{}
	for i, raw := range layers {
		p.config.RootFS.DiffIDs = append(p.config.RootFS.DiffIDs, digest.FromBytes(raw))
		desc := l.blob(v1.MediaTypeImageLayer, raw)
		if i%2 == 1 {
			desc = l.blob(v1.MediaTypeImageLayerGzip, zip(l.t, raw))
		}
		p.manifest.Layers = append(p.manifest.Layers, desc)
	}
	return p
}

func (l *layoutDir) write(p *parts) v1.Descriptor {
	l.t.Helper()
	p.manifest.Config = l.json(v1.MediaTypeImageConfig, p.config)
	return l.json(v1.MediaTypeImageManifest, p.manifest)
}

// image writes an image for platform with one layer for each size, every
// second one compressed.
func (l *layoutDir) image(platform string, sizes ...int) v1.Descriptor {
	l.t.Helper()
	var layers [][]byte
	for i, size := range sizes {
		layers = append(layers, layerTar(l.t, fmt.Sprintf("%s-%d", platform, i), size))
	}
	return l.write(l.parts(platform, layers...))
}

func host() string {
	p := image.HostPlatform()
	return p.OS + "/" + p.Architecture
}

func (l *layoutDir) ref(tag string) image.Ref {
	return image.Ref{Transport: image.TransportOCI, Path: l.dir, Tag: tag}
}

func open(t testing.TB, ref image.Ref) (image.Source, *image.Image) {
	t.Helper()
	src, img, err := image.OpenImage(context.Background(), ref, v1.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src, img
}

func newStore(t testing.TB) *image.Store {
	t.Helper()
	s, err := image.OpenStore(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t testing.TB, s string) image.Ref {
	t.Helper()
	r, err := image.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(t testing.TB, src image.Source, d v1.Descriptor) ([]byte, error) {
	t.Helper()
	r, err := src.Blob(t.Context(), d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

type tarFile struct {
	name, link string
	content    []byte
}

func makeTar(t testing.TB, files []tarFile) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content))}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func copyTo(t testing.TB, src image.Source, img *image.Image, to string) error {
	t.Helper()
	return image.Copy(t.Context(), src, img, parse(t, to))
}
