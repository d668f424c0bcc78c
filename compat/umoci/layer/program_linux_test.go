package layer_test

// A program that was written for umoci's layer package, with another import
// path. It unpacks an image of a layout, changes the tree, and writes the layer
// of the change.

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vbatts/go-mtree"

	"github.com/hostcompute/hcs/compat/umoci/layer"
)

// umociEngine has more than is needed, as umoci's has.
type umociEngine struct{ engine }

func (umociEngine) PutBlob(context.Context, io.Reader) (digest.Digest, int64, error) {
	return "", 0, os.ErrPermission
}

func (umociEngine) Close() error { return nil }

func TestProgram(t *testing.T) {
	t.Parallel()
	e, img := newImage(t)
	var out strings.Builder
	err := program(&out, e, filepath.Join(t.TempDir(), "b"), img.Descriptor.Digest)
	if err != nil || strings.Count(out.String(), "layer sha256:") != 3 || !strings.Contains(out.String(), "entry new\n") {
		t.Errorf("it failed: %v: %s", err, out.String())
	}
}

func program(out io.Writer, blobs engine, bundle string, manifest digest.Digest) error {
	ctx, e := context.Background(), umociEngine{blobs}
	blob, err := e.GetBlob(ctx, manifest)
	if err != nil {
		return err
	}
	defer blob.Close()
	var m ispec.Manifest
	if err := json.NewDecoder(blob).Decode(&m); err != nil {
		return err
	}
	opt := &layer.UnpackOptions{
		OnDiskFormat: layer.DirRootfs{MapOptions: layer.MapOptions{UIDMappings: []rspec.LinuxIDMapping{}, Rootless: os.Geteuid() != 0}},
		KeepDirlinks: true,
		AfterLayerUnpack: func(_ ispec.Manifest, desc ispec.Descriptor) error {
			_, err := fmt.Fprintln(out, "layer", desc.Digest)
			return err
		},
	}
	if err := layer.UnpackManifest(ctx, e, bundle, m, opt); err != nil {
		return err
	}
	root := filepath.Join(bundle, layer.RootfsName)
	keywords := []mtree.Keyword{"size", "type", "uid", "gid", "mode", "link", "nlink", "tar_time", "sha256digest", "xattr"}
	before, err := mtree.Walk(root, nil, keywords, nil)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, layer.CleanPath("../new")), []byte("new"), 0o600); err != nil {
		return err
	}
	deltas, err := mtree.Check(root, before, keywords, nil)
	if err != nil {
		return err
	}
	r, err := layer.GenerateLayer(root, deltas, &layer.RepackOptions{OnDiskFormat: opt.OnDiskFormat})
	if err != nil {
		return err
	}
	defer r.Close()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "entry", h.Name)
	}
}
