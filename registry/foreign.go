package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/hostcompute/hcs/image"
)

// A foreign layer, as base images for Windows had them for long, need not be in the registry that has the image: its
// descriptor tells where it can be had (OCI image specification, descriptor.md, "urls", and layer.md, "Non-Distributable
// Layers"). These places are asked when the registry does not have it, without credentials. Whatever they send is held against
// the descriptor's digest, as all is.

// first begins the first transfer.
func (b *blob) first(ctx context.Context) error {
	for {
		err := b.open()
		if err == nil {
			return nil
		}
		if isTransient(err) {
			err = b.wait(ctx, err)
		}
		if err != nil {
			return b.explain(err)
		}
	}
}

// firstElsewhere is first for a blob that the registry does not have, which missing tells.
func (b *blob) firstElsewhere(ctx context.Context, missing error) error {
	failed := missing
	for _, place := range b.desc.URLs {
		u, err := url.Parse(place)
		if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			err = errors.New("it is no http or https URL")
		}
		if err == nil {
			b.elsewhere, b.attempts = u, attempts{}
			if err = b.first(ctx); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		failed = classed(errdefs.ErrNotFound, "%w, nor at %q: %w", missing, place, err)
	}
	return failed
}

// where names what the blob comes from, for messages.
func (b *blob) where() string {
	if b.elsewhere != nil {
		return b.elsewhere.Host
	}
	return "registry " + b.Reference.Registry
}

// ask sends the request for the blob.
func (b *blob) ask(req *http.Request) (*http.Response, error) {
	if b.elsewhere != nil {
		return (&http.Client{Transport: later{b.transport}}).Do(req)
	}
	return b.client.Do(req)
}

func (b *blob) address() string {
	if b.elsewhere != nil {
		return b.elsewhere.String()
	}
	return b.url(b.desc)
}

// explain says in one line why the blob cannot be had.
func (b *blob) explain(err error) error {
	if b.elsewhere == nil {
		return b.repository.explain(err, "blob "+string(b.desc.Digest))
	}
	var (
		answer  *errcode.ErrorResponse
		request *url.Error
	)
	switch {
	case errors.As(err, &answer):
		return fmt.Errorf("status %d, %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	case errors.As(err, &request):
		return classed(errdefs.ErrUnavailable, "%w", request.Err)
	}
	return err
}

// isLeft reports whether a layer is left where its descriptor says that it is.
func (t *target) isLeft(desc v1.Descriptor) bool { return !t.config.Foreign && image.IsForeign(desc) }
