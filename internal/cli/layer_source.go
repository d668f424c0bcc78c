package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// layerUsage tells what the argument LAYER may be, for help.
const layerUsage = `LAYER is a file (a tar stream, compressed or not), a directory that "hcs layer
import" or "hcs layer create" has made, a transport folder, "-" for standard input,
the diffID of a layer that an image of the local store has, or IMAGE#N: layer N of
an image, the base being 1, where IMAGE is a name of the local store or a place as
in oci:DIR:TAG.`

// layerSource are the flags of what reads layers.
type layerSource struct {
	platform string
	strict   bool
	os       string              // whose layer a bare file is; "" has its first entry tell
	parents  []string            // of a scratch layer's directory; nil takes those that it notes
	warn     func(layer.Warning) // nil prints them
}

func (s *layerSource) addFlags(f *pflag.FlagSet) {
	f.StringVar(&s.platform, "platform", "", "which image of several, `OS[(VERSION)]/ARCH[/VARIANT]` (default: this machine's)")
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
	return reading(ref, errors.Join(err, l.close()))
}

// reading says which layer an error of reading is about. What made the stream
// of a directory says so itself.
func reading(ref string, err error) error {
	if made, ok := errors.AsType[*dirError](err); ok {
		return made.error
	}
	if err != nil {
		return fmt.Errorf("read layer %s: %w", ref, err)
	}
	return nil
}

// dirError is why a directory cannot be read as a stream. Whoever reads that
// sees it where the stream ends.
type dirError struct{ error }

func (e *dirError) Unwrap() error { return e.error }

// layerPlace is where a layer is: a file or directory, or in an image.
type layerPlace struct {
	path  string // "-" is standard input
	dir   bool
	src   image.Source // nil for what is in no image
	img   *image.Image
	at    int // the layer's index
	close func() error
}

// locate finds a layer. A file wins over an image of the same name.
func (s *layerSource) locate(ctx context.Context, a *app, ref string) (layerPlace, error) {
	p := layerPlace{path: ref, close: func() error { return nil }}
	if id, err := digest.Parse(ref); err == nil {
		return p, p.locateStored(ctx, a, id)
	}
	if ref == "-" {
		return p, nil
	}
	info, err := os.Stat(ref)
	switch name, number, found := cutLast(ref, "#"); {
	case err == nil:
		p.dir = info.IsDir()
		return p, nil
	case found:
		return p, p.locateNumbered(ctx, a, s.platform, name, number)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fault(errdefs.ErrNotFound, "there is no such file, and a layer of an image is called IMAGE#N")
	}
	return p, fmt.Errorf("find layer %q: %w", ref, err)
}

// locateStored finds a layer by its diffID among those of the store's images.
func (p *layerPlace) locateStored(ctx context.Context, a *app, id digest.Digest) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	images, err := h.Images().Images(ctx)
	if err != nil {
		return err
	}
	for _, img := range images {
		if i := slices.Index(img.DiffIDs(), id); i >= 0 {
			p.src, p.img, p.at = h.Images(), img, i
			return nil
		}
	}
	return fault(errdefs.ErrNotFound, "find layer %s: no image of the local store has it", id)
}

func (p *layerPlace) locateNumbered(ctx context.Context, a *app, platform, name, number string) error {
	which, err := parsePlatform(platform)
	if err != nil {
		return err
	}
	src, img, err := a.anyImage(ctx, name, which, image.Limits{})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(number)
	if have := len(img.DiffIDs()); err != nil || n < 1 || n > have {
		err := fault(errdefs.ErrNotFound, "find layer %q of image %s: it has layers 1 to %d", number, name, have)
		return errors.Join(err, src.Close())
	}
	p.src, p.img, p.at, p.close = src, img, n-1, src.Close
	return nil
}

// open starts to read a layer.
func (s *layerSource) open(ctx context.Context, a *app, ref string) (*layerStream, error) {
	p, err := s.locate(ctx, a, ref)
	switch {
	case err != nil:
		return nil, err
	case p.src != nil:
		return s.openLayer(ctx, a, p)
	case ref == "-":
		return s.openBlob(a, a.in)
	case p.dir:
		return s.openDir(ctx, a, ref)
	}
	f, err := os.Open(ref)
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	return s.openBlob(a, f)
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
	known := &l
	switch {
	case err != nil && rootfs.IsTransport(dir):
		known, l.Encoding = nil, layer.NT
	case errdefs.IsNotFound(err):
		return nil, notLayerDir(dir)
	case err != nil:
		return nil, err
	case l.Scratch:
		a.tryRoot() // what was written may be others', and is mounted to be read
	}
	d := newDirStream(ctx, dir, s.parents)
	return &layerStream{Reader: s.options(a, l.Encoding).NewReader(d), dir: known, finish: d.finish, close: d.Close}, nil
}

// notLayerDir says what a directory is not.
func notLayerDir(dir string) error {
	what := "it is neither a layer's directory nor a transport folder"
	if _, err := os.Stat(filepath.Join(dir, v1.ImageLayoutFile)); err == nil {
		what = fmt.Sprintf("it is an OCI layout, of which a layer is called oci:%s:TAG#N", dir)
	}
	return fault(errdefs.ErrNotFound, "find layer %q: %s", dir, what)
}

// dirStream is the stream that a layer's directory, or a transport folder,
// stands for. It is written by a goroutine, which finish and Close end.
type dirStream struct {
	*io.PipeReader
	stop   func()
	finish func() (digest.Digest, error) // reads the rest and returns the stream's digest
}

func newDirStream(ctx context.Context, dir string, parents []string) *dirStream {
	ctx, stop := context.WithCancel(ctx)
	in, out := io.Pipe()
	type result struct {
		diffID digest.Digest
		err    error
	}
	done := make(chan result, 1)
	go func() {
		diffID, err := writeDir(ctx, dir, parents, out)
		if err != nil {
			err = &dirError{err}
		}
		_ = out.CloseWithError(err) // never fails
		done <- result{diffID, err}
	}()
	return &dirStream{PipeReader: in, stop: stop, finish: sync.OnceValues(func() (digest.Digest, error) {
		_, err := io.Copy(io.Discard, in)
		in.Close()
		r := <-done
		stop()
		if r.err != nil {
			err = r.err // what was read of it is the same
		}
		return r.diffID, err
	})}
}

// Close gives up what is not read.
func (d *dirStream) Close() error {
	d.stop()
	d.PipeReader.Close()
	_, _ = d.finish() // nobody wants the rest
	return nil
}

func writeDir(ctx context.Context, dir string, parents []string, to io.Writer) (digest.Digest, error) {
	if _, err := rootfs.InspectLayer(dir); err == nil || !rootfs.IsTransport(dir) {
		return rootfs.WriteLayer(ctx, dir, parents, to)
	}
	d := digest.Canonical.Digester()
	w := layer.NewWriter(io.MultiWriter(to, d.Hash()))
	if err := rootfs.ReadTransport(ctx, dir, w.Write); err != nil {
		return "", err
	}
	err := w.Close()
	return d.Digest(), err
}

func (s *layerSource) openLayer(ctx context.Context, a *app, p layerPlace) (*layerStream, error) {
	id := p.img.DiffIDs()[p.at]
	tar, err := image.OpenTar(ctx, p.src, p.img.Manifest.Layers[p.at], id)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &layerStream{
		Reader: s.options(a, layer.EncodingOf(p.img.Platform().OS)).NewReader(tar),
		finish: func() (digest.Digest, error) { _, err := io.Copy(io.Discard, tar); return id, err },
		close:  func() error { return errors.Join(tar.Close(), p.close()) },
	}, nil
}
