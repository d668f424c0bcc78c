package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// LoadOptions says how Load goes about it. The zero value copies the image.
type LoadOptions struct {
	// OnLayer is called for every layer, for several at once, to unpack it.
	// open returns the layer's blob as it is, checked against its digest: the
	// reader returns io.EOF only if all of it was right. The bytes that it
	// reads are stored meanwhile, so that a layer is read once; what it leaves
	// is copied after it has returned. open may be called again. The readers
	// are not to be used after OnLayer has returned.
	OnLayer func(ctx context.Context, i int, diffID digest.Digest, open func() (io.ReadCloser, error)) error
	// Progress, if not nil, is called while layers pass, from several
	// goroutines.
	Progress func(Progress)
	// Parallel is the number of layers at a time; 0 means one for each
	// processor, and one more.
	Parallel int
	// Resume goes on with what an earlier load has left, and leaves what it has
	// if it fails: whole blobs until something is removed from the store, parts
	// of blobs until Prune.
	Resume bool
}

// Progress says how far a layer is.
type Progress struct {
	Layer       int
	Blob        digest.Digest
	Done, Total int64 // bytes of the blob
}

// Load brings an image of src into the store and gives it a name, if name is
// not empty. Blobs that are there are not copied. Many may load the same
// image at once: every blob is written by one of them. If it fails the store
// is as before, unless it is to be resumed.
func (s *Store) Load(ctx context.Context, src Source, img *Image, name string, opts LoadOptions) (*Image, error) {
	loaded, err := s.load(ctx, src, img, name, opts)
	if err != nil {
		var removed Removed
		cause := fmt.Errorf("load image %q into %s: %w", orDigest(name, img), s, err)
		if opts.Resume {
			return nil, cause
		}
		return nil, errors.Join(cause, s.collect(context.WithoutCancel(ctx), &removed))
	}
	return loaded, nil
}

func orDigest(name string, img *Image) string {
	if name != "" {
		return name
	}
	return string(img.Descriptor.Digest)
}

func (s *Store) load(ctx context.Context, src Source, img *Image, name string, opts LoadOptions) (*Image, error) {
	if name != "" {
		var err error
		if name, err = NormalName(name); err != nil {
			return nil, err
		}
	}
	hold, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	if err := s.loadLayers(ctx, src, img, opts); err != nil {
		return nil, err
	}
	return s.finish(ctx, img, name)
}

// finish stores an image's documents and lists it. The caller holds the lock
// that keeps its blobs.
func (s *Store) finish(ctx context.Context, img *Image, name string) (*Image, error) {
	if err := s.put(ctx, img.Manifest.Config, img.RawConfig); err != nil {
		return nil, err
	}
	if err := s.put(ctx, img.Descriptor, img.RawManifest); err != nil {
		return nil, err
	}
	if err := s.syncBlobs(); err != nil {
		return nil, err
	}
	stored := *img
	stored.Name = name
	stored.Descriptor = img.entry(name)
	err := s.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		if name != "" {
			return giveName(list, stored.Descriptor), nil
		}
		for _, d := range list {
			if d.Digest == stored.Descriptor.Digest {
				return list, nil
			}
		}
		return append(list, stored.Descriptor), nil
	})
	if err != nil {
		return nil, err
	}
	return &stored, nil
}

// loadLayers loads all layers, some at a time. The first failure stops the
// others.
func (s *Store) loadLayers(ctx context.Context, src Source, img *Image, opts LoadOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parallel := opts.Parallel
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0) + 1
	}
	slots := make(chan struct{}, parallel)
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for i, desc := range img.Manifest.Layers {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.loadLayer(ctx, src, img, i, opts); err != nil {
				once.Do(func() { first = fmt.Errorf("layer %d, %s: %w", i, desc.Digest, err) })
				cancel(err)
			}
		})
	}
	wg.Wait()
	if first != nil {
		return first
	}
	return context.Cause(ctx)
}

func (s *Store) loadLayer(ctx context.Context, src Source, img *Image, i int, opts LoadOptions) error {
	desc := img.Manifest.Layers[i]
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	t := &layerCopy{store: s, src: src, desc: desc, ingest: s.ingest}
	if opts.Resume {
		t.ingest = s.resume
	}
	if opts.Progress != nil {
		t.progress = func(done int64) {
			opts.Progress(Progress{Layer: i, Blob: desc.Digest, Done: done, Total: desc.Size})
		}
	}
	if opts.OnLayer != nil {
		err := opts.OnLayer(ctx, i, img.DiffIDs()[i], func() (io.ReadCloser, error) { return t.open(ctx) })
		if err != nil {
			return errors.Join(err, t.abort())
		}
	}
	return t.finish(ctx)
}

// A layerCopy brings one blob into the store. The first reader of the blob
// takes the copy along with it.
type layerCopy struct {
	store    *Store
	src      Source
	desc     v1.Descriptor
	ingest   func(v1.Descriptor, func(*os.File) error) (*ingest, error)
	progress func(done int64)

	mu   sync.Mutex
	tee  *tee
	once bool
}

// open returns the blob: from the store if it has it, else from the source.
// It never waits for another writer, who may be waiting for our caller.
func (c *layerCopy) open(ctx context.Context) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.once {
		return c.src.Blob(ctx, c.desc)
	}
	in, err := c.ingest(c.desc, trying)
	switch {
	case errors.Is(err, errStored):
		return c.store.Blob(ctx, c.desc)
	case errors.Is(err, errLocked):
		return c.src.Blob(ctx, c.desc)
	case err != nil:
		return nil, fmt.Errorf("write blob %s: %w", c.desc.Digest, err)
	}
	blob, err := in.openRest(ctx, c.src)
	if err != nil {
		return nil, errors.Join(err, in.abort())
	}
	c.once = true
	c.tee = newTee(ctx, blob, in, c.progress)
	return c.tee, nil
}

// finish copies what was not read, and publishes the blob.
func (c *layerCopy) finish(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tee != nil {
		return c.tee.finish()
	}
	var done int64
	progress := func(n int64) {
		if done += n; c.progress != nil {
			c.progress(done)
		}
	}
	in, err := c.ingest(c.desc, waiting(ctx))
	if errors.Is(err, errStored) {
		progress(c.desc.Size)
		return nil
	}
	if err != nil {
		return fmt.Errorf("write blob %s: %w", c.desc.Digest, err)
	}
	return in.fill(ctx, func() (io.ReadCloser, error) { return in.openRest(ctx, c.src) }, progress)
}

func (c *layerCopy) abort() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tee == nil {
		return nil
	}
	return c.tee.abort()
}
