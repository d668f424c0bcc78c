package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxMembers = 1 << 17 // of an archive: an image has at most some hundred blobs
	maxHops    = 16      // links from one member to the next
	maxSpool   = 1 << 38 // bytes of an archive after decompression
)

// A member is where a file of a tar archive has its content.
type member struct {
	offset, size int64
	link         string // not empty: the content is that of another member
}

// An archive is a tar file that is read by the places of its members, without
// unpacking it.
type archive struct {
	name    string
	what    string
	file    *os.File
	spooled bool // file is a temporary one
	members map[string]member
}

func openArchive(ctx context.Context, name, what string) (*archive, error) {
	a := &archive{name: name, what: what, members: map[string]member{}}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("%s not found", a)
	}
	if err != nil {
		return nil, err
	}
	a.file, a.spooled, err = seekable(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a, err)
	}
	if err := a.index(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", a, err), a.Close())
	}
	return a, nil
}

func (a *archive) String() string { return a.what + " " + a.name }

func (a *archive) Close() error {
	err := a.file.Close()
	if a.spooled && runtime.GOOS == "windows" {
		err = errors.Join(err, os.Remove(a.file.Name()))
	}
	return err
}

// seekable returns a file of the plain archive: f itself, or, if f is
// compressed or a pipe, a temporary file with what comes out of it.
func seekable(ctx context.Context, f *os.File) (*os.File, bool, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	if info.IsDir() {
		return nil, false, errors.Join(invalid("it is a directory"), f.Close())
	}
	if info.Mode().IsRegular() {
		var magic [4]byte
		n, err := f.ReadAt(magic[:], 0)
		if err != nil && err != io.EOF {
			return nil, false, errors.Join(err, f.Close())
		}
		if sniff(magic[:n]) == "" {
			return f, false, nil
		}
	}
	defer f.Close()
	t, err := spool(ctx, f)
	return t, true, err
}

// spool writes the plain form of r into a temporary file that has no name
// any more where the system allows that.
func spool(ctx context.Context, r io.Reader) (*os.File, error) {
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	t, err := os.CreateTemp(spoolDir(), "hcs-archive-*")
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" {
		if err := os.Remove(t.Name()); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	limited := &io.LimitedReader{R: plain, N: maxSpool + 1}
	err = copyContext(ctx, t, limited, nil)
	if err == nil && limited.N == 0 {
		err = invalid("it is larger than %d bytes when it is decompressed", int64(maxSpool))
	}
	if err == nil {
		_, err = t.Seek(0, io.SeekStart)
	}
	if err != nil {
		err = fmt.Errorf("decompress into a temporary file in %s: %w", spoolDir(), errors.Join(err, t.Close()))
		if runtime.GOOS == "windows" {
			err = errors.Join(err, os.Remove(t.Name()))
		}
		return nil, err
	}
	return t, nil
}

// spoolDir returns where large temporary files go: TMPDIR if it is set, else
// /var/tmp, because /tmp is often in memory.
func spoolDir() string {
	if os.Getenv("TMPDIR") == "" && runtime.GOOS != "windows" {
		if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
			return "/var/tmp"
		}
	}
	return os.TempDir()
}

// index notes every member's place. If a name comes twice the last one
// counts, as when the archive is unpacked.
func (a *archive) index(ctx context.Context) error {
	r := tar.NewReader(a.file)
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := r.Next()
		if err == io.EOF && n == 0 {
			return invalid("it is no tar archive, or an empty one")
		}
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return dataLoss("it is truncated: %w", err)
		}
		if err != nil {
			return invalid("%w", err)
		}
		if n == maxMembers {
			return invalid("it has more than %d members", maxMembers)
		}
		if err := a.note(h); err != nil {
			return err
		}
	}
}

// note takes one member in. archive/tar reads whole headers and no further,
// so the content begins where the file stands.
func (a *archive) note(h *tar.Header) error {
	name, ok := memberName(h.Name)
	if !ok {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if sparse(h) {
			return nil
		}
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		a.members[name] = member{offset: offset, size: h.Size}
	case tar.TypeLink:
		a.members[name] = member{link: h.Linkname}
	case tar.TypeSymlink:
		a.members[name] = member{link: path.Join(path.Dir(name), h.Linkname)}
	}
	return nil
}

func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// memberName cleans a member's name; one that leads out of the archive names
// nothing in it.
func memberName(s string) (string, bool) {
	s = path.Clean(s)
	return s, s != "." && s != ".." && !strings.HasPrefix(s, "../") && !strings.HasPrefix(s, "/")
}

// find returns a member's content. Links are followed within the archive:
// "docker save" has written a layer that occurs twice as a link.
func (a *archive) find(name string) (*io.SectionReader, bool) {
	for range maxHops {
		clean, ok := memberName(name)
		if !ok {
			return nil, false
		}
		m, ok := a.members[clean]
		if !ok {
			return nil, false
		}
		if m.link == "" {
			return io.NewSectionReader(a.file, m.offset, m.size), true
		}
		name = m.link
	}
	return nil, false
}

// document reads a member that is a JSON document.
func (a *archive) document(name string) ([]byte, error) {
	r, ok := a.find(name)
	if !ok {
		return nil, notFound("%s has no %s", a, name)
	}
	if r.Size() > maxDocument {
		return nil, invalid("%s of %s: its %d bytes are more than the %d that a document may have", name, a, r.Size(), maxDocument)
	}
	raw := make([]byte, r.Size())
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, dataLoss("%s of %s: %w", name, a, err)
	}
	return raw, nil
}

// An ociArchive is an OCI layout in a tar file.
type ociArchive struct{ *archive }

func openOCIArchive(ctx context.Context, name string) (*ociArchive, error) {
	a, err := openArchive(ctx, name, "archive")
	if err != nil {
		return nil, err
	}
	raw, err := a.document(v1.ImageLayoutFile)
	if err == nil {
		if err = checkLayoutFile(raw); err != nil {
			err = fmt.Errorf("read %s of %s: %w", v1.ImageLayoutFile, a, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &ociArchive{a}, nil
}

func (o *ociArchive) Index(context.Context) (v1.Index, error) {
	raw, err := o.document(v1.ImageIndexFile)
	if err != nil {
		return v1.Index{}, err
	}
	index, err := parseIndex(raw, v1.MediaTypeImageIndex)
	if err != nil {
		return v1.Index{}, fmt.Errorf("read %s of %s: %w", v1.ImageIndexFile, o, err)
	}
	return index, nil
}

func (o *ociArchive) Blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return openVerified(ctx, o, desc)
}

func (o *ociArchive) rawBlob(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return o.blob(blobName(desc.Digest), desc)
}

// blobName returns where a layout in an archive has a blob.
func blobName(d digest.Digest) string {
	return path.Join(v1.ImageBlobsDir, string(d.Algorithm()), d.Encoded())
}

func (a *archive) blob(name string, desc v1.Descriptor) (io.ReadCloser, error) {
	r, ok := a.find(name)
	if !ok {
		return nil, notFound("blob %s not found in %s", desc.Digest, a)
	}
	if err := checkSize(desc, r.Size()); err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}
