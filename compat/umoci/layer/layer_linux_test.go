package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/go-mtree"

	"github.com/hostcompute/hcs/compat/umoci/layer"
	"github.com/hostcompute/hcs/image"
	ours "github.com/hostcompute/hcs/layer"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archive makes a tar stream of "name", "name=content", "name/" for a
// directory and "name->target".
func archive(t testing.TB, entries ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(1000, 0), Uid: os.Geteuid(), Gid: os.Getegid()}
		content := ""
		if name, target, is := strings.Cut(e, "->"); is {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeSymlink
		} else if name, after, is := strings.Cut(e, "="); is {
			h.Name, content = name, after
		} else if strings.HasSuffix(e, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		h.Size = int64(len(content))
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// list describes a tree.
func list(t testing.TB, root string) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		s := strings.TrimPrefix(p, root+"/")
		switch {
		case d.IsDir():
			s += "/"
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			s += "->" + target
		case d.Type().IsRegular():
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(raw) > 0 {
				s += "=" + string(raw)
			}
		default:
			s += "?" + d.Type().String()
		}
		all = append(all, s)
		return nil
	}))
	return strings.Join(all, " ")
}

// Whole layers and entries one by one give the same.
func TestUnpack(t *testing.T) {
	t.Parallel()
	lower := []string{"a/", "a/1=1", "a/2=2", "b/", "b/1=1", "c=c", "l->/a"}
	for _, tt := range []struct {
		upper []string
		want  string
	}{
		{[]string{"c=new", "d=d"}, "a/ a/1=1 a/2=2 b/ b/1=1 c=new d=d l->/a"},
		{[]string{".wh.a", "b/.wh.1", ".wh.missing"}, "b/ c=c l->/a"},
		{[]string{"a/3=3", "a/.wh..wh..opq", "b/.wh..wh..opq", "b/2=2"}, "a/ a/3=3 b/ b/2=2 c=c l->/a"},
		{[]string{"a/3=3", ".wh.a", "c=new", ".wh.c"}, "a/ a/3=3 b/ b/1=1 c=new l->/a"},
		{[]string{"a=file", "c/", "c/1=1"}, "a=file b/ b/1=1 c/ c/1=1 l->/a"},
		{[]string{"l/3=3"}, "a/ a/1=1 a/2=2 a/3=3 b/ b/1=1 c=c l->/a"},
		{[]string{"/y=y", "./z=z"}, "a/ a/1=1 a/2=2 b/ b/1=1 c=c l->/a y=y z=z"},
	} {
		whole, single := t.TempDir(), t.TempDir()
		for _, entries := range [][]string{lower, tt.upper} {
			must(t, layer.UnpackLayer(whole, bytes.NewReader(archive(t, entries...)), nil))
			x := layer.NewTarExtractor(nil)
			r := tar.NewReader(bytes.NewReader(archive(t, entries...)))
			for {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				must(t, err)
				must(t, x.UnpackEntry(single, h, r))
			}
		}
		if got := list(t, whole); got != tt.want {
			t.Errorf("%v: there is %s, want %s", tt.upper, got, tt.want)
		}
		if got := list(t, single); got != tt.want {
			t.Errorf("%v, one by one: there is %s, want %s", tt.upper, got, tt.want)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	for _, entry := range []string{".wh.", "a/.wh..", "x/.wh.../y"} {
		if err := layer.UnpackLayer(t.TempDir(), bytes.NewReader(archive(t, "a/", entry)), nil); err == nil {
			t.Errorf("%q: no error", entry)
		}
		x, root := layer.NewTarExtractor(nil), t.TempDir()
		must(t, x.UnpackEntry(root, &tar.Header{Name: "a", Typeflag: tar.TypeDir, Mode: 0o755, Uid: os.Geteuid(), Gid: os.Getegid()}, nil))
		if err := x.UnpackEntry(root, &tar.Header{Name: entry, Typeflag: tar.TypeReg}, strings.NewReader("")); err == nil {
			t.Errorf("%q by itself: no error", entry)
		}
		if got := list(t, root); got != "a/" {
			t.Errorf("%q: there is %s", entry, got)
		}
	}
	// A whole layer with a name that leads up is refused, one entry stays below.
	if err := layer.UnpackLayer(t.TempDir(), bytes.NewReader(archive(t, "../../x=x")), nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a name that leads up: %v", err)
	}
	parent := t.TempDir()
	root := filepath.Join(parent, "root")
	must(t, os.Mkdir(root, 0o755))
	h := &tar.Header{Name: "../../x", Typeflag: tar.TypeReg, Mode: 0o644, Uid: os.Geteuid(), Gid: os.Getegid()}
	must(t, layer.NewTarExtractor(nil).UnpackEntry(root, h, strings.NewReader("")))
	if got := list(t, parent); got != "root/ root/x" {
		t.Errorf("there is %s", got)
	}
}

func TestCleanPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", ".": ".", "/": "/", "..": ".", "../../a": "a", "a/../../b": "b", "/../a": "/a", "a//b/.": "a/b", "/a/..": "/",
	} {
		if got := layer.CleanPath(in); got != want {
			t.Errorf("CleanPath(%q) is %q, want %q", in, got, want)
		}
	}
}

func read(t testing.TB, r io.ReadCloser) []byte {
	t.Helper()
	raw, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	return raw
}

// What GenerateLayer makes turns the old tree into the new one.
func TestGenerateLayer(t *testing.T) {
	t.Parallel()
	base := archive(t, "a/", "a/1=1", "a/2=2", "b/", "b/1=1", "c=c", "l->/a")
	old, changed := t.TempDir(), t.TempDir()
	for _, dir := range []string{old, changed} {
		must(t, layer.UnpackLayer(dir, bytes.NewReader(base), nil))
	}
	keywords := []mtree.Keyword{"size", "type", "mode", "link", "tar_time", "sha256digest"}
	before, err := mtree.Walk(changed, nil, keywords, nil)
	must(t, err)
	must(t, os.RemoveAll(filepath.Join(changed, "b")))
	must(t, os.Remove(filepath.Join(changed, "a/1")))
	must(t, os.WriteFile(filepath.Join(changed, "c"), []byte("other"), 0o600))
	must(t, os.MkdirAll(filepath.Join(changed, "n/m"), 0o700))
	deltas, err := mtree.Check(changed, before, keywords, nil)
	must(t, err)
	date := time.Unix(5000, 0)
	made, err := layer.GenerateLayer(changed, deltas, &layer.RepackOptions{SourceDateEpoch: &date})
	must(t, err)
	raw := read(t, made)
	must(t, layer.UnpackLayer(old, bytes.NewReader(raw), nil))
	if got, want := list(t, old), list(t, changed); got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
	if info, err := os.Stat(filepath.Join(old, "c")); err != nil || !info.ModTime().Equal(date) {
		t.Errorf("c is of %v, %v", info.ModTime(), err)
	}
	must(t, os.RemoveAll(filepath.Join(changed, "n")))
	again, err := layer.GenerateLayer(changed, deltas, nil)
	must(t, err)
	if _, err := io.ReadAll(again); err == nil {
		t.Error("no error for what is gone meanwhile")
	}
}

func TestGenerateInsertLayer(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "f"), []byte("f"), 0o600))
	root := t.TempDir()
	steps := []struct {
		r    io.ReadCloser
		want string
	}{
		{layer.GenerateInsertLayer(src, "/opt", false, nil), "opt/ opt/f=f"},
		{layer.GenerateInsertLayer(filepath.Join(src, "f"), "opt/g", false, nil), "opt/ opt/f=f opt/g=f"},
		{layer.GenerateInsertLayer(src, "opt", true, nil), "opt/ opt/f=f"},
		{layer.GenerateInsertLayer("", "opt", false, nil), ""},
	}
	for i, s := range steps {
		must(t, layer.UnpackLayer(root, bytes.NewReader(read(t, s.r)), nil))
		if got := list(t, root); got != s.want {
			t.Errorf("after step %d there is %q, want %q", i, got, s.want)
		}
	}
}

// engine is a layout's blobs.
type engine string

func (e engine) GetBlob(_ context.Context, d digest.Digest) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(e), "blobs", d.Algorithm().String(), d.Encoded()))
}

func newImage(t testing.TB) (engine, *image.Image) {
	t.Helper()
	l, err := image.CreateLayout(t.Context(), filepath.Join(t.TempDir(), "layout"))
	must(t, err)
	img, err := l.New(t.Context(), "x", ispec.Image{})
	must(t, err)
	e, err := l.Edit(t.Context(), img)
	must(t, err)
	defer e.Close()
	for i := range 3 {
		_, err := e.AddTar(t.Context(), ours.Gzip, bytes.NewReader(archive(t, fmt.Sprintf("%d=%d", i, i), "same="+fmt.Sprint(i))))
		must(t, err)
	}
	img, err = e.Commit(t.Context(), "x")
	must(t, err)
	return engine(l.Dir()), img
}

func TestUnpackManifest(t *testing.T) {
	t.Parallel()
	e, img := newImage(t)
	rootless := layer.DirRootfs{MapOptions: layer.MapOptions{Rootless: os.Geteuid() != 0}}
	b := filepath.Join(t.TempDir(), "bundle")
	must(t, layer.UnpackManifest(t.Context(), e, b, img.Manifest, &layer.UnpackOptions{OnDiskFormat: rootless}))
	if got := list(t, filepath.Join(b, "rootfs")); got != "0=0 1=1 2=2 same=2" {
		t.Errorf("there is %s", got)
	}
	if _, err := os.Stat(filepath.Join(b, "config.json")); err != nil {
		t.Error(err)
	}
	if err := layer.UnpackManifest(t.Context(), e, b, img.Manifest, nil); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("again: %v", err)
	}

	// Layer by layer, and then on from a layer.
	root := filepath.Join(t.TempDir(), "root")
	stop := errors.New("stop")
	var seen []digest.Digest
	opt := &layer.UnpackOptions{OnDiskFormat: rootless, AfterLayerUnpack: func(_ ispec.Manifest, d ispec.Descriptor) error {
		seen = append(seen, d.Digest)
		return nil
	}}
	must(t, layer.UnpackRootfs(t.Context(), e, root, img.Manifest, opt))
	opt.StartFrom = img.Manifest.Layers[1]
	must(t, os.WriteFile(filepath.Join(root, "same"), []byte("lower"), 0o600))
	must(t, layer.UnpackRootfs(t.Context(), e, root, img.Manifest, opt))
	if got := list(t, root); got != "0=0 1=1 2=2 same=2" {
		t.Errorf("there is %s", got)
	}
	var want []digest.Digest
	for _, i := range []int{0, 1, 2, 1, 2} {
		want = append(want, img.Manifest.Layers[i].Digest)
	}
	if !slices.Equal(seen, want) {
		t.Errorf("it was called with %v, not %v", seen, want)
	}
	opt.AfterLayerUnpack = func(ispec.Manifest, ispec.Descriptor) error { return stop }
	if err := layer.UnpackRootfs(t.Context(), e, root, img.Manifest, opt); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	if _, err := os.Lstat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tree is left: %v", err)
	}
	opt = &layer.UnpackOptions{OnDiskFormat: layer.OverlayfsRootfs{}}
	if err := layer.UnpackRootfs(t.Context(), e, root, img.Manifest, opt); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("for overlayfs: %v", err)
	}
}

// A layer with another's content, and a manifest that lacks one.
func TestUnpackManifestRefuses(t *testing.T) {
	t.Parallel()
	e, img := newImage(t)
	fewer := img.Manifest
	fewer.Layers = fewer.Layers[:2]
	swapped := img.Manifest
	swapped.Layers = []ispec.Descriptor{swapped.Layers[1], swapped.Layers[0], swapped.Layers[2]}
	nowhere := img.Manifest
	nowhere.Layers = slices.Clone(nowhere.Layers)
	nowhere.Layers[0].Digest = "sha256:../../../../../../etc/passwd"
	for what, m := range map[string]ispec.Manifest{"fewer layers": fewer, "swapped layers": swapped, "a path": nowhere} {
		for _, opt := range []*layer.UnpackOptions{nil, {AfterLayerUnpack: func(ispec.Manifest, ispec.Descriptor) error { return nil }}} {
			parent := t.TempDir()
			err := layer.UnpackRootfs(t.Context(), e, filepath.Join(parent, "root"), m, opt)
			if !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrDataLoss) {
				t.Errorf("%s: %v", what, err)
			}
			if left, _ := os.ReadDir(parent); len(left) > 0 {
				t.Errorf("%s: it left %v", what, left)
			}
		}
	}
}
