package layer_test

// Another program for umoci's layer package: it has an engine of its own with
// all that umoci's has, and does what "umoci repack" does.

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/go-mtree"

	"github.com/hostcompute/hcs/compat/umoci/layer"
	"github.com/hostcompute/hcs/internal/testenv"
)

// dirEngine is a layout that is written to.
type dirEngine struct{ engine }

var _ casEngine = dirEngine{}

func (e dirEngine) path(d digest.Digest) string {
	return filepath.Join(string(e.engine), "blobs", d.Algorithm().String(), d.Encoded())
}

func (e dirEngine) PutBlob(_ context.Context, r io.Reader) (digest.Digest, int64, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return "", 0, err
	}
	d := digest.FromBytes(raw)
	return d, int64(len(raw)), os.WriteFile(e.path(d), raw, 0o644)
}

func (e dirEngine) StatBlob(_ context.Context, d digest.Digest) (bool, error) {
	_, err := os.Stat(e.path(d))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (e dirEngine) GetIndex(context.Context) (index ispec.Index, err error) {
	raw, err := os.ReadFile(filepath.Join(string(e.engine), "index.json"))
	if err != nil {
		return index, err
	}
	return index, json.Unmarshal(raw, &index)
}

func (e dirEngine) PutIndex(_ context.Context, index ispec.Index) error {
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(e.engine), "index.json"), raw, 0o644)
}

func (e dirEngine) DeleteBlob(_ context.Context, d digest.Digest) error { return os.Remove(e.path(d)) }

func (e dirEngine) ListBlobs(context.Context) (list []digest.Digest, err error) {
	entries, err := os.ReadDir(filepath.Join(string(e.engine), "blobs", "sha256"))
	for _, entry := range entries {
		list = append(list, digest.NewDigestFromEncoded(digest.SHA256, entry.Name()))
	}
	return list, err
}

func (dirEngine) Clean(context.Context) error { return nil }

func (dirEngine) Close() error { return nil }

// putJSON stores a document.
func putJSON(ctx context.Context, e casEngine, mediaType string, value any) (ispec.Descriptor, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	d, size, err := e.PutBlob(ctx, bytes.NewReader(raw))
	return ispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}, err
}

func getJSON(ctx context.Context, e casEngine, d digest.Digest, value any) error {
	blob, err := e.GetBlob(ctx, d)
	if err != nil {
		return err
	}
	defer blob.Close()
	return json.NewDecoder(blob).Decode(value)
}

// putLayer stores a layer, compressed, and returns its diffID too.
func putLayer(ctx context.Context, e casEngine, tar io.Reader) (ispec.Descriptor, digest.Digest, error) {
	plain := digest.SHA256.Digester()
	var blob bytes.Buffer
	w := gzip.NewWriter(&blob)
	_, err := io.Copy(io.MultiWriter(w, plain.Hash()), tar)
	if err := errors.Join(err, w.Close()); err != nil {
		return ispec.Descriptor{}, "", err
	}
	d, size, err := e.PutBlob(ctx, &blob)
	return ispec.Descriptor{MediaType: ispec.MediaTypeImageLayerGzip, Digest: d, Size: size}, plain.Digest(), err
}

var mtreeKeywords = []mtree.Keyword{"size", "type", "uid", "gid", "mode", "link", "nlink", "tar_time", "sha256digest", "xattr"}

// repack makes an image under a tag of a manifest's, and what was changed in
// its tree since.
func repack(ctx context.Context, e casEngine, m ispec.Manifest, root string, before *mtree.DirectoryHierarchy, tag string) error {
	deltas, err := mtree.Check(root, before, mtreeKeywords, nil)
	if err != nil {
		return err
	}
	tar, err := layer.GenerateLayer(root, deltas, &layer.RepackOptions{OnDiskFormat: layer.DirRootfs{}})
	if err != nil {
		return err
	}
	defer tar.Close()
	desc, diffID, err := putLayer(ctx, e, tar)
	if err != nil {
		return err
	}
	var config ispec.Image
	if err := getJSON(ctx, e, m.Config.Digest, &config); err != nil {
		return err
	}
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	if m.Config, err = putJSON(ctx, e, ispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	m.Layers = append(m.Layers, desc)
	manifest, err := putJSON(ctx, e, ispec.MediaTypeImageManifest, m)
	if err != nil {
		return err
	}
	index, err := e.GetIndex(ctx)
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{ispec.AnnotationRefName: tag}
	index.Manifests = append(index.Manifests, manifest)
	return e.PutIndex(ctx, index)
}

// TestProgramRepacks has umoci itself unpack what the program has made.
func TestProgramRepacks(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	umoci := testenv.NeedCommand(t, "umoci")[0]
	dir, img := newImage(t)
	e := dirEngine{dir}
	b := filepath.Join(t.TempDir(), "b")
	must(t, layer.UnpackManifest(t.Context(), e, b, img.Manifest, nil))
	root := filepath.Join(b, layer.RootfsName)
	before, err := mtree.Walk(root, nil, mtreeKeywords, nil)
	must(t, err)
	must(t, os.Remove(filepath.Join(root, "0")))
	must(t, os.MkdirAll(filepath.Join(root, "etc/new"), 0o700))
	must(t, os.Link(filepath.Join(root, "1"), filepath.Join(root, "etc/new/1")))
	must(t, os.Symlink("/nowhere", filepath.Join(root, "etc/link")))
	must(t, os.WriteFile(filepath.Join(root, "2"), []byte("changed"), 0o600))
	must(t, repack(t.Context(), e, img.Manifest, root, before, "again"))

	theirs := filepath.Join(t.TempDir(), "theirs")
	out, err := exec.Command(umoci, "unpack", "--image", string(dir)+":again", theirs).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := list(t, filepath.Join(theirs, "rootfs"))
	if want := list(t, root); got != want || want != "1=1 2=changed etc/ etc/link->/nowhere etc/new/ etc/new/1=1 same=2" {
		t.Errorf("umoci unpacks\n%s\nwant\n%s", got, want)
	}
}
