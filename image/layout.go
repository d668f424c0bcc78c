package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// tempDir is where a layout's files are while they are written. Each is
// locked by its writer, so that an unlocked one is a dead writer's.
const tempDir = ".hcs-tmp"

// A layout is an OCI image layout directory
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
type layout struct {
	dir  string
	what string // "layout" or "image store", for messages
}

func openLayout(dir string) (*layout, error) {
	l := &layout{dir: dir, what: "layout"}
	raw, err := readCapped(filepath.Join(dir, v1.ImageLayoutFile), maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("%s is not an OCI layout: it has no file %s", dir, v1.ImageLayoutFile)
	}
	if err != nil {
		return nil, err
	}
	if err := checkLayoutFile(raw); err != nil {
		return nil, fmt.Errorf("read %s of layout %s: %w", v1.ImageLayoutFile, dir, err)
	}
	if err := l.checkDirs(); err != nil {
		return nil, err
	}
	return l, nil
}

func checkLayoutFile(raw []byte) error {
	var file v1.ImageLayout
	if _, err := decode(raw, &file, "imageLayoutVersion"); err != nil {
		return err
	}
	if file.Version != v1.ImageLayoutVersion {
		return invalid("its version is %q, not %q", file.Version, v1.ImageLayoutVersion)
	}
	return nil
}

func (l *layout) String() string { return l.what + " " + l.dir }

func (l *layout) Close() error { return nil }

func (l *layout) Index(context.Context) (v1.Index, error) {
	raw, err := readCapped(filepath.Join(l.dir, v1.ImageIndexFile), maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return v1.Index{}, notFound("%s has no %s", l, v1.ImageIndexFile)
	}
	if err != nil {
		return v1.Index{}, err
	}
	index, err := parseIndex(raw, v1.MediaTypeImageIndex)
	if err != nil {
		return v1.Index{}, fmt.Errorf("read %s of %s: %w", v1.ImageIndexFile, l, err)
	}
	return index, nil
}

func (l *layout) Blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return openVerified(ctx, l, desc)
}

func (l *layout) rawBlob(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	f, info, err := openRegular(l.blobPath(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("blob %s not found in %s", desc.Digest, l)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", desc.Digest, err)
	}
	if err := checkSize(desc, info.Size()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// checkSize reports a blob's wrong size before it is read.
func checkSize(desc v1.Descriptor, size int64) error {
	switch {
	case size < desc.Size:
		return dataLoss("blob %s: it is truncated: %d of %d bytes", desc.Digest, size, desc.Size)
	case size > desc.Size:
		return dataLoss("blob %s: it has %d bytes, more than the %d of its descriptor", desc.Digest, size, desc.Size)
	}
	return nil
}

func (l *layout) blobsDir() string { return filepath.Join(l.dir, v1.ImageBlobsDir) }

func (l *layout) tempPath(name string) string { return filepath.Join(l.dir, tempDir, name) }

// blobPath is for digests that checkDigest has passed.
func (l *layout) blobPath(d digest.Digest) string {
	return filepath.Join(l.dir, v1.ImageBlobsDir, string(d.Algorithm()), d.Encoded())
}

// has reports whether a blob is there in its full size. Every blob was
// checked before it got its name.
func (l *layout) has(desc v1.Descriptor) bool {
	info, err := os.Lstat(l.blobPath(desc.Digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == desc.Size
}

// checkDirs refuses a layout whose directories are links or something else: what is read from them, and written to them, would be
// elsewhere. One that is missing is not at fault.
func (l *layout) checkDirs() error {
	for _, dir := range []string{
		l.blobsDir(), filepath.Join(l.blobsDir(), string(digest.SHA256)), filepath.Join(l.blobsDir(), string(digest.SHA512)),
		filepath.Join(l.dir, tempDir),
	} {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !info.IsDir():
			return invalid("%s is not a directory", dir)
		}
	}
	return nil
}

// create makes the directories and files of an empty layout, as far as they
// are missing.
func (l *layout) create(ctx context.Context, perm fs.FileMode) error {
	if err := l.checkDirs(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(l.blobsDir(), string(digest.SHA256)), filepath.Join(l.dir, tempDir)} {
		if err := os.MkdirAll(dir, perm); err != nil {
			return err
		}
	}
	unlock, err := lockDir(ctx, l.dir, lockExclusive)
	if err != nil {
		return err
	}
	defer unlock.Close()
	files := []struct {
		name  string
		value any
	}{
		{v1.ImageIndexFile, newIndex(nil)},
		{v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}},
	}
	for _, file := range files {
		if _, err := os.Lstat(filepath.Join(l.dir, file.name)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := l.writeJSON(ctx, file.name, file.value); err != nil {
			return err
		}
	}
	return nil
}

func newIndex(manifests []v1.Descriptor) v1.Index {
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: manifests}
	index.SchemaVersion = 2
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{}
	}
	return index
}

// writeJSON replaces one of the layout's own files at once. The caller holds
// the layout's lock.
func (l *layout) writeJSON(ctx context.Context, name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", name, l, err)
	}
	if len(raw) > maxDocument {
		return invalid("write %s of %s: its %d bytes would be more than the %d that can be read", name, l, len(raw), maxDocument)
	}
	f, err := l.openTemp(ctx, name)
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", name, l, err)
	}
	defer f.Close()
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(l.dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", name, l, errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(l.dir)
}

// update changes the list of images under the layout's lock.
func (l *layout) update(ctx context.Context, change func([]v1.Descriptor) ([]v1.Descriptor, error)) error {
	unlock, err := lockDir(ctx, l.dir, lockExclusive)
	if err != nil {
		return err
	}
	defer unlock.Close()
	index, err := l.Index(ctx)
	if err != nil {
		return err
	}
	before := index.Manifests
	if index.Manifests, err = change(before); err != nil {
		return err
	}
	if reflect.DeepEqual(before, index.Manifests) {
		return nil
	}
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{}
	}
	return l.writeJSON(ctx, v1.ImageIndexFile, index)
}
