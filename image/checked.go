package image

import (
	"context"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Unchecked is a place of blobs that says nothing about their content, such
// as a registry. [Checked] makes a source of it. Its methods may be called
// from several goroutines.
type Unchecked interface {
	// Index is that of Source.
	Index(ctx context.Context) (v1.Index, error)
	// OpenAt opens a blob from an offset on, which is not behind its end. A
	// blob that is not there is an error of class ErrNotFound.
	OpenAt(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error)
	// String names the place in messages.
	String() string
	// Close releases what the place holds.
	Close() error
}

// Checked returns a source that holds every blob of u against its descriptor.
func Checked(u Unchecked) Source { return &checked{u} }

type checked struct{ Unchecked }

func (c *checked) Blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return openVerified(ctx, c, desc)
}

func (c *checked) rawBlob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return c.OpenAt(ctx, desc, 0)
}

// IsManifest reports whether a descriptor's media type is that of a manifest
// or of an index, which registries keep apart from other blobs.
func IsManifest(desc v1.Descriptor) bool {
	return isManifest(desc.MediaType) || isIndex(desc.MediaType)
}

// IsLayer reports whether a descriptor's media type is that of a layer.
func IsLayer(desc v1.Descriptor) bool { return isLayer(desc.MediaType) }

// IsForeign reports whether a descriptor is that of a layer that registries
// need not have, because it can be had from the descriptor's URLs.
func IsForeign(desc v1.Descriptor) bool { return isForeign(desc.MediaType) && len(desc.URLs) > 0 }

// unopened says why Open and Create have nothing for a reference.
func unopened(ref Ref) error {
	if ref.Transport == TransportDocker {
		return invalid("it is in a registry: pull it first, or copy it")
	}
	return invalid("it is a name of the local store")
}
