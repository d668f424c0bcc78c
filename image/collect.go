package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// hold takes the lock under which blobs may be added that no image has yet.
// Closing the file gives it back.
func (l *layout) hold(ctx context.Context) (*os.File, error) {
	return lockDir(ctx, l.blobsDir(), lockShared)
}

// collect removes the blobs that no image has, unless somebody is adding
// some: then they are left for the next time.
func (l *layout) collect(ctx context.Context, removed *Removed) error {
	f, err := os.Open(l.blobsDir())
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tryLock(f, lockExclusive); err != nil {
		if errors.Is(err, errLocked) {
			removed.Deferred = true
			return nil
		}
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	used, err := l.used(ctx)
	if err != nil {
		return fmt.Errorf("collect unused blobs: %w", err)
	}
	return l.walkBlobs(func(d digest.Digest, info fs.FileInfo) error {
		if used[d] {
			return nil
		}
		if err := os.Remove(l.blobPath(d)); err != nil {
			return err
		}
		removed.Blobs = append(removed.Blobs, d)
		removed.Bytes += info.Size()
		return nil
	})
}

// used returns the digests of all blobs that images have. If one image cannot
// be read nothing may be collected: its layers would be lost.
func (l *layout) used(ctx context.Context) (map[digest.Digest]bool, error) {
	index, err := l.Index(ctx)
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		if err := l.mark(ctx, d, used, 0); err != nil {
			return nil, fmt.Errorf("image %q: %w", describe(d), err)
		}
	}
	return used, nil
}

// references are all that a manifest or an index of the image specification
// can refer to. A document that is both keeps what either has: that it is no
// image is for others to say.
type references struct {
	Config    *v1.Descriptor  `json:"config"`
	Subject   *v1.Descriptor  `json:"subject"`
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
}

// mark adds a blob and all that it refers to. What an index lists and the
// layout does not have is no error: layouts with one platform of many are
// common.
func (l *layout) mark(ctx context.Context, d v1.Descriptor, used map[digest.Digest]bool, depth int) error {
	if err := checkDescriptor(d); err != nil {
		return err
	}
	if used[d.Digest] {
		return nil
	}
	if depth > maxDepth {
		return invalid("blob %s is more than %d indexes deep", d.Digest, maxDepth)
	}
	used[d.Digest] = true
	if !isIndex(d.MediaType) && !isManifest(d.MediaType) {
		return nil
	}
	raw, err := fetch(ctx, l, d)
	if depth > 0 && errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var refs references
	if _, err := decode(raw, &refs, manifestKeys...); err != nil {
		return fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	for _, list := range [][]v1.Descriptor{one(refs.Config), one(refs.Subject), refs.Layers, refs.Manifests} {
		for _, child := range list {
			if err := l.mark(ctx, child, used, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func one(d *v1.Descriptor) []v1.Descriptor {
	if d == nil {
		return nil
	}
	return []v1.Descriptor{*d}
}

// walkBlobs calls visit for every file that has a blob's name.
func (l *layout) walkBlobs(visit func(digest.Digest, fs.FileInfo) error) error {
	algorithms, err := os.ReadDir(l.blobsDir())
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		blobs, err := os.ReadDir(filepath.Join(l.blobsDir(), a.Name()))
		if err != nil {
			return err
		}
		for _, b := range blobs {
			d := digest.Digest(a.Name() + ":" + b.Name())
			if checkDigest(d) != nil {
				continue
			}
			info, err := b.Info()
			if err == nil {
				err = visit(d, info)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// removeTemps removes the temporary files that nobody has locked.
func (l *layout) removeTemps(removed *Removed) error {
	temps, err := os.ReadDir(l.tempPath(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range temps {
		path := l.tempPath(t.Name())
		f, info, err := openRegular(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if tryLock(f, lockExclusive) == nil && sameFile(f, path) {
			if err := os.Remove(path); err != nil {
				errs = append(errs, err)
			} else {
				removed.Temps++
				removed.Bytes += info.Size()
			}
		}
		_ = f.Close()
	}
	return errors.Join(errs...)
}
