package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// PruneReport says what Prune removed.
type PruneReport struct {
	Layers    []digest.Digest // layers that nobody keeps
	Scratches []string        // ids of scratch layers that were half made or half removed
	Leftovers []string        // directories of layers that were half unpacked or half removed
}

// Remove removes a layer by its ID. The error is of class errdefs.ErrNotFound if the store does not have it, and of class
// errdefs.ErrFailedPrecondition if a scratch layer stands on it, or another layer of a Windows image.
func (s *Store) Remove(ctx context.Context, diffID digest.Digest) error {
	key, err := s.removeKey(diffID)
	if err != nil {
		return err
	}
	lock, err := s.locks.Lock(ctx, key)
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", diffID, err)
	}
	if err := errors.Join(s.removeLocked(ctx, diffID, key), lock.Unlock()); err != nil {
		return fmt.Errorf("remove layer %s: %w", diffID, err)
	}
	return nil
}

func (s *Store) removeLocked(ctx context.Context, diffID digest.Digest, key string) error {
	if err := s.discard(key); err != nil {
		return err
	}
	if err := s.unpublish(ctx, diffID, key); err != nil {
		return err
	}
	s.cfg.Logger.Info("removed layer", "diffID", diffID)
	return s.discard(key)
}

// unpublish takes the layer's name away while no scratch layer can be made on top of it.
func (s *Store) unpublish(ctx context.Context, diffID digest.Digest, key string) error {
	lock, err := s.locks.LockAll(ctx)
	if err != nil {
		return err
	}
	user, err := s.userOf(diffID, key)
	switch {
	case err != nil:
	case user != "":
		err = fmt.Errorf("%s stands on it: %w", user, errdefs.ErrFailedPrecondition)
	default:
		err = os.Rename(filepath.Join(s.dir, key), s.temp(key))
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.ErrNotFound
		}
	}
	return errors.Join(err, lock.Unlock())
}

// userOf returns what stands on a layer, or "".
func (s *Store) userOf(id digest.Digest, key string) (string, error) {
	nt := strings.HasPrefix(key, ntKeyPrefix)
	if nt {
		child, err := s.childOf(id)
		if err != nil || child != "" {
			return "layer " + child.String(), err
		}
	}
	scratches, err := s.Scratches()
	if err != nil {
		return "", err
	}
	for _, x := range scratches {
		if x.nt == nt && (nt && ChainID(x.layers) == id || !nt && slices.Contains(x.layers, id)) {
			return "scratch layer " + x.id, nil
		}
	}
	return "", nil
}

// Prune removes what killed processes left, and the layers for whose ID keep returns false and on which nothing
// stands. A nil keep keeps all. What others work on at this moment is left alone. The report is right even if there is an
// error.
func (s *Store) Prune(ctx context.Context, keep func(id digest.Digest) bool) (PruneReport, error) {
	var report PruneReport
	err := errors.Join(
		s.pruneLeftovers(ctx, &report),
		s.pruneScratches(ctx, &report),
		s.pruneLayers(ctx, keep, &report),
	)
	if err != nil {
		return report, fmt.Errorf("prune layer store: %w", err)
	}
	return report, nil
}

func (s *Store) pruneLeftovers(ctx context.Context, report *PruneReport) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		key, isTemp := strings.CutPrefix(strings.TrimPrefix(e.Name(), workPrefix), tempPrefix)
		if !isTemp {
			continue
		}
		did, err := s.ifFree(ctx, key, func() error { return s.discard(key) })
		if did {
			report.Leftovers = append(report.Leftovers, filepath.Join(s.dir, e.Name()))
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func (s *Store) pruneLayers(ctx context.Context, keep func(digest.Digest) bool, report *PruneReport) error {
	if keep == nil {
		return nil
	}
	layers, err := s.Layers()
	failed := []error{err}
	// What stands on others goes before them.
	slices.SortStableFunc(layers, func(a, b *Layer) int { return len(b.parents) - len(a.parents) })
	for _, l := range layers {
		if keep(l.ID()) {
			continue
		}
		key := filepath.Base(l.dir)
		did, err := s.ifFree(ctx, key, func() error { return s.removeLocked(ctx, l.ID(), key) })
		if errors.Is(err, errdefs.ErrFailedPrecondition) || errors.Is(err, errdefs.ErrNotFound) {
			continue // in use, or gone already
		}
		if did {
			report.Layers = append(report.Layers, l.ID())
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// ifFree calls f under the lock of a layer, unless somebody else holds it. did says that f was called and succeeded.
func (s *Store) ifFree(ctx context.Context, key string, f func() error) (did bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	lock, err := s.locks.TryLock(key)
	if errors.Is(err, errdefs.ErrUnavailable) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = f()
	return err == nil, errors.Join(err, lock.Unlock())
}
