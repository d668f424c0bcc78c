package image

import (
	"bytes"
	"context"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is a place that images are read from. Its methods may be called
// from several goroutines.
type Source interface {
	// Index returns the source's top-level descriptors. An image's tag is in
	// the annotation org.opencontainers.image.ref.name.
	Index(ctx context.Context) (v1.Index, error)
	// Blob opens a blob. Its reader returns io.EOF only after content of the
	// descriptor's size and digest, else an error of class ErrDataLoss. A
	// blob that is not there is an error of class ErrNotFound.
	Blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)
	// String names the source in messages.
	String() string
	// Close releases what the source holds. Readers are not to be used after.
	Close() error
}

// rawSource is a source that also gives a blob without checking its content,
// to those who check it themselves while they copy.
type rawSource interface {
	rawBlob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)
}

// Open opens the place that ref is in, which is not the local store. An
// archive may be compressed; it is then unpacked into a temporary file that
// Close removes.
func Open(ctx context.Context, ref Ref) (Source, error) {
	var (
		src Source
		err error
	)
	switch ref.Transport {
	case TransportOCI:
		src, err = openLayout(ref.Path)
	case TransportOCIArchive:
		src, err = openOCIArchive(ctx, ref.Path)
	case TransportDockerArchive:
		src, err = openDockerArchive(ctx, ref.Path)
	default:
		err = unopened(ref)
	}
	if err != nil {
		return nil, fmt.Errorf("open image %q: %w", ref, err)
	}
	return src, nil
}

// OpenImage opens ref's place and resolves the image that it selects. The
// caller closes the source, which gives the image's layers.
func OpenImage(ctx context.Context, ref Ref, platform v1.Platform) (Source, *Image, error) {
	return OpenImageWithin(ctx, ref, platform, Limits{})
}

// OpenImageWithin is OpenImage with limits of the caller's, as ResolveWithin is
// Resolve.
func OpenImageWithin(ctx context.Context, ref Ref, platform v1.Platform, limits Limits) (Source, *Image, error) {
	src, err := Open(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	img, err := ResolveWithin(ctx, src, ref.Selector(), platform, limits)
	if err != nil {
		_ = src.Close()
		return nil, nil, fmt.Errorf("image %q: %w", ref, err)
	}
	return src, img, nil
}

// fetch reads a whole document, checked against its descriptor.
func fetch(ctx context.Context, src Source, desc v1.Descriptor) ([]byte, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	if desc.Size > maxDocument {
		return nil, invalid("blob %s: its %d bytes are more than the %d that a document may have", desc.Digest, desc.Size, maxDocument)
	}
	if desc.Data != nil {
		return desc.Data, nil
	}
	blob, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	var buf bytes.Buffer
	buf.Grow(int(desc.Size) + bytes.MinRead)
	if _, err := io.Copy(&buf, io.LimitReader(blob, maxDocument+1)); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	return buf.Bytes(), nil
}

// openRaw opens a blob's content unchecked if the source can.
func openRaw(ctx context.Context, src Source, desc v1.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	if raw, ok := src.(rawSource); ok {
		return raw.rawBlob(ctx, desc)
	}
	return src.Blob(ctx, desc)
}

// openVerified is Blob for a source that has rawBlob.
func openVerified(ctx context.Context, src rawSource, desc v1.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	blob, err := src.rawBlob(ctx, desc)
	if err != nil {
		return nil, err
	}
	return verify(blob, desc), nil
}

const copyBuffer = 256 << 10

// copyContext copies until the end or until the context is done.
func copyContext(ctx context.Context, w io.Writer, r io.Reader, progress func(int64)) error {
	buf := make([]byte, copyBuffer)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if progress != nil {
				progress(int64(n))
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
