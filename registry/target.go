package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
)

// Create returns a target that puts images into ref's repository. Add uploads
// blobs; Commit gives images their tags. It refuses a reference with a
// digest.
func Create(_ context.Context, ref image.Ref, c Config) (image.Target, error) {
	if ref.Digest != "" {
		return nil, classed(errInvalid, "a digest cannot be chosen")
	}
	r, err := c.connect(ref)
	if err != nil {
		return nil, err
	}
	t := &target{repository: r, config: c}
	if t.config.Parallel <= 0 {
		t.config.Parallel = defaultParallel
	}
	return t, nil
}

type target struct {
	*repository
	config    Config
	manifests []manifest
}

// A manifest waits for Commit.
type manifest struct {
	desc      v1.Descriptor
	raw       []byte
	reference string // its tag, or its digest
}

// Add uploads the blobs that the repository has not. An empty tag means the
// reference's.
func (t *target) Add(ctx context.Context, src image.Source, img *image.Image, tag string) error {
	if err := t.upload(ctx, src, img.Manifest.Layers); err != nil {
		return err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(img.RawConfig)), nil }
	if err := t.uploadBlob(ctx, img.Manifest.Config, open, func(int64) {}); err != nil {
		return err
	}
	t.add(img.Descriptor, img.RawManifest, t.tag(tag))
	return nil
}

// AddTree is Add for all that a tree has.
func (t *target) AddTree(ctx context.Context, src image.Source, tree *image.Tree, tag string) error {
	if err := t.upload(ctx, src, tree.Blobs()); err != nil {
		return err
	}
	last := len(tree.Nodes) - 1
	for _, n := range tree.Nodes[:last] {
		t.add(n.Descriptor, n.Raw, string(n.Descriptor.Digest))
	}
	t.add(tree.Root().Descriptor, tree.Root().Raw, t.tag(tag))
	return nil
}

func (t *target) tag(tag string) string {
	if tag == "" {
		return t.ref.Tag
	}
	return tag
}

func (t *target) add(desc v1.Descriptor, raw []byte, reference string) {
	desc = v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	t.manifests = append(t.manifests, manifest{desc, raw, reference})
}

// upload uploads some blobs at a time. The first failure stops the others.
func (t *target) upload(ctx context.Context, src image.Source, blobs []v1.Descriptor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, t.config.Parallel)
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for i, desc := range blobs {
		if seen[string(desc.Digest)] {
			t.report(i, desc, desc.Size)
			continue
		}
		seen[string(desc.Digest)] = true
		if t.isLeft(desc) {
			t.report(i, desc, desc.Size)
			continue
		}
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			open := func() (io.ReadCloser, error) { return src.Blob(ctx, desc) }
			err := t.uploadBlob(ctx, desc, open, func(done int64) { t.report(i, desc, done) })
			if err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (t *target) report(i int, desc v1.Descriptor, done int64) {
	if t.config.Progress != nil && image.IsLayer(desc) {
		t.config.Progress(image.Progress{Layer: i, Blob: desc.Digest, Done: done, Total: desc.Size})
	}
}

// uploadBlob brings one blob into the repository, if it is not there.
func (t *target) uploadBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error), report func(int64)) error {
	object := "blob " + string(desc.Digest)
	err := again(ctx, func() error {
		there, err := t.Blobs().Exists(ctx, desc)
		if err != nil || there {
			return err
		}
		return t.send(ctx, desc, open, report)
	})
	if err != nil {
		return fmt.Errorf("upload %s: %w", object, t.explain(err, object))
	}
	report(desc.Size)
	return nil
}

// send takes a blob from another repository, or uploads it.
func (t *target) send(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error), report func(int64)) error {
	ctx, w, cancel := newWatch(ctx, t.stall)
	defer cancel()
	out := &outgoing{open: open, watch: w, report: report}
	defer func() { _ = out.Close() }() // it was only read
	if t.config.Mount != nil {
		from := t.config.Mount(desc.Digest)
		if from != "" && from != t.Reference.Repository {
			err := t.Mount(ctx, desc, from, func() (io.ReadCloser, error) { return out, nil })
			if err == nil || out.blob != nil {
				return out.verdict(ctx, err)
			}
		}
	}
	return out.verdict(ctx, t.Blobs().Push(ctx, desc, out))
}

// outgoing is the content of an upload, opened when it is first read. The
// watch runs while the network has the last piece.
type outgoing struct {
	open   func() (io.ReadCloser, error)
	blob   io.ReadCloser
	watch  *watch
	report func(int64)
	done   int64
	err    error // of our side
}

func (o *outgoing) Read(p []byte) (int, error) {
	o.watch.stop()
	if o.blob == nil && o.err == nil {
		o.blob, o.err = o.open()
	}
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.blob.Read(p)
	if o.done += int64(n); n > 0 {
		o.report(o.done)
	}
	if err != nil {
		o.err = err
		return n, err
	}
	o.watch.start()
	return n, nil
}

func (o *outgoing) Close() error {
	o.watch.stop()
	if o.blob == nil {
		return nil
	}
	return o.blob.Close()
}

// verdict is an upload's error: our own side's, if that failed, and why the
// transfer was given up, if it was.
func (o *outgoing) verdict(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case o.err != nil && o.err != io.EOF:
		return &sourceError{o.err}
	case errors.Is(context.Cause(ctx), errStalled):
		return errStalled
	}
	return err
}

// A sourceError is not the registry's, and not to be tried again.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Is(target error) bool {
	return target != io.EOF && target != io.ErrUnexpectedEOF && errors.Is(e.err, target)
}

// Commit puts the manifests, in the order in which they were added: what an
// index lists has to be there before it.
func (t *target) Commit(ctx context.Context) error {
	for _, m := range t.manifests {
		err := again(ctx, func() error {
			return t.PushReference(ctx, m.desc, bytes.NewReader(m.raw), m.reference)
		})
		if err != nil {
			return fmt.Errorf("put manifest %s: %w", m.desc.Digest, t.explain(err, fmt.Sprintf("manifest %q", m.reference)))
		}
	}
	t.manifests = nil
	return nil
}
