package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// hold takes the lock under which blobs may be added that no image has yet.
// Closing the file gives it back.
func (s *Store) hold(ctx context.Context) (*os.File, error) {
	return lockDir(ctx, s.blobsDir(), lockShared)
}

// collect removes the blobs that no image has, unless somebody is adding
// some: then they are left for the next time.
func (s *Store) collect(ctx context.Context, removed *Removed) error {
	f, err := os.Open(s.blobsDir())
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
	used, err := s.used(ctx)
	if err != nil {
		return fmt.Errorf("collect unused blobs: %w", err)
	}
	return s.walkBlobs(func(d digest.Digest, info fs.FileInfo) error {
		if used[d] {
			return nil
		}
		if err := os.Remove(s.blobPath(d)); err != nil {
			return err
		}
		removed.Blobs = append(removed.Blobs, d)
		removed.Bytes += info.Size()
		return nil
	})
}

// used returns the digests of all blobs that images have. If one image cannot
// be read nothing may be collected: its layers would be lost.
func (s *Store) used(ctx context.Context) (map[digest.Digest]bool, error) {
	index, err := s.Index(ctx)
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		if used[d.Digest] {
			continue
		}
		used[d.Digest] = true
		if !isManifest(d.MediaType) {
			continue
		}
		raw, err := fetch(ctx, s, d)
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", describe(d), err)
		}
		m, err := parseManifest(raw, d.MediaType)
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", describe(d), err)
		}
		used[m.Config.Digest] = true
		for _, l := range m.Layers {
			used[l.Digest] = true
		}
	}
	return used, nil
}

// walkBlobs calls visit for every file that has a blob's name.
func (s *Store) walkBlobs(visit func(digest.Digest, fs.FileInfo) error) error {
	algorithms, err := os.ReadDir(s.blobsDir())
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		blobs, err := os.ReadDir(filepath.Join(s.blobsDir(), a.Name()))
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
func (s *Store) removeTemps(removed *Removed) error {
	temps, err := os.ReadDir(s.tempPath(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range temps {
		path := s.tempPath(t.Name())
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
