package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/layer"
)

// AnnotationUncompressedSize is where umoci keeps a layer's uncompressed size
// in its descriptor, so that an unpacker knows it before it begins.
const AnnotationUncompressedSize = "ci.umo.uncompressed_blob_size"

// An Edit is a change of one image of a layout. Layers are stored as they are
// added; nothing else can be seen before Commit, and blobs of an Edit that is
// closed without it are garbage, see [Layout.Collect]. An Edit keeps its
// blobs from being collected meanwhile. It is for one goroutine.
type Edit struct {
	// Config is the configuration to be; its RootFS is the Edit's affair.
	Config v1.Image
	// Annotations are those of the manifest to be.
	Annotations map[string]string

	layout *Layout
	img    *Image
	hold   *os.File
}

// Edit begins to change an image, which may stand anywhere in the layout. Its
// blobs must be there.
func (l *Layout) Edit(ctx context.Context, base *Image) (*Edit, error) {
	hold, err := l.hold(ctx)
	if err != nil {
		return nil, err
	}
	img := base.clone()
	e := &Edit{layout: l, img: img, hold: hold, Config: img.Config, Annotations: img.Manifest.Annotations}
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	return e, nil
}

// Close ends the edit. Without a Commit the image is as it was.
func (e *Edit) Close() {
	if e.hold == nil {
		return
	}
	_ = e.hold.Close() // a lock, with nothing to lose
	e.hold = nil
	removeEmpty(e.layout.tempPath(""))
}

// Layers returns the layers as they are by now, base first.
func (e *Edit) Layers() []v1.Descriptor { return e.img.Manifest.Layers }

// DropLayers takes all layers out; the history stays.
func (e *Edit) DropLayers() {
	e.img.Manifest.Layers = nil
	e.img.Config.RootFS.DiffIDs = []digest.Digest{}
}

// AddHistory adds an entry to the image's history.
func (e *Edit) AddHistory(h v1.History) { e.Config.History = append(e.Config.History, h) }

// Compression returns what the image's topmost compressed or plain layer has;
// gzip, which everybody reads, if there is none.
func (e *Edit) Compression() layer.Compression {
	if n := len(e.img.Manifest.Layers); n > 0 {
		return compressionOf(e.img.Manifest.Layers[n-1].MediaType)
	}
	return layer.Gzip
}

func compressionOf(mediaType string) layer.Compression {
	switch mediaType {
	case v1.MediaTypeImageLayer, dockerLayer, dockerForeign,
		v1.MediaTypeImageLayerNonDistributable: //nolint:staticcheck // images that have it exist
		return layer.None
	case v1.MediaTypeImageLayerZstd, dockerLayer + ".zstd",
		v1.MediaTypeImageLayerNonDistributableZstd: //nolint:staticcheck // images that have it exist
		return layer.Zstd
	}
	return layer.Gzip
}

// AddLayer adds a layer of the entries that write writes.
func (e *Edit) AddLayer(ctx context.Context, c layer.Compression, write func(*layer.Writer) error) (layer.Digests, error) {
	return e.add(ctx, c, func(w io.Writer) (layer.Digests, error) {
		blob, err := layer.CreateBlob(w, c)
		if err != nil {
			return layer.Digests{}, err
		}
		defer func() { _ = blob.Close() }() // after Finish it does nothing
		if err := write(blob.Writer); err != nil {
			// The Writer only knows that the blob takes nothing more; Finish knows why.
			if _, cause := blob.Finish(); cause != nil && errdefs.IsFailedPrecondition(err) {
				err = cause
			}
			return layer.Digests{}, err
		}
		return blob.Finish()
	})
}

// AddTar adds a layer from its uncompressed tar stream, whose bytes it keeps.
func (e *Edit) AddTar(ctx context.Context, c layer.Compression, r io.Reader) (layer.Digests, error) {
	return e.add(ctx, c, func(w io.Writer) (layer.Digests, error) { return compressTar(w, c, &contextReader{ctx, r}) })
}

func compressTar(w io.Writer, c layer.Compression, r io.Reader) (layer.Digests, error) {
	blob, plain := &counted{w: w, hash: sha256.New()}, &counted{w: io.Discard, hash: sha256.New()}
	z, err := layer.Compress(blob, c)
	if err != nil {
		return layer.Digests{}, err
	}
	_, err = io.CopyBuffer(z, io.TeeReader(r, plain), make([]byte, copyBuffer))
	if err := errors.Join(err, z.Close()); err != nil {
		return layer.Digests{}, err
	}
	return layer.Digests{
		Blob: blob.digest(), Size: blob.n, DiffID: plain.digest(), DiffSize: plain.n, Compression: c,
	}, nil
}

// add stores what write writes, and lists it as the topmost layer.
func (e *Edit) add(ctx context.Context, c layer.Compression, write func(io.Writer) (layer.Digests, error)) (layer.Digests, error) {
	f, err := e.layout.newTemp(ctx)
	if err != nil {
		return layer.Digests{}, fmt.Errorf("store layer: %w", err)
	}
	d, err := write(f)
	if err != nil {
		return layer.Digests{}, fmt.Errorf("store layer: %w", errors.Join(err, discard(f)))
	}
	desc := v1.Descriptor{
		MediaType: e.mediaType(c), Digest: d.Blob, Size: d.Size,
		Annotations: map[string]string{AnnotationUncompressedSize: fmt.Sprint(d.DiffSize)},
	}
	if e.layout.has(desc) {
		err = discard(f)
	} else {
		err = e.layout.publish(f, d.Blob)
	}
	if err != nil {
		return layer.Digests{}, fmt.Errorf("store layer: %w", err)
	}
	e.img.Manifest.Layers = append(e.img.Manifest.Layers, desc)
	e.img.Config.RootFS.DiffIDs = append(e.img.Config.RootFS.DiffIDs, d.DiffID)
	return d, nil
}

func (e *Edit) mediaType(c layer.Compression) string {
	if e.img.Manifest.MediaType == dockerManifest {
		return dockerLayer + sniffedSuffix(c.MediaType())
	}
	return c.MediaType()
}

// Commit stores the image and gives it a tag; what had it loses it. If the image was found through
// indexes they are written anew, with the image in the old one's place, and
// the tag is the outermost one's.
func (e *Edit) Commit(ctx context.Context, tag string) (*Image, error) {
	if err := CheckTag(tag); err != nil {
		return nil, err
	}
	img, err := e.encoded()
	if err != nil {
		return nil, err
	}
	if err := e.store(ctx, img); err != nil {
		return nil, err
	}
	top := img.Path[0]
	top.Annotations = withTag(top.Annotations, tag)
	err = e.layout.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		return append(without(list, tag), top), nil
	})
	if err != nil {
		return nil, err
	}
	img.Name, img.Path[0] = tag, top
	img.Descriptor = img.Path[len(img.Path)-1]
	return img, nil
}

// encoded returns the image as it is to be stored.
func (e *Edit) encoded() (*Image, error) {
	img := e.img.clone()
	diffs := e.img.Config.RootFS
	img.Config, img.Config.RootFS = e.Config, diffs
	img.Manifest.Annotations = maps.Clone(e.Annotations)
	if len(img.Manifest.Annotations) == 0 {
		img.Manifest.Annotations = nil
	}
	for _, l := range img.Manifest.Layers {
		if !e.layout.has(l) {
			return nil, notFound("layer %s not found in %s", l.Digest, e.layout)
		}
	}
	return img, img.encode()
}

// store stores the documents, from the configuration to the outermost index,
// and makes img.Path what leads to them.
func (e *Edit) store(ctx context.Context, img *Image) error {
	if err := e.layout.put(ctx, img.Manifest.Config, img.RawConfig); err != nil {
		return err
	}
	if err := e.layout.put(ctx, img.Descriptor, img.RawManifest); err != nil {
		return err
	}
	path, err := e.rewrite(ctx, img)
	if err != nil {
		return err
	}
	img.Path = path
	return e.layout.syncBlobs()
}

// rewrite stores the indexes above the image anew and returns the new path.
func (e *Edit) rewrite(ctx context.Context, img *Image) ([]v1.Descriptor, error) {
	old := img.Path
	child := img.Descriptor
	if len(old) == 0 {
		return []v1.Descriptor{child}, nil
	}
	last := old[len(old)-1]
	child = replaced(last, child)
	if child.Platform != nil {
		p := img.Config.Platform
		child.Platform = &p
	}
	path := []v1.Descriptor{child}
	for i := len(old) - 2; i >= 0; i-- {
		raw, err := fetch(ctx, e.layout, old[i])
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		if raw, err = replaceChild(raw, old[i+1].Digest, path[0]); err != nil {
			return nil, fmt.Errorf("change index %s: %w", old[i].Digest, err)
		}
		index := replaced(old[i], v1.Descriptor{MediaType: old[i].MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))})
		if err := e.layout.put(ctx, index, raw); err != nil {
			return nil, err
		}
		path = append([]v1.Descriptor{index}, path...)
	}
	return path, nil
}

// replaced returns what stands in the place of d and is now another blob.
func replaced(d, blob v1.Descriptor) v1.Descriptor {
	d.MediaType, d.Digest, d.Size, d.Data = blob.MediaType, blob.Digest, blob.Size, nil
	return d
}

// replaceChild replaces the descriptor of one child of an index, and keeps
// all else that the index has.
func replaceChild(raw []byte, old digest.Digest, child v1.Descriptor) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, badJSON(err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(doc["manifests"], &list); err != nil {
		return nil, badJSON(err)
	}
	for i, item := range list {
		var d v1.Descriptor
		if err := json.Unmarshal(item, &d); err != nil {
			return nil, badJSON(err)
		}
		if d.Digest != old {
			continue
		}
		var err error
		if list[i], err = json.Marshal(child); err != nil {
			return nil, err
		}
		break
	}
	var err error
	if doc["manifests"], err = json.Marshal(list); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// verifyLayer reads a layer to its end.
func verifyLayer(ctx context.Context, src Source, desc v1.Descriptor, diffID digest.Digest) error {
	r, err := OpenTar(ctx, src, desc, diffID)
	if err != nil {
		return err
	}
	defer r.Close()
	return copyContext(ctx, io.Discard, r, nil)
}

// OpenTar opens a layer's uncompressed tar stream. Its reader returns io.EOF
// only after content of both digests, the blob's and the diffID, else an error
// of class ErrDataLoss.
func OpenTar(ctx context.Context, src Source, desc v1.Descriptor, diffID digest.Digest) (io.ReadCloser, error) {
	if err := checkDigest(diffID); err != nil {
		return nil, err
	}
	blob, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	plain, _, err := layer.Decompress(blob, layer.Limits{})
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return &tarStream{blob: blob, plain: plain, hash: counted{w: io.Discard, hash: diffID.Algorithm().Hash()}, want: diffID}, nil
}

type tarStream struct {
	blob, plain io.ReadCloser
	hash        counted
	want        digest.Digest
	err         error
}

func (t *tarStream) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.plain.Read(p)
	_, _ = t.hash.Write(p[:n])
	if err == io.EOF {
		err = t.end()
	}
	t.err = err
	return n, err
}

// end reads what the decompressor has left of the blob, so that all of it is
// checked.
func (t *tarStream) end() error {
	if err := copyContext(context.Background(), io.Discard, t.blob, nil); err != nil {
		return err
	}
	if got := digest.NewDigest(t.want.Algorithm(), t.hash.hash); got != t.want {
		return dataLoss("its content has diffID %s, not %s", got, t.want)
	}
	return io.EOF
}

func (t *tarStream) Close() error { return errors.Join(t.plain.Close(), t.blob.Close()) }
