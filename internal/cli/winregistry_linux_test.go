package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestWindowsRegistry takes an image for Windows to a registry and back.
func TestWindowsRegistry(t *testing.T) {
	h := newHost(t)
	registry := startRegistry(t)
	layout := filepath.Join(h.dir, "layout")
	windowsLayout(t, layout)
	pushed := h.must("image", "copy", "-q", "--platform", "windows/amd64", "oci:"+layout+":three", "docker://"+registry+"/win/three:1")
	if got := h.must("image", "pull", registry+"/win/three:1"); !strings.HasPrefix(got, "pulled "+registry+"/win/three:1: 3 layers, ") {
		t.Errorf("pulled: %s", got)
	}
	if diff := h.must("image", "diff", "oci:"+layout+":three", registry+"/win/three:1"); diff != "" {
		t.Errorf("what was pulled is another image: %s", diff)
	}
	if got := h.must("image", "push", "-q", registry+"/win/three:1", registry+"/win/again:2"); got != pushed {
		t.Errorf("pushed as %s, and again as %s", pushed, got)
	}
	h.must("image", "copy", "-q", "docker://"+registry+"/win/again:2", "oci:"+layout+":back")
	h.must("image", "verify", "oci:"+layout+":back")
	if err := h.hcs("image", "pull", "--platform", "linux/amd64", registry+"/win/three:1").Run(); err == nil {
		t.Error("an image for Windows was pulled as one for Linux")
	}

	// Compressed anew the layers are the same, and unpacked once.
	h.must("image", "convert", "--image", layout+":back", "--tag", "zstd", "--compress", "zstd")
	h.must("image", "copy", "-q", "oci:"+layout+":zstd", "docker://"+registry+"/win/zstd:1")
	layers := h.must("layer", "ls", "-q")
	h.must("image", "pull", "-q", "--platform", "windows(10.0.20348)/amd64", registry+"/win/zstd:1")
	if got := h.must("layer", "ls", "-q"); got != layers || strings.Count(got, "\n") != 3 {
		t.Errorf("layers %s, and before %s", got, layers)
	}
	if got := h.must("layer", "cat", registry+"/win/zstd:1#3", `C:\app\app.exe`); got != "MZ app" {
		t.Errorf("the file has %q", got)
	}
	h.must("image", "rm", "-f", registry+"/win/three:1", registry+"/win/again:2", registry+"/win/zstd:1")
}

// TestWindowsVersions chooses among images for several versions of Windows.
func TestWindowsVersions(t *testing.T) {
	h := newHost(t)
	registry := startRegistry(t)
	layout := filepath.Join(h.dir, "layout")
	windowsLayout(t, layout)
	h.must("image", "config", "--image", layout+":three", "--tag", "older", "--platform.os-version", "10.0.17763.1", "--no-history")
	indexOf(t, layout, "all", "three", "older")
	h.must("image", "copy", "-q", "--all", "oci:"+layout+":all", "docker://"+registry+"/win:all")
	for platform, want := range map[string]string{
		"windows/amd64": "10.0.20348.2227", "windows(10.0.17763)/amd64": "10.0.17763.1", "windows/amd64:10.0.20348.2227": "10.0.20348.2227",
	} {
		h.must("image", "pull", "-q", "--platform", platform, registry+"/win:all")
		if got := h.must("image", "inspect", "--format", `{{json .}}`, registry+"/win:all"); !strings.Contains(got, `"os.version":"`+want+`"`) {
			t.Errorf("%s: pulled %s", platform, got)
		}
	}
	out, err := h.hcs("image", "pull", "--platform", "windows(10.0.9)/amd64", registry+"/win:all").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no image for windows/amd64 (10.0.9) (there are: windows/amd64 (10.0.20348.2227), windows/amd64 (10.0.17763.1))") {
		t.Errorf("a version that is not there: %v, %s", err, out)
	}
	h.must("image", "rm", "-f", registry+"/win:all")
}

// TestWindowsForeign pulls an image of which the registry does not have the base layer.
func TestWindowsForeign(t *testing.T) {
	h := newHost(t)
	registry := startRegistry(t, "validation: {manifests: {urls: {allow: ['.*']}}}")
	layout := filepath.Join(h.dir, "layout")
	windowsLayout(t, layout)
	elsewhere := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(layout, "blobs/sha256"))))
	defer elsewhere.Close()
	foreign(t, layout, "three", elsewhere.URL)
	h.must("image", "copy", "-q", "oci:"+layout+":three", "docker://"+registry+"/win:1")
	h.must("image", "pull", "-q", registry+"/win:1")
	if diff := h.must("image", "diff", "oci:"+layout+":three", registry+"/win:1"); diff != "" {
		t.Errorf("what was pulled is another image: %s", diff)
	}
	h.must("image", "push", "-q", "--allow-nondistributable-artifacts", registry+"/win:1")
	elsewhere.Close()
	h.must("image", "rm", "-f", registry+"/win:1")
	h.must("image", "pull", "-q", registry+"/win:1")
	h.must("image", "convert", "--image", layout+":three", "--compress", "gzip")
	h.must("image", "copy", "-q", "oci:"+layout+":three", "docker://"+registry+"/near:1")
	if m := manifestOf(t, layout, "three"); m.Layers[0].URLs != nil || m.Layers[0].MediaType != v1.MediaTypeImageLayerGzip {
		t.Errorf("converted: %+v", m.Layers[0])
	}
	h.must("image", "rm", "-f", registry+"/win:1")
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func putJSON(t *testing.T, layout, mediaType string, v any) v1.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(blobFile(layout, digest.FromBytes(data)), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func blobFile(layout string, d digest.Digest) string {
	return filepath.Join(layout, v1.ImageBlobsDir, string(d.Algorithm()), d.Encoded())
}

// change rewrites the list of a layout.
func change(t *testing.T, layout string, f func(*v1.Index)) {
	t.Helper()
	name := filepath.Join(layout, v1.ImageIndexFile)
	var index v1.Index
	readJSON(t, name, &index)
	f(&index)
	data, err := json.Marshal(index)
	if err == nil {
		err = os.WriteFile(name, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func tagged(t *testing.T, index *v1.Index, tag string) *v1.Descriptor {
	t.Helper()
	for i := range index.Manifests {
		if index.Manifests[i].Annotations[v1.AnnotationRefName] == tag {
			return &index.Manifests[i]
		}
	}
	t.Fatalf("no tag %q", tag)
	return nil
}

func manifestOf(t *testing.T, layout, tag string) (m v1.Manifest) {
	t.Helper()
	change(t, layout, func(index *v1.Index) { readJSON(t, blobFile(layout, tagged(t, index, tag).Digest), &m) })
	return m
}

// indexOf makes an index of images of a layout, under a tag of its own.
func indexOf(t *testing.T, layout, tag string, tags ...string) {
	t.Helper()
	change(t, layout, func(index *v1.Index) {
		all := v1.Index{MediaType: v1.MediaTypeImageIndex}
		all.SchemaVersion = 2
		for _, tag := range tags {
			d := *tagged(t, index, tag)
			d.Annotations, d.Platform = nil, nil // the configurations tell
			all.Manifests = append(all.Manifests, d)
		}
		d := putJSON(t, layout, v1.MediaTypeImageIndex, all)
		d.Annotations = map[string]string{v1.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, d)
	})
}

// foreign makes the base layer of an image one that can be had below a URL.
func foreign(t *testing.T, layout, tag, url string) {
	t.Helper()
	m := manifestOf(t, layout, tag)
	m.Layers[0].MediaType = v1.MediaTypeImageLayerNonDistributableGzip //nolint:staticcheck // images that have it exist
	m.Layers[0].URLs = []string{url + "/" + m.Layers[0].Digest.Encoded()}
	change(t, layout, func(index *v1.Index) {
		d := putJSON(t, layout, v1.MediaTypeImageManifest, m)
		d.Annotations = map[string]string{v1.AnnotationRefName: tag}
		*tagged(t, index, tag) = d
	})
}
