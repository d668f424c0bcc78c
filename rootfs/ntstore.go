package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// ntKeyPrefix keeps layers of Windows images apart from others: a base layer's chainID is its diffID, and the same stream
// may be read as a layer of either kind.
const ntKeyPrefix = "nt-"

// ChainID identifies a layer together with those below it, by their diffIDs, base first. It is that of the OCI image
// specification (config.md, "Layer ChainID"), and empty for none.
func ChainID(diffIDs []digest.Digest) digest.Digest {
	var chain digest.Digest
	for i, id := range diffIDs {
		if i == 0 {
			chain = id
			continue
		}
		chain = digest.FromString(chain.String() + " " + id.String())
	}
	return chain
}

// ntLayerKey is the name of the directory and lock of a Windows layer.
func ntLayerKey(chainID digest.Digest) (string, error) {
	key, err := layerKey(chainID)
	return ntKeyPrefix + key, err
}

// LayerNT returns an unpacked layer of a Windows image by its chainID. The error is of class errdefs.ErrNotFound if the store
// does not have it, and of class errdefs.ErrDataLoss if its record is damaged.
func (s *Store) LayerNT(chainID digest.Digest) (*Layer, error) {
	key, err := ntLayerKey(chainID)
	if err != nil {
		return nil, err
	}
	return s.readNT(chainID, key)
}

func (s *Store) readNT(chainID digest.Digest, key string) (*Layer, error) {
	dir := filepath.Join(s.dir, key)
	root, err := inroot.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find layer %s: %w", chainID, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("find layer %s: %w", chainID, err)
	}
	record, err := readNTRecord(root)
	parents, cerr := readChain(root)
	if err := errors.Join(err, cerr, root.Close()); err != nil {
		return nil, fmt.Errorf("read record of layer %s: %w: %w", chainID, errdefs.ErrDataLoss, err)
	}
	l := &Layer{
		diffID: record.DiffID, id: chainID, encoding: layer.NT, dir: dir,
		record: layerRecord{DiffID: record.DiffID, Size: record.Size, Entries: record.Entries, Created: record.Created},
	}
	for _, p := range parents {
		if id, ok := ntKeyDigest(filepath.Base(p)); ok {
			l.parents = append(l.parents, id)
		}
	}
	return l, nil
}

func ntKeyDigest(key string) (digest.Digest, bool) {
	rest, is := strings.CutPrefix(key, ntKeyPrefix)
	if !is {
		return "", false
	}
	return keyDigest(rest)
}

// UnpackNT is Unpack for a layer of a Windows image. diffIDs are those of all layers from the base up to this one. Those below
// it must be in the store, or the error is of class errdefs.ErrFailedPrecondition: names are spelled as they do, hard links
// share their files, and whole registry hives are made of theirs. So a layer is there once for each chain that it tops.
//
// What is malformed but known is mended, which the store's logger is told of.
func (s *Store) UnpackNT(ctx context.Context, diffIDs []digest.Digest, blob func() (io.ReadCloser, error)) (*Layer, error) {
	if len(diffIDs) == 0 {
		return nil, fmt.Errorf("unpack layer: there is none: %w", errdefs.ErrInvalidArgument)
	}
	chainID := ChainID(diffIDs)
	key, err := ntLayerKey(chainID)
	if err != nil {
		return nil, err
	}
	if l, err := s.readNT(chainID, key); !errors.Is(err, errdefs.ErrNotFound) {
		return l, err
	}
	lock, err := s.locks.Lock(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", chainID, err)
	}
	l, err := s.unpackNTLocked(ctx, diffIDs, key, blob)
	if err := errors.Join(err, lock.Unlock()); err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", diffIDs[len(diffIDs)-1], err)
	}
	return l, nil
}

func (s *Store) unpackNTLocked(
	ctx context.Context, diffIDs []digest.Digest, key string, blob func() (io.ReadCloser, error),
) (*Layer, error) {
	chainID := ChainID(diffIDs)
	if l, err := s.readNT(chainID, key); !errors.Is(err, errdefs.ErrNotFound) {
		return l, err // somebody else was faster
	}
	begin := time.Now()
	parents, err := s.below(diffIDs)
	if err != nil {
		return nil, err
	}
	if err := s.discard(key); err != nil {
		return nil, err
	}
	if err := s.fillNT(ctx, diffIDs[len(diffIDs)-1], key, parents, blob); err != nil {
		return nil, err
	}
	if err := s.publishNT(ctx, diffIDs, key); err != nil {
		return nil, errors.Join(err, s.discard(key))
	}
	l, err := s.readNT(chainID, key)
	if err == nil {
		s.cfg.Logger.Info("unpacked layer", "diffID", l.diffID, "chainID", chainID, "entries", l.Entries(), "size", l.Size(),
			"took", time.Since(begin))
	}
	return l, err
}

// below returns the directories of the layers below one, the nearest first.
func (s *Store) below(diffIDs []digest.Digest) ([]string, error) {
	var dirs []string
	for n := len(diffIDs) - 1; n > 0; n-- {
		l, err := s.LayerNT(ChainID(diffIDs[:n]))
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil, fmt.Errorf("layer %s below it is not unpacked: %w", diffIDs[n-1], errdefs.ErrFailedPrecondition)
		}
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, l.dir)
	}
	return dirs, nil
}

// fillNT makes the layer under its temporary name.
func (s *Store) fillNT(
	ctx context.Context, diffID digest.Digest, key string, parents []string, open func() (io.ReadCloser, error),
) (err error) {
	stream, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	blob, err := layer.ReadOptions{Limits: s.cfg.Limits, Encoding: layer.NT, Warn: func(w layer.Warning) {
		s.cfg.Logger.Warn("mended layer", "diffID", diffID, "entry", w.Name, "problem", string(w.Problem), "detail", w.Detail)
	}}.OpenBlob(stream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	opts := NTOptions{UserXattr: UserXattrs(s.cfg.UserXattr), Owner: s.cfg.Owner, parents: parents}
	opts.DiffID = func() (digest.Digest, error) {
		got, err := blob.Finish()
		if err == nil && got.DiffID != diffID {
			err = fmt.Errorf("its content has the digest %s: %w", got.DiffID, errdefs.ErrDataLoss)
		}
		return diffID, err
	}
	blob.Lend()
	_, err = importNT(ctx, s.temp(key), parents, blob.Reader, opts)
	return err
}

// publishNT gives the layer its name, while no layer below it can go.
func (s *Store) publishNT(ctx context.Context, diffIDs []digest.Digest, key string) error {
	lock, err := s.locks.LockAll(ctx)
	if err != nil {
		return err
	}
	_, err = s.below(diffIDs)
	if err == nil {
		err = os.Rename(s.temp(key), filepath.Join(s.dir, key))
	}
	if err == nil {
		err = s.keepName(key)
	}
	return errors.Join(err, lock.Unlock())
}

// childOf returns a layer of a Windows image that stands on another, "" if none does.
func (s *Store) childOf(chainID digest.Digest) (digest.Digest, error) {
	layers, err := s.Layers()
	for _, l := range layers {
		if slices.Contains(l.parents, chainID) {
			return l.id, nil
		}
	}
	return "", err
}

// removeKey returns the name of the directory that a digest stands for: a diffID, or the chainID of a Windows image's layer.
func (s *Store) removeKey(id digest.Digest) (string, error) {
	key, err := layerKey(id)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(filepath.Join(s.dir, key)); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(s.dir, ntKeyPrefix+key)); err == nil {
			return ntKeyPrefix + key, nil
		}
	}
	return key, nil
}
