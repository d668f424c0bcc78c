package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// layerUsage tells what the argument LAYER may be, for help.
const layerUsage = `LAYER is a file (a tar stream, compressed or not), a directory that "hcs layer
import" or "hcs layer create" has made, "-" for standard input, the diffID of a
layer that an image of the local store has, or IMAGE#N: layer N of an image, the
base being 1, where IMAGE is a name of the local store or a place as in
oci:DIR:TAG.`

// layerSource are the flags of what reads layers.
type layerSource struct {
	platform string
	strict   bool
	os       string              // whose layer a bare file is; "" has its first entry tell
	parents  []string            // of a scratch layer's directory; nil takes those that it notes
	warn     func(layer.Warning) // nil prints them
}

func (s *layerSource) addFlags(f *pflag.FlagSet) {
	f.StringVar(&s.platform, "platform", "", "which image of several, `OS/ARCH[/VARIANT]` (default: this machine's)")
	f.Var((*systemName)(&s.os), "os", "`system` that a file's layer is for, windows or linux (default: its first entry tells)")
	f.BoolVar(&s.strict, "strict", false, "refuse what is malformed instead of mending it with a warning")
}

// systemName is a flag that names an operating system.
type systemName string

func (n *systemName) String() string { return string(*n) }

func (n *systemName) Type() string { return "system" }

func (n *systemName) Set(text string) error {
	if text != "windows" && text != "linux" {
		return fmt.Errorf("%q is neither windows nor linux", text)
	}
	*n = systemName(text)
	return nil
}

// layerStream is a layer that is being read. finish reads the rest and judges
// its digest, which it returns; close gives up.
type layerStream struct {
	*layer.Reader
	dir    *rootfs.LayerDir // nil for what is no directory
	finish func() (digest.Digest, error)
	close  func() error
}

// all calls f for each entry, holds the layer against its digest then, and
// returns the diffID.
func (s *layerStream) all(ctx context.Context, f func(*layer.Entry) error) (digest.Digest, error) {
	for e, err := range s.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return "", err
		}
	}
	return s.finish()
}

// each opens a layer and calls f for each of its entries.
func (s *layerSource) each(ctx context.Context, a *app, ref string, f func(*layer.Reader, *layer.Entry) error) error {
	l, err := s.open(ctx, a, ref)
	if err != nil {
		return err
	}
	_, err = l.all(ctx, func(e *layer.Entry) error { return f(l.Reader, e) })
	if err = errors.Join(err, l.close()); err != nil {
		return fmt.Errorf("read layer %s: %w", ref, err)
	}
	return nil
}

// open finds a layer. A file wins over an image of the same name.
func (s *layerSource) open(ctx context.Context, a *app, ref string) (*layerStream, error) {
	if id, err := digest.Parse(ref); err == nil {
		return s.openStored(ctx, a, id)
	}
	if ref == "-" {
		return s.openBlob(a, a.in)
	}
	info, err := os.Stat(ref)
	switch name, number, found := cutLast(ref, "#"); {
	case err == nil && info.IsDir():
		return s.openDir(ctx, a, ref)
	case err == nil:
		f, err := os.Open(ref)
		if err != nil {
			return nil, fmt.Errorf("open layer: %w", err)
		}
		return s.openBlob(a, f)
	case found:
		return s.openNumbered(ctx, a, name, number)
	}
	return nil, fmt.Errorf("open layer: %w", err)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// bare is the encoding of a file that nobody says anything about.
func (s *layerSource) bare() layer.Encoding {
	if s.os == "" {
		return layer.Auto
	}
	return layer.EncodingOf(s.os)
}

func (s *layerSource) options(a *app, e layer.Encoding) layer.ReadOptions {
	warn := s.warn
	if warn == nil {
		warn = func(w layer.Warning) { a.warn(w.String()) }
	}
	return layer.ReadOptions{Encoding: e, Strict: s.strict, Warn: warn}
}

func (s *layerSource) openBlob(a *app, f *os.File) (*layerStream, error) {
	b, err := s.options(a, s.bare()).OpenBlob(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open layer %s: %w", f.Name(), err), f.Close())
	}
	return &layerStream{
		Reader: b.Reader,
		finish: func() (digest.Digest, error) { d, err := b.Finish(); return d.DiffID, err },
		close:  func() error { return errors.Join(b.Close(), f.Close()) },
	}, nil
}

// openDir reads a layer's directory as the stream that it stands for.
func (s *layerSource) openDir(ctx context.Context, a *app, dir string) (*layerStream, error) {
	l, err := rootfs.InspectLayer(dir)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	in, out := io.Pipe()
	type result struct {
		diffID digest.Digest
		err    error
	}
	done := make(chan result, 1)
	go func() {
		diffID, err := rootfs.WriteLayer(ctx, dir, s.parents, out)
		_ = out.CloseWithError(err) // never fails
		done <- result{diffID, err}
	}()
	finish := sync.OnceValues(func() (digest.Digest, error) {
		_, err := io.Copy(io.Discard, in)
		in.Close()
		r := <-done
		return r.diffID, errors.Join(err, r.err)
	})
	return &layerStream{
		Reader: s.options(a, l.Encoding).NewReader(in),
		dir:    &l,
		finish: finish,
		close: func() error {
			stop()
			in.Close()
			_, _ = finish() // nobody wants the rest
			return nil
		},
	}, nil
}

// openStored finds a layer by its diffID among those of the store's images.
func (s *layerSource) openStored(ctx context.Context, a *app, id digest.Digest) (*layerStream, error) {
	h, err := a.host()
	if err != nil {
		return nil, err
	}
	images, err := h.Images().Images(ctx)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		if i := slices.Index(img.DiffIDs(), id); i >= 0 {
			return s.openLayer(ctx, a, h.Images(), img, i)
		}
	}
	return nil, fmt.Errorf("find layer %s: no image of the local store has it: %w", id, errdefs.ErrNotFound)
}

func (s *layerSource) openNumbered(ctx context.Context, a *app, name, number string) (*layerStream, error) {
	platform, err := parsePlatform(s.platform)
	if err != nil {
		return nil, err
	}
	src, img, err := a.anyImage(ctx, name, platform, image.Limits{})
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(number)
	if have := len(img.DiffIDs()); err != nil || n < 1 || n > have {
		err := fmt.Errorf("find layer %q of image %s: it has layers 1 to %d: %w", number, name, have, errdefs.ErrNotFound)
		return nil, errors.Join(err, src.Close())
	}
	l, err := s.openLayer(ctx, a, src, img, n-1)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	inner := l.close
	l.close = func() error { return errors.Join(inner(), src.Close()) }
	return l, nil
}

func (s *layerSource) openLayer(ctx context.Context, a *app, src image.Source, img *image.Image, i int) (*layerStream, error) {
	tar, err := image.OpenTar(ctx, src, img.Manifest.Layers[i], img.DiffIDs()[i])
	if err != nil {
		return nil, err
	}
	return &layerStream{
		Reader: s.options(a, layer.EncodingOf(img.Platform().OS)).NewReader(tar),
		finish: func() (digest.Digest, error) { _, err := io.Copy(io.Discard, tar); return img.DiffIDs()[i], err },
		close:  tar.Close,
	}, nil
}
