package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/hostcompute/hcs/image"
)

// accepted are the manifests that package image reads.
const accepted = v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex +
	", application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

// Open asks the registry that ref is in for what its tag or digest stands
// for, and returns a source with that alone. Blobs are fetched as they are
// opened. Errors: ErrNotFound if there is no such image, ErrUnauthenticated
// or ErrPermissionDenied if it is not for us, ErrUnavailable if the registry
// cannot be reached.
func Open(ctx context.Context, ref image.Ref, c Config) (image.Source, error) {
	r, err := c.connect(ref)
	if err != nil {
		return nil, err
	}
	s := &source{repository: r, have: c.Have, progress: c.Progress, layers: map[digest.Digest]int{}}
	if s.root, err = s.resolve(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return image.Checked(s), nil
}

// A source is what one tag or digest of a repository stands for.
type source struct {
	*repository
	root     v1.Descriptor
	have     image.Source
	progress func(image.Progress)

	mu     sync.Mutex
	layers map[digest.Digest]int // that were opened, in that order
}

// report returns what is to be told of a blob that is fetched, if anything.
func (s *source) report(desc v1.Descriptor) func(done int64) {
	if s.progress == nil || !image.IsLayer(desc) {
		return func(int64) {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.layers[desc.Digest]
	if !known {
		i = len(s.layers)
		s.layers[desc.Digest] = i
	}
	return func(done int64) {
		s.progress(image.Progress{Layer: i, Blob: desc.Digest, Done: done, Total: desc.Size})
	}
}

func (s *source) resolve(ctx context.Context) (v1.Descriptor, error) {
	var desc v1.Descriptor
	err := again(ctx, func() (err error) {
		desc, err = s.ask(ctx)
		return err
	})
	if err != nil {
		object := fmt.Sprintf("tag %q", s.ref.Tag)
		if s.ref.Digest != "" {
			object = "manifest " + string(s.ref.Digest)
		}
		return v1.Descriptor{}, s.explain(err, object)
	}
	if s.ref.Digest == "" {
		desc.Annotations = map[string]string{v1.AnnotationRefName: s.ref.Tag}
	}
	return desc, nil
}

// ask asks once.
func (s *source) ask(ctx context.Context) (v1.Descriptor, error) {
	desc, err := s.Resolve(ctx, s.reference())
	var answer *errcode.ErrorResponse
	known := errors.Is(err, errdef.ErrNotFound) || errors.Is(err, auth.ErrBasicCredentialNotFound) || errors.As(err, &answer)
	if err != nil && !known && !isTransient(err) {
		// Not every registry says in its answer to HEAD what the digest is.
		desc, body, err := s.FetchReference(ctx, s.reference())
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("registry %s: %w", s.Reference.Registry, err)
		}
		return desc, body.Close()
	}
	return desc, err
}

func (s *source) Index(context.Context) (v1.Index, error) {
	root := s.root
	root.Annotations = maps.Clone(root.Annotations)
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{root}}
	index.SchemaVersion = 2
	return index, nil
}

func (s *source) OpenAt(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if s.have != nil && offset == 0 {
		if blob, err := s.have.Blob(ctx, desc); err == nil {
			return blob, nil
		}
	}
	b := &blob{repository: s.repository, ctx: ctx, desc: desc, offset: offset, report: s.report(desc)}
	err := b.first(ctx)
	if errdefs.IsNotFound(err) && image.IsForeign(desc) {
		err = b.firstElsewhere(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// A blob reads a blob, and goes on where it was when a transfer breaks.
type blob struct {
	*repository
	ctx    context.Context
	desc   v1.Descriptor
	report func(done int64)

	elsewhere *url.URL // of a foreign layer; nil is the registry

	body     io.ReadCloser
	transfer context.Context
	watch    *watch
	cancel   context.CancelFunc

	offset int64 // of the next byte
	from   int64 // where this transfer began
	skip   int64 // what it gave that we have
	attempts
}

// enough is what a transfer has to bring, in bytes, not to count as one more
// failure in a row.
const enough = 64 << 10

func (b *blob) Read(p []byte) (int, error) {
	for {
		n, err := b.read(p)
		switch {
		case n > 0:
			b.report(b.offset)
			return n, nil // an error comes again
		case err == nil:
			return 0, nil
		case err == io.EOF && b.offset >= b.desc.Size:
			return 0, io.EOF
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		case errors.Is(context.Cause(b.transfer), errStalled):
			err = errStalled
		}
		if err := b.reopen(err); err != nil {
			return 0, err
		}
	}
}

func (b *blob) read(p []byte) (int, error) {
	b.watch.start()
	defer b.watch.stop()
	for b.skip > 0 && len(p) > 0 {
		n, err := b.body.Read(p[:min(int64(len(p)), b.skip)])
		if b.skip -= int64(n); err != nil {
			return 0, err
		}
		b.watch.start()
	}
	n, err := b.body.Read(p)
	b.offset += int64(n)
	return n, err
}

// reopen begins another transfer after one that failed with cause.
func (b *blob) reopen(cause error) error {
	if b.offset-b.from >= enough {
		b.attempts = attempts{}
	}
	for {
		_ = b.Close()
		if err := b.wait(b.ctx, cause); err != nil && b.ctx.Err() != nil {
			return err
		} else if err != nil {
			return classed(errdefs.ErrUnavailable, "fetch blob %s from %s: it broke off at %d of %d bytes: %w",
				b.desc.Digest, b.where(), b.offset, b.desc.Size, err)
		}
		err := b.open()
		if err == nil {
			return nil
		}
		var answer *errcode.ErrorResponse
		if errors.Is(err, errdefs.ErrDataLoss) || errors.As(err, &answer) && !isTransient(err) {
			return b.explain(err)
		}
		cause = err
	}
}

// open begins a transfer at the offset.
func (b *blob) open() error {
	b.from, b.skip = b.offset, 0
	b.transfer, b.watch, b.cancel = newWatch(b.ctx, b.stall)
	if b.offset > 0 && b.offset == b.desc.Size {
		b.body = http.NoBody
		return nil
	}
	err := b.begin(b.transfer)
	if err != nil {
		_ = b.Close()
	}
	return err
}

// begin asks for the content and judges the answer.
func (b *blob) begin(ctx context.Context) error {
	ctx = auth.AppendRepositoryScope(ctx, b.Reference, auth.ActionPull)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.address(), nil) // NoBody would not be sent again
	if err != nil {
		return err
	}
	if image.IsManifest(b.desc) {
		req.Header.Set("Accept", accepted)
	}
	if b.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
	}
	resp, err := b.ask(req) //nolint:bodyclose // Close does
	if err != nil {
		return err
	}
	b.body = resp.Body
	return b.judge(resp)
}

// judge looks at an answer before its content. A registry may send all of a
// blob though asked for a part (RFC 9110, section 14.2).
func (b *blob) judge(resp *http.Response) error {
	size := b.desc.Size
	switch resp.StatusCode {
	case http.StatusOK:
		b.skip = b.offset
	case http.StatusPartialContent:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.offset)) {
			return fmt.Errorf("%s: asked for bytes from %d on, it sends %q", b.where(), b.offset, resp.Header.Get("Content-Range"))
		}
		size -= b.offset
	default:
		return answerError(resp)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != size {
		return classed(errdefs.ErrDataLoss, "blob %s: %s sends %d bytes of it, not %d", b.desc.Digest, b.where(), resp.ContentLength, size)
	}
	return nil
}

func (b *blob) Close() error {
	b.cancel()
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}
