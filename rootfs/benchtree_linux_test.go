package rootfs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// layoutLayers reads the layers of an image in an OCI layout.
func layoutLayers(t testing.TB, dir, tag string) []rootfs.LayerBlob {
	t.Helper()
	load := func(name string, v any) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		must(t, json.Unmarshal(data, v))
	}
	blob := func(d v1.Descriptor) string {
		return filepath.Join("blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
	}
	var index v1.Index
	load("index.json", &index)
	var layers []rootfs.LayerBlob
	for _, m := range index.Manifests {
		if m.Annotations[v1.AnnotationRefName] != tag {
			continue
		}
		var manifest v1.Manifest
		load(blob(m), &manifest)
		var config v1.Image
		load(blob(manifest.Config), &config)
		for i, l := range manifest.Layers {
			layers = append(layers, rootfs.LayerBlob{
				DiffID: config.RootFS.DiffIDs[i], Digest: l.Digest, Size: l.Size,
				Open: func(context.Context) (io.ReadCloser, error) { return os.Open(filepath.Join(dir, blob(l))) },
			})
		}
	}
	return layers
}

// BenchmarkUnpackTree unpacks the images of the benchmarks in directory bench, if they were made, with a manifest, to the
// directory HCS_BENCH_DIR or one for temporary files.
func BenchmarkUnpackTree(b *testing.B) {
	testenv.NeedRoot(b)
	for _, name := range []string{"debian", "files", "large", "stack"} {
		for _, tag := range []string{"gzip", "zstd"} {
			b.Run(name+"/"+tag, func(b *testing.B) {
				layout := filepath.Join("../.cache/bench", name)
				if _, err := os.Stat(layout); err != nil {
					b.Skip("run the benchmarks in directory bench once: ", err)
				}
				benchmarkTree(b, layoutLayers(b, layout, tag))
			})
		}
	}
}

func benchmarkTree(b *testing.B, layers []rootfs.LayerBlob) {
	dir := os.Getenv("HCS_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	var stats rootfs.TreeStats
	for n := 0; b.Loop(); n++ {
		dst := filepath.Join(dir, fmt.Sprint("tree", n))
		var err error
		stats, err = rootfs.UnpackTree(b.Context(), dst, layers, rootfs.TreeOptions{Mtree: io.Discard})
		must(b, err)
		b.StopTimer()
		must(b, os.RemoveAll(dst))
		runtime.GC()
		b.StartTimer()
	}
	b.ReportMetric(float64(stats.Entries), "entries")
	if stats.InOrder {
		b.Error("the layers were applied in order")
	}
}

// BenchmarkChanges compares an unchanged tree of many small files with its manifest.
func BenchmarkChanges(b *testing.B) {
	layout := "../.cache/bench/files"
	if _, err := os.Stat(layout); err != nil {
		b.Skip("run the benchmarks in directory bench once: ", err)
	}
	dst := filepath.Join(b.TempDir(), "tree")
	var manifest bytes.Buffer
	_, err := rootfs.UnpackTree(b.Context(), dst, layoutLayers(b, layout, "zstd"), rootfs.TreeOptions{
		Owner: rootfs.IgnoreOwner, Mtree: &manifest,
	})
	must(b, err)
	for b.Loop() {
		changes, err := rootfs.Changes(b.Context(), dst, bytes.NewReader(manifest.Bytes()), rootfs.ChangeOptions{})
		must(b, err)
		if len(changes) > 0 {
			b.Fatalf("changes of nothing: %v", changes[:1])
		}
	}
}
