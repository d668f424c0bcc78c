package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// layerStack is a layer and all below it.
type layerStack struct {
	layers   []rootfs.LayerBlob // base first
	single   *layerStream       // instead of these: one layer, of which nothing was read
	encoding layer.Encoding
	close    func() error
}

// stack finds a layer and those below it: of an image's layer those before it,
// of a directory its parents.
func (s *layerSource) stack(ctx context.Context, a *app, ref string) (*layerStack, error) {
	f, err := s.locate(ctx, a, ref)
	if err != nil {
		return nil, err
	}
	st := &layerStack{close: f.close}
	switch {
	case f.src != nil && len(s.parents) == 0:
		st.encoding = layer.EncodingOf(f.img.Platform().OS)
		for i := range f.at + 1 {
			st.layers = append(st.layers, imageBlob(f.src, f.img, i))
		}
		return st, nil
	case ref == "-":
		err = fault(errdefs.ErrInvalidArgument, "standard input can be read once only")
	default:
		err = s.stackRefs(ctx, a, st, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("stack layer %s: %w", ref, errors.Join(err, f.close()))
	}
	return st, nil
}

// stackRefs adds a layer that is no image's, or of which the parents are told.
func (s *layerSource) stackRefs(ctx context.Context, a *app, st *layerStack, ref string) error {
	refs := withNoted(append([]string{ref}, s.parents...))
	slices.Reverse(refs)
	alone := *s
	alone.warn = func(layer.Warning) {} // whoever reads the stack tells
	for _, ref := range refs {
		l, err := alone.open(ctx, a, ref)
		if err != nil {
			return err
		}
		st.encoding, err = l.Detect()
		if err := errors.Join(err, l.close()); err != nil {
			return err
		}
		st.layers = append(st.layers, rootfs.LayerBlob{Open: func(ctx context.Context) (io.ReadCloser, error) {
			return s.raw(ctx, a, ref)
		}})
	}
	return nil
}

// withNoted adds to layers, the nearest first, the parents that the last one
// notes, if it is a directory.
func withNoted(refs []string) []string {
	if len(refs) > 0 {
		if l, err := rootfs.InspectLayer(refs[len(refs)-1]); err == nil {
			refs = append(refs, l.Parents...)
		}
	}
	return refs
}

// raw opens a layer's stream as it is.
func (s *layerSource) raw(ctx context.Context, a *app, ref string) (io.ReadCloser, error) {
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		return newDirStream(ctx, ref, s.parents), nil
	case err == nil:
		return os.Open(ref)
	}
	f, err := s.locate(ctx, a, ref)
	if err != nil {
		return nil, err
	}
	r, err := imageBlob(f.src, f.img, f.at).Open(ctx)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return &closing{r, func() error { return errors.Join(r.Close(), f.close()) }}, nil
}

// closing is a reader that closes more than itself.
type closing struct {
	io.Reader
	close func() error
}

func (c *closing) Close() error { return c.close() }

func imageBlob(src image.Source, img *image.Image, i int) rootfs.LayerBlob {
	d := img.Manifest.Layers[i]
	return rootfs.LayerBlob{
		DiffID: img.DiffIDs()[i], Digest: d.Digest, Size: d.Size,
		Open: func(ctx context.Context) (io.ReadCloser, error) { return src.Blob(ctx, d) },
	}
}

// flat gives the entries of a stack of Windows layers as those of one.
func (s *layerSource) flat(ctx context.Context, a *app, st *layerStack) rootfs.EntrySource {
	r := bundle.Reading{Strict: s.strict, Warn: func(_ int, w layer.Warning) { a.warn(w.String()) }}
	return func(emit rootfs.Emit) error { return bundle.FlattenWindows(ctx, st.layers, r, emit) }
}
