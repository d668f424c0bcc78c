package hcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// LoadOptions say how Load and Image go about it. The zero value loads for
// this machine.
type LoadOptions struct {
	// Name is what the image is called in the store. Empty: as it is called where
	// it comes from, or after the file or directory and the tag.
	Name string
	// Platform selects one of an index. Zero is this machine's.
	Platform v1.Platform
	// Progress, if not nil, is called as layers pass, from several goroutines.
	Progress func(image.Progress)
	// Parallel is the number of layers at a time; 0 means one for each
	// processor, and one more.
	Parallel int
	// Resume goes on with what a failed load has left, and leaves what it has if
	// it fails.
	Resume bool
}

// Load brings an image from a layout or an archive ("oci:DIR:TAG",
// "oci-archive:FILE", "docker-archive:FILE") into the image store, and unpacks
// its layers into the layer store while their bytes pass.
func (h *Host) Load(ctx context.Context, ref string, o LoadOptions) (_ *image.Image, err error) {
	r, err := image.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	if r.Transport == image.TransportStore {
		return nil, fmt.Errorf("load image %q: say where it is, as in oci:DIR:TAG: %w", ref, errdefs.ErrInvalidArgument)
	}
	return h.load(ctx, r, o)
}

func (h *Host) load(ctx context.Context, r image.Ref, o LoadOptions) (_ *image.Image, err error) {
	src, img, err := image.OpenImageWithin(ctx, r, o.Platform, h.config.Limits.Image)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	name := o.Name
	if name == "" {
		name = nameFor(r, img)
	}
	return h.LoadFrom(ctx, src, img, name, o)
}

// LoadFrom is Load of an image of a source that the caller has opened, such as
// a registry. An empty name leaves the image without one; that of the options
// is not looked at, nor is their platform.
func (h *Host) LoadFrom(ctx context.Context, src image.Source, img *image.Image, name string, o LoadOptions) (*image.Image, error) {
	return h.images.Load(ctx, src, img, name, image.LoadOptions{OnLayer: h.unpacker(img), Progress: o.Progress, Parallel: o.Parallel, Resume: o.Resume})
}

// onLayer unpacks layer i of an image.
type onLayer = func(ctx context.Context, i int, diffID digest.Digest, open func() (io.ReadCloser, error)) error

func (h *Host) unpacker(img *image.Image) onLayer {
	if isWindows(img) {
		return h.unpackInOrder(img.DiffIDs())
	}
	return func(ctx context.Context, _ int, diffID digest.Digest, open func() (io.ReadCloser, error)) error {
		_, err := h.layers.Unpack(ctx, diffID, open)
		return err
	}
}

// unpackInOrder is for layers that need those below. They are begun base first,
// so that one which waits does not keep the others from it.
func (h *Host) unpackInOrder(diffIDs []digest.Digest) onLayer {
	done := make([]chan struct{}, len(diffIDs))
	for i := range done {
		done[i] = make(chan struct{})
	}
	return func(ctx context.Context, i int, _ digest.Digest, open func() (io.ReadCloser, error)) error {
		if i > 0 {
			select {
			case <-done[i-1]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		_, err := h.layers.UnpackNT(ctx, diffIDs[:i+1], open)
		if err == nil {
			close(done[i])
		}
		return err
	}
}

func isWindows(img *image.Image) bool { return layer.EncodingOf(img.Config.OS) == layer.NT }

// layerIDs are what the layer store has an image's layers under.
func layerIDs(img *image.Image) []digest.Digest {
	ids := img.DiffIDs()
	if !isWindows(img) {
		return ids
	}
	chain := make([]digest.Digest, len(ids))
	for i := range ids {
		chain[i] = rootfs.ChainID(ids[:i+1])
	}
	return chain
}

// nameFor returns the name of an image that came without one: that of a full
// name in its source, else one after its place.
func nameFor(r image.Ref, img *image.Image) string {
	if strings.ContainsAny(img.Name, "/:") {
		return img.Name
	}
	base := filepath.Base(r.Path)
	base = strings.ToLower(strings.TrimSuffix(base, filepath.Ext(base)))
	if r.Transport == image.TransportOCI {
		base = strings.ToLower(filepath.Base(r.Path))
	}
	tag := img.Name
	if tag == "" {
		tag = "latest"
	}
	return base + ":" + tag
}

// Image returns an image with its layers unpacked: one of the store by name or
// id, or one that is loaded first ("oci:DIR:TAG").
func (h *Host) Image(ctx context.Context, ref string, o LoadOptions) (*image.Image, error) {
	r, err := image.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	if r.Transport != image.TransportStore {
		return h.load(ctx, r, o)
	}
	img, err := h.images.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return img, h.unpackAll(ctx, img)
}

// unpackAll unpacks what is in the image store and not in the layer store.
func (h *Host) unpackAll(ctx context.Context, img *image.Image) error {
	missing := false
	find := h.layers.Layer
	if isWindows(img) {
		find = h.layers.LayerNT
	}
	for _, id := range layerIDs(img) {
		if _, err := find(id); err != nil {
			missing = true
		}
	}
	if !missing {
		return nil
	}
	_, err := h.images.Load(ctx, h.images, img, "", image.LoadOptions{OnLayer: h.unpacker(img)})
	return err
}

// Save writes an image of the store to a layout or an archive.
func (h *Host) Save(ctx context.Context, name, ref string) error {
	r, err := image.ParseRef(ref)
	if err != nil {
		return err
	}
	img, err := h.images.Image(ctx, name)
	if err != nil {
		return err
	}
	return image.Copy(ctx, h.images, img, r)
}

// RemoveImage removes a name of an image, and with its last name the image
// and the unpacked layers that no other has. It refuses, with class
// ErrFailedPrecondition, while a container stands on it.
func (h *Host) RemoveImage(ctx context.Context, name string) (image.Removed, error) {
	img, err := h.images.Image(ctx, name)
	if err != nil {
		return image.Removed{}, err
	}
	if err := h.unusedBy(ctx, img); err != nil {
		return image.Removed{}, fmt.Errorf("remove image %q: %w", name, err)
	}
	removed, err := h.images.Remove(ctx, name)
	if err != nil {
		return removed, err
	}
	return removed, h.removeLayers(ctx, layerIDs(img))
}

func (h *Host) unusedBy(ctx context.Context, img *image.Image) error {
	names, err := h.images.Images(ctx)
	if err != nil {
		return err
	}
	count := 0
	for _, other := range names {
		if other.ID() == img.ID() {
			count++
		}
	}
	if count > 1 {
		return nil // it keeps another name
	}
	systems, err := h.containers.Systems(ctx)
	for _, s := range systems {
		if s.Record().Spec.ImageID == img.ID() {
			return fmt.Errorf("container %s is made from it: %w", s.Name(), errdefs.ErrFailedPrecondition)
		}
	}
	return err
}

// removeLayers removes the unpacked layers of the list that no image has.
func (h *Host) removeLayers(ctx context.Context, ids []digest.Digest) error {
	keep, err := h.layersInUse(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range slices.Backward(ids) { // what stands on others goes first
		if keep[id] {
			continue
		}
		if err := h.layers.Remove(ctx, id); !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// layersInUse lists the layers of all images and containers.
func (h *Host) layersInUse(ctx context.Context) (map[digest.Digest]bool, error) {
	images, err := h.images.Images(ctx)
	if err != nil {
		return nil, err
	}
	systems, err := h.containers.Systems(ctx)
	if err != nil {
		return nil, err
	}
	keep := make(map[digest.Digest]bool)
	for _, img := range images {
		for _, id := range layerIDs(img) {
			keep[id] = true
		}
	}
	for _, s := range systems {
		for _, id := range s.Record().Spec.Layers {
			keep[id] = true
		}
	}
	return keep, nil
}
