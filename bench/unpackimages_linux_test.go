package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

var epoch = time.Unix(1_700_000_000, 0)

// An unpackImage is an image of the unpack benchmark: its layers, base first.
type unpackImage struct {
	name   string
	layers func(b *testing.B) []writeLayer
}

// writeLayer writes the entries of one layer.
type writeLayer func(w *layer.Writer) error

// unpackImages are the four kinds of image that unpackers differ on.
var unpackImages = []unpackImage{
	{"debian", debianLayers},
	{"files", goLayers},
	{"large", largeLayers},
	{"stack", stackLayers},
}

// layouts makes an OCI layout of each image with a tag for each compression and returns their paths by name. They are kept
// between runs, in the repository's cache.
func layouts(b *testing.B) map[string]string {
	paths := make(map[string]string)
	for _, i := range unpackImages {
		paths[i.name] = layoutOf(b, i)
	}
	return paths
}

// layoutOf is the path of one image's layout.
func layoutOf(b *testing.B, i unpackImage) string {
	cache, err := filepath.Abs("../.cache/bench")
	must(b, err)
	must(b, os.MkdirAll(cache, 0o755))
	layout := filepath.Join(cache, i.name)
	if _, err := os.Stat(layout); err == nil {
		return layout
	}
	work, err := os.MkdirTemp(cache, "work-") //nolint:usetesting // what is made in it is moved to its place
	must(b, err)
	makeLayout(b, work, i)
	must(b, os.Rename(filepath.Join(work, "layout"), layout))
	must(b, os.RemoveAll(work))
	return layout
}

func makeLayout(b *testing.B, work string, i unpackImage) {
	ctx := b.Context()
	store, err := image.OpenStore(filepath.Join(work, "store"))
	must(b, err)
	layers := i.layers(b)
	for _, c := range []layer.Compression{layer.Gzip, layer.Zstd} {
		var changes []image.Change
		for n, write := range layers {
			changes = append(changes, image.Change{
				WriteLayer: func(w io.Writer) error { return writeBlob(w, c, write) },
				History:    v1.History{CreatedBy: fmt.Sprintf("layer %d", n)},
			})
		}
		img, err := store.Build(ctx, i.name+":"+c.String(), v1.Image{}, changes...)
		must(b, err)
		ref := image.Ref{Transport: image.TransportOCI, Path: filepath.Join(work, "layout"), Tag: c.String()}
		must(b, image.Copy(context.WithoutCancel(ctx), store, img, ref))
	}
}

func writeBlob(w io.Writer, c layer.Compression, write writeLayer) error {
	blob, err := layer.CreateBlob(w, c)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }()
	if err := write(blob.Writer); err != nil {
		return err
	}
	_, err = blob.Finish()
	return err
}

// debianLayers is one layer with a minimal Debian.
func debianLayers(b *testing.B) []writeLayer {
	file := testenv.DebianLayer(b)
	return []writeLayer{func(w *layer.Writer) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		r := layer.NewReader(f, layer.Limits{})
		for e, err := range r.All() {
			if err != nil {
				return err
			}
			if err := w.Write(e, r); err != nil {
				return err
			}
		}
		return nil
	}}
}

// goLayers is one layer with four copies of the Go distribution's tree, more than 60,000 files.
func goLayers(b *testing.B) []writeLayer {
	out, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT").Output()
	must(b, err)
	root := strings.TrimSpace(string(out))
	return []writeLayer{func(w *layer.Writer) error {
		for n := range 4 {
			if err := writeTree(w, root, fmt.Sprintf("go%d", n)); err != nil {
				return err
			}
		}
		return nil
	}}
}

func writeTree(w *layer.Writer, root, prefix string) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := &layer.Entry{Name: path.Join(prefix, filepath.ToSlash(rel)), Mode: uint32(info.Mode().Perm()), ModTime: info.ModTime()}
		switch {
		case d.IsDir():
			e.Kind = layer.Dir
			return w.Write(e, nil)
		case !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		e.Size = int64(len(content))
		return w.Write(e, bytes.NewReader(content))
	})
}

// largeLayers is one layer with 1 GiB in three files, of which half can be compressed.
func largeLayers(*testing.B) []writeLayer {
	return []writeLayer{func(w *layer.Writer) error {
		for n := range 3 {
			size := int64(1<<30) / 3
			r := &halfRandom{rand: rand.NewChaCha8([32]byte{byte(n)})}
			if err := w.Write(&layer.Entry{Name: fmt.Sprintf("file%d", n), Mode: 0o644, Size: size, ModTime: epoch}, io.LimitReader(r, size)); err != nil {
				return err
			}
		}
		return nil
	}}
}

// halfRandom gives blocks of random bytes and of text in turn.
type halfRandom struct {
	rand *rand.ChaCha8
	text bool
	left []byte
}

func (h *halfRandom) Read(p []byte) (int, error) {
	if len(h.left) == 0 {
		h.left = make([]byte, 64<<10)
		if h.text = !h.text; h.text {
			for i := 0; i < len(h.left); {
				i += copy(h.left[i:], fmt.Sprintf("%x lorem ipsum dolor sit amet\n", h.rand.Uint64()%4096))
			}
		} else {
			_, _ = h.rand.Read(h.left)
		}
	}
	n := copy(p, h.left)
	h.left = h.left[n:]
	return n, nil
}

// stackLayers is a Debian and 39 layers on top of it that add, rewrite, link and remove files, every fifth with an opaque
// directory.
func stackLayers(b *testing.B) []writeLayer {
	layers := debianLayers(b)
	for n := 1; n < 40; n++ {
		layers = append(layers, func(w *layer.Writer) error { return stackLayer(w, n) })
	}
	return layers
}

func stackLayer(w *layer.Writer, n int) error {
	random := rand.New(rand.NewPCG(uint64(n), 0))
	dir := func(i int) string { return fmt.Sprintf("app/l%d", i) }
	entries := []*layer.Entry{{Name: "app", Kind: layer.Dir, Mode: 0o755}, {Name: dir(n), Kind: layer.Dir, Mode: 0o755}}
	add := func(name string) {
		entries = append(entries, &layer.Entry{Name: name, Mode: 0o644, Size: 1<<10 + random.Int64N(40<<10)})
	}
	for i := range 100 {
		add(fmt.Sprintf("%s/f%d", dir(n), i))
	}
	for i := range 10 {
		entries = append(entries, &layer.Entry{Name: fmt.Sprintf("%s/h%d", dir(n), i), Kind: layer.Hardlink, Link: fmt.Sprintf("%s/f%d", dir(n), i)})
	}
	if n > 1 {
		entries = append(entries, &layer.Entry{Name: dir(n - 1), Kind: layer.Dir, Mode: 0o755})
		for i := range 50 {
			add(fmt.Sprintf("%s/f%d", dir(n-1), i))
		}
	}
	if n > 2 {
		entries = append(entries, &layer.Entry{Name: dir(n - 2), Kind: layer.Dir, Mode: 0o755})
		for i := 50; i < 70; i++ {
			entries = append(entries, &layer.Entry{Name: fmt.Sprintf("%s/f%d", dir(n-2), i), Kind: layer.Whiteout})
		}
	}
	if n%5 == 0 {
		entries = append(entries, &layer.Entry{Name: dir(n - 3), Kind: layer.Dir, Mode: 0o755}, &layer.Entry{Name: dir(n - 3), Kind: layer.Opaque})
		add(dir(n-3) + "/new")
	}
	for i, e := range entries {
		e.ModTime = epoch
		text := &halfRandom{rand: rand.NewChaCha8([32]byte{byte(n), byte(i), 1})}
		if err := w.Write(e, io.LimitReader(text, e.Size)); err != nil {
			return err
		}
	}
	return nil
}
