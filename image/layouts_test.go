package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
)

func createLayout(t testing.TB) *image.Layout {
	t.Helper()
	l, err := image.CreateLayout(t.Context(), filepath.Join(t.TempDir(), "layout"))
	must(t, err)
	return l
}

func resolve(t testing.TB, l *image.Layout, tag string) *image.Image {
	t.Helper()
	img, err := image.Resolve(t.Context(), l, tag, v1.Platform{})
	must(t, err)
	return img
}

// edit changes an image and gives the result a tag.
func edit(t testing.TB, l *image.Layout, base *image.Image, tag string, change func(*image.Edit)) *image.Image {
	t.Helper()
	e, err := l.Edit(t.Context(), base)
	must(t, err)
	defer e.Close()
	change(e)
	img, err := e.Commit(t.Context(), tag)
	must(t, err)
	return img
}

func addTar(t testing.TB, e *image.Edit, c layer.Compression, raw []byte) layer.Digests {
	t.Helper()
	d, err := e.AddTar(t.Context(), c, bytes.NewReader(raw))
	must(t, err)
	return d
}

func tagsOf(t testing.TB, l *image.Layout) string {
	t.Helper()
	tags, err := l.Tags(t.Context())
	must(t, err)
	return strings.Join(tags, " ")
}

func TestCreateLayout(t *testing.T) {
	t.Parallel()
	l := createLayout(t)
	if entries, err := os.ReadDir(l.Dir()); err != nil || len(entries) != 3 {
		t.Errorf("it has %v, %v", entries, err)
	}
	if _, err := image.CreateLayout(t.Context(), l.Dir()); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("again: %v", err)
	}
	if _, err := image.OpenLayout(t.TempDir()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("open an empty directory: %v", err)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	l := createLayout(t)
	for _, tag := range []string{"b", "a", "a-b.c/d"} {
		_, err := l.New(t.Context(), tag, v1.Image{Author: tag})
		must(t, err)
	}
	_, err := l.New(t.Context(), "b", v1.Image{Author: "b again"})
	must(t, err)
	if got := tagsOf(t, l) + resolve(t, l, "b").Config.Author; got != "a a-b.c/d bb again" {
		t.Errorf("tags are %q", got)
	}
	must(t, l.Tag(t.Context(), "a", "c"))
	must(t, l.Tag(t.Context(), "a", "b"))
	must(t, l.Tag(t.Context(), "a", "a"))
	if got := tagsOf(t, l); got != "a a-b.c/d c b" {
		t.Errorf("tags are %q", got)
	}
	for _, tag := range []string{"a", "b", "c"} {
		if img := resolve(t, l, tag); img.Config.Author != "a" || img.Name != tag {
			t.Errorf("%s is %q by %q", tag, img.Name, img.Config.Author)
		}
	}
	must(t, l.Remove(t.Context(), "a"))
	if got := tagsOf(t, l); got != "a-b.c/d c b" {
		t.Errorf("tags are %q", got)
	}
	for what, err := range map[string]error{
		"remove again":   l.Remove(t.Context(), "a"),
		"tag from none":  l.Tag(t.Context(), "a", "d"),
		"remove nothing": l.Remove(t.Context(), ""),
	} {
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "/", "a b", "-a", "a//b", "ä"} {
		if err := l.Tag(t.Context(), "b", bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("tag %q: %v", bad, err)
		}
	}
}

func TestEdit(t *testing.T) {
	t.Parallel()
	l := createLayout(t)
	base, err := l.New(t.Context(), "a", v1.Image{})
	must(t, err)
	raw := layerTar(t, "x", 3000)
	for _, c := range []layer.Compression{layer.None, layer.Gzip, layer.Zstd} {
		var d, again layer.Digests
		img := edit(t, l, base, c.String(), func(e *image.Edit) {
			d, again = addTar(t, e, c, raw), addTar(t, e, c, raw)
			e.AddHistory(v1.History{CreatedBy: "test"})
			e.AddHistory(v1.History{CreatedBy: "test"})
			e.Config.Config.Cmd = []string{"run"}
			e.Annotations["key"] = "value"
		})
		if d != again || d.DiffID != digest.FromBytes(raw) || d.DiffSize != int64(len(raw)) {
			t.Errorf("%v: digests are %+v and %+v", c, d, again)
		}
		stored := resolve(t, l, c.String())
		if stored.Descriptor.Digest != img.Descriptor.Digest || stored.Config.Config.Cmd[0] != "run" || stored.Manifest.Annotations["key"] != "value" {
			t.Errorf("%v: stored is %+v", c, stored)
		}
		top := stored.Manifest.Layers[0]
		if top.MediaType != c.MediaType() || top.Annotations[image.AnnotationUncompressedSize] != fmt.Sprint(len(raw)) {
			t.Errorf("%v: layer is %+v", c, top)
		}
		must(t, image.Verify(t.Context(), l, stored))
	}
	if img := resolve(t, l, "a"); len(img.Manifest.Layers) > 0 || img.Config.Config.Cmd != nil {
		t.Error("the base has changed")
	}
}

// An edit without a commit leaves garbage, and nothing that can be seen.
func TestEditWithoutCommit(t *testing.T) {
	t.Parallel()
	l := createLayout(t)
	base, err := l.New(t.Context(), "a", v1.Image{})
	must(t, err)
	before := filesBelow(t, l.Dir())
	e, err := l.Edit(t.Context(), base)
	must(t, err)
	addTar(t, e, layer.Gzip, layerTar(t, "x", 10))
	if removed, err := l.Collect(t.Context()); err != nil || !removed.Deferred || len(removed.Blobs) > 0 {
		t.Errorf("collected %+v, %v while an edit was open", removed, err)
	}
	e.Close()
	e.Close()
	removed, err := l.Collect(t.Context())
	if err != nil || len(removed.Blobs) != 1 {
		t.Errorf("collected %+v, %v", removed, err)
	}
	if after := filesBelow(t, l.Dir()); !slices.Equal(before, after) {
		t.Errorf("it has\n%v, not\n%v", after, before)
	}
}

func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	}))
	return list
}

// An image in an index is changed there; the others, and what the index has
// beside them, stay.
func TestEditWithinIndex(t *testing.T) {
	t.Parallel()
	dir := newLayout(t)
	other := on(dir.image("linux/s390x", 10), "linux/s390x")
	mine := on(dir.image(host(), 20), host())
	inner := indexOf(other, mine)
	raw := strings.Replace(string(marshal(t, inner)), "{", `{"unknown":{"a":[1,2]},`, 1)
	outer := dir.json(v1.MediaTypeImageIndex, indexOf(dir.blob(v1.MediaTypeImageIndex, []byte(raw))))
	dir.index(tagged(outer, "multi"))
	l, err := image.OpenLayout(dir.dir)
	must(t, err)
	edit(t, l, resolve(t, l, "multi"), "multi", func(e *image.Edit) { e.Config.Author = "me" })

	img := resolve(t, l, "multi")
	if img.Config.Author != "me" || len(img.Path) != 3 {
		t.Fatalf("the image is by %q, path %v", img.Config.Author, img.Path)
	}
	rest, err := image.Resolve(t.Context(), l, "multi", v1.Platform{OS: "linux", Architecture: "s390x"})
	if err != nil || rest.Descriptor.Digest != other.Digest {
		t.Errorf("the other is %v, %v", rest, err)
	}
	stored, err := readAll(t, l, img.Path[1])
	must(t, err)
	var doc map[string]json.RawMessage
	must(t, json.Unmarshal(stored, &doc))
	if string(doc["unknown"]) != `{"a":[1,2]}` {
		t.Errorf("the index is %s", stored)
	}
	removed, err := l.Collect(t.Context())
	if err != nil || len(removed.Blobs) != 4 { // two indexes, a manifest, a configuration
		t.Errorf("collected %v, %v", removed, err)
	}
	must(t, image.Verify(t.Context(), l, img))
}

// Collect keeps what nested indexes and unknown artifacts have, and passes
// over what an index lists that is not there.
func TestCollect(t *testing.T) {
	t.Parallel()
	dir := newLayout(t)
	gone := on(dir.image("linux/s390x", 10), "linux/s390x")
	kept := on(dir.image(host(), 20), host())
	artifact := dir.blob("application/vnd.example.thing", []byte("thing"))
	dir.index(tagged(nest(dir, dir.json(v1.MediaTypeImageIndex, indexOf(gone, kept)), 3, 2), "x"), artifact)
	dir.remove(gone)
	dir.blob(v1.MediaTypeImageLayer, []byte("garbage"))
	must(t, os.Mkdir(filepath.Join(dir.dir, ".umoci-123"), 0o700))
	l, err := image.OpenLayout(dir.dir)
	must(t, err)
	removed, err := l.Collect(t.Context())
	if err != nil || len(removed.Blobs) != 3 || removed.Temps != 1 { // garbage, and gone's layer and configuration
		t.Errorf("collected %+v, %v", removed, err)
	}
	must(t, image.Verify(t.Context(), l, resolve(t, l, "x")))
	if again, err := l.Collect(t.Context()); err != nil || len(again.Blobs)+again.Temps > 0 {
		t.Errorf("collected %+v, %v again", again, err)
	}
	dir.remove(kept)
	dir.index(tagged(kept, "y"))
	if removed, err := l.Collect(t.Context()); !errors.Is(err, errdefs.ErrNotFound) || len(removed.Blobs) > 0 {
		t.Errorf("collected %+v, %v with an image that cannot be read", removed, err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	dir := newLayout(t)
	p := dir.parts(host(), layerTar(t, "a", 10), layerTar(t, "b", 10))
	ids := p.config.RootFS.DiffIDs
	ids[0], ids[1] = ids[1], ids[0]
	dir.index(tagged(dir.write(p), "x"))
	l, err := image.OpenLayout(dir.dir)
	must(t, err)
	err = image.Verify(t.Context(), l, resolve(t, l, "x"))
	if !errors.Is(err, errdefs.ErrDataLoss) || strings.Count(err.Error(), "diffID") != 2 {
		t.Errorf("error is %v", err)
	}
}

// Many edit one layout at once, and none is lost.
func TestEditsAtOnce(t *testing.T) {
	t.Parallel()
	l := createLayout(t)
	base, err := l.New(t.Context(), "base", v1.Image{})
	must(t, err)
	const many = 8
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			e, err := l.Edit(t.Context(), base)
			if err == nil {
				defer e.Close()
				_, err = e.AddTar(t.Context(), layer.Gzip, bytes.NewReader(layerTar(t, fmt.Sprint(i/2), 100)))
			}
			if err == nil {
				_, err = e.Commit(t.Context(), fmt.Sprintf("t%d", i))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if tags, err := l.Tags(t.Context()); err != nil || len(tags) != many+1 {
		t.Fatalf("tags are %v, %v", tags, err)
	}
	for i := range many {
		must(t, image.Verify(t.Context(), l, resolve(t, l, fmt.Sprintf("t%d", i))))
	}
}

// What an index may cost is the caller's to say.
func TestLimits(t *testing.T) {
	t.Parallel()
	dir := newLayout(t)
	d := on(dir.image(host(), 10), host())
	wide := dir.json(v1.MediaTypeImageIndex, indexOf(nest(dir, d, 2, 1), nest(dir, d, 1, 3)))
	dir.index(tagged(wide, "x"))
	l, err := image.OpenLayout(dir.dir)
	must(t, err)
	for _, tt := range []struct {
		limits image.Limits
		says   string // nothing if it is enough
	}{
		{image.Limits{}, ""},
		{image.Limits{Depth: 3, Indexes: 4}, ""},
		{image.Limits{Depth: 2}, "more than 2 indexes deep"},
		{image.Limits{Indexes: 3}, "one of more than 3"},
	} {
		_, err := image.ResolveWithin(t.Context(), l, "x", v1.Platform{}, tt.limits)
		if tt.says == "" && err != nil || tt.says != "" && (!errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%+v: %v", tt.limits, err)
		}
	}
}

// TestCollectWhileWriting takes the directory of temporary files away whenever it is empty, while others write there.
func TestCollectWhileWriting(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := image.CreateLayout(t.Context(), dir)
	must(t, err)
	var writers, collector sync.WaitGroup
	done := make(chan struct{})
	collector.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := l.Collect(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 4 {
		writers.Go(func() {
			for j := range 50 {
				if _, err := l.New(t.Context(), fmt.Sprint("t", i, "-", j), v1.Image{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	collector.Wait()
	tags, err := l.Tags(t.Context())
	must(t, err)
	if len(tags) != 200 {
		t.Errorf("%d tags, want 200", len(tags))
	}
}
