package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
)

func nested(l *layoutDir, list ...v1.Descriptor) v1.Descriptor {
	return l.json(v1.MediaTypeImageIndex, indexOf(list...))
}

// TestHostileTrees has trees that nobody wants to read whole.
func TestHostileTrees(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		root func(l *layoutDir) v1.Descriptor
		want error
		says string
	}{
		"deep": {func(l *layoutDir) v1.Descriptor {
			d := nested(l)
			for range 40 {
				d = nested(l, d)
			}
			return d
		}, errdefs.ErrInvalidArgument, "more than 32 indexes deep"},
		"wide": {func(l *layoutDir) v1.Descriptor {
			var list []v1.Descriptor
			for i := range 5000 {
				list = append(list, l.json(v1.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "manifests": []any{}, "x": i}))
			}
			return nested(l, list...)
		}, errdefs.ErrInvalidArgument, "one of more than 4096"},
		"large together": {func(l *layoutDir) v1.Descriptor {
			var list []v1.Descriptor
			for i := range 17 {
				list = append(list, l.json(v1.MediaTypeImageIndex, map[string]any{
					"schemaVersion": 2, "manifests": []any{}, "i": i, "x": strings.Repeat("x", 4<<20-200),
				}))
			}
			return nested(l, list...)
		}, errdefs.ErrInvalidArgument, "more than 67108864 bytes"},
		"large": {func(l *layoutDir) v1.Descriptor {
			d := nested(l)
			d.Size = 5 << 20
			return nested(l, d)
		}, errdefs.ErrInvalidArgument, "more than the 4194304"},
		"not there": {func(l *layoutDir) v1.Descriptor {
			return nested(l, v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1})
		}, errdefs.ErrNotFound, "not found"},
		"no digest": {func(l *layoutDir) v1.Descriptor {
			return nested(l, v1.Descriptor{MediaType: "text/plain", Digest: "sha256:../../x", Size: 1})
		}, errdefs.ErrInvalidArgument, "digest"},
		"both an index and a manifest": {func(l *layoutDir) v1.Descriptor {
			return l.json(v1.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "manifests": []any{}, "layers": []any{}})
		}, errdefs.ErrInvalidArgument, "ambiguous"},
		"of an unknown type": {func(l *layoutDir) v1.Descriptor {
			return l.json("text/plain", "x")
		}, errdefs.ErrInvalidArgument, `unknown media type "text/plain"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			l.index(tagged(tt.root(l), "x"))
			src, err := image.Open(t.Context(), image.Ref{Transport: image.TransportOCI, Path: l.dir})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			_, err = image.ReadTree(t.Context(), src, "x")
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q, of class %v", err, tt.says, tt.want)
			}
		})
	}
}

// TestVerifyTree has images for two platforms and an attestation in one index, and one blob after the other be wrong.
func TestVerifyTree(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	own, other := l.parts("linux/amd64", layerTar(t, "a", 10)), l.parts("windows/amd64", layerTar(t, "b", 20), layerTar(t, "c", 30))
	other.config.RootFS.DiffIDs[1] = digest.FromString("other content")
	statement := l.blob("application/vnd.in-toto+json", []byte("{}"))
	attested := l.json(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: l.json(v1.MediaTypeImageConfig, map[string]any{}), Layers: []v1.Descriptor{statement},
	})
	l.index(tagged(nested(l, on(l.write(own), "linux/amd64"), on(l.write(other), "windows/amd64"), attested), "x"))
	verify := func() string {
		src, err := image.Open(t.Context(), l.ref("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		tree, err := image.ReadTree(t.Context(), src, "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Verify(t.Context(), src); err != nil {
			return err.Error()
		}
		return ""
	}
	if got := verify(); !strings.Contains(got, "diffID") || strings.Count(got, "\n") != 0 {
		t.Errorf("a layer of another platform that is not what its diffID says: %q", got)
	}
	other.config.RootFS.DiffIDs[1] = digest.FromBytes(layerTar(t, "c", 30))
	l.index(tagged(nested(l, on(l.write(own), "linux/amd64"), on(l.write(other), "windows/amd64"), attested), "x"))
	if got := verify(); got != "" {
		t.Errorf("a good index: %s", got)
	}
	for _, d := range []v1.Descriptor{own.manifest.Layers[0], other.manifest.Layers[1], statement} {
		raw, err := os.ReadFile(filepath.Join(l.dir, blobFile(d.Digest)))
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)-1] ^= 1
		l.file(blobFile(d.Digest), raw)
		if got := verify(); !strings.Contains(got, d.Digest.String()) {
			t.Errorf("with another byte in %s: %q", d.MediaType, got)
		}
		raw[len(raw)-1] ^= 1
		l.file(blobFile(d.Digest), raw)
	}
}
