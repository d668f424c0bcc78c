package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

const (
	filesDir   = "Files"
	emptyDir   = ".empty"
	layerFile  = "layer.json"
	tempPrefix = ".tmp-"
)

// Config says where a store is and how it unpacks.
type Config struct {
	// Dir is the store's directory, which is made if it is missing.
	Dir string
	// Logger is told what is unpacked and removed; nil discards.
	Logger *slog.Logger
	// Limits bound what a layer may cost to unpack.
	Limits layer.Limits
	// Owner says what happens to owners that only root may give.
	Owner OwnerPolicy
	// UserXattr is for processes that may not write trusted.*: overlayfs's marks are in user.overlay.* then. A layer
	// unpacked with it is of use in such mounts alone.
	UserXattr bool
}

// Store is a directory with unpacked layers and scratch layers. Its methods may be called by any number of goroutines and
// processes at once. There is nothing to close.
type Store struct {
	cfg       Config
	dir       string                 // of the layers
	locks     *state.Store[struct{}] // that of all decides between making something on top of a layer and removing the layer
	scratches *state.Store[scratchRecord]
}

// Layer is an unpacked layer. It does not change, and lasts until it is removed.
type Layer struct {
	diffID digest.Digest
	dir    string
	record layerRecord

	encoding layer.Encoding
	id       digest.Digest   // chainID, of Windows images' layers
	parents  []digest.Digest // chainIDs, nearest first
}

// layerRecord is the content of layer.json.
type layerRecord struct {
	DiffID  digest.Digest `json:"diffID"`
	Size    int64         `json:"size"`    // bytes of the files' content
	Entries int64         `json:"entries"` // whiteouts included
	Root    bool          `json:"root,omitempty"`
	Opaque  bool          `json:"opaque,omitempty"`

	Whiteouts int64 `json:"whiteouts,omitempty"`

	Created time.Time `json:"created"`

	// Of layers outside of a store: overlayfs's marks are in user.overlay.*; bytes of the stream without the content of files.
	UserXattr UserXattrs `json:"userXattr,omitempty"`
	Headers   int64      `json:"headers,omitempty"`
}

// DiffID returns the digest of the layer's uncompressed tar stream.
func (l *Layer) DiffID() digest.Digest { return l.diffID }

// ID returns what the store has the layer under: the diffID, or, of a layer of a Windows image, the chainID.
func (l *Layer) ID() digest.Digest {
	if l.encoding == layer.NT {
		return l.id
	}
	return l.diffID
}

// Encoding returns which kind of image the layer is of.
func (l *Layer) Encoding() layer.Encoding { return l.encoding }

// Dir returns the layer's own directory, which has Files, and of a Windows layer all else.
func (l *Layer) Dir() string { return l.dir }

// Path returns the directory with the layer's files, for use as a lower directory of overlayfs.
func (l *Layer) Path() string { return filepath.Join(l.dir, filesDir) }

// Size returns the sum of the sizes of the layer's files, in bytes.
func (l *Layer) Size() int64 { return l.record.Size }

// Entries returns how many entries the layer has, whiteouts included.
func (l *Layer) Entries() int64 { return l.record.Entries }

// Created returns when the layer was unpacked.
func (l *Layer) Created() time.Time { return l.record.Created }

// Open opens the store at cfg.Dir.
func Open(cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir == "" {
		return nil, fmt.Errorf("open layer store: no directory given: %w", errdefs.ErrInvalidArgument)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	s := &Store{cfg: cfg, dir: filepath.Join(dir, "layers")}
	s.locks, err = state.Open[struct{}](state.Config{Dir: s.dir, Kind: "layer"})
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, emptyDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	// A scratch layer has no more to lose with the machine than its record: overlayfs syncs what was written into it only
	// when it is unmounted.
	s.scratches, err = state.Open[scratchRecord](state.Config{
		Dir: filepath.Join(dir, "scratch"), Kind: "scratch layer", Durability: state.Volatile,
	})
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	return s, nil
}

// Layer returns an unpacked layer. The error is of class errdefs.ErrNotFound if the store does not have it, and of class
// errdefs.ErrDataLoss if its record is damaged.
func (s *Store) Layer(diffID digest.Digest) (*Layer, error) {
	key, err := layerKey(diffID)
	if err != nil {
		return nil, err
	}
	return s.read(diffID, key)
}

func (s *Store) read(diffID digest.Digest, key string) (*Layer, error) {
	l := &Layer{diffID: diffID, dir: filepath.Join(s.dir, key)}
	data, err := os.ReadFile(filepath.Join(l.dir, layerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find layer %s: %w", diffID, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("find layer %s: %w", diffID, err)
	}
	if err := json.Unmarshal(data, &l.record); err != nil {
		return nil, fmt.Errorf("read record of layer %s: %w: %w", diffID, errdefs.ErrDataLoss, err)
	}
	if l.record.DiffID != diffID {
		return nil, fmt.Errorf("read record of layer %s: it is of %q: %w", diffID, l.record.DiffID, errdefs.ErrDataLoss)
	}
	return l, nil
}

// Layers returns all unpacked layers. One that is damaged does not hide the others: it is in the error.
func (s *Store) Layers() ([]*Layer, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	var (
		layers  []*Layer
		damaged []error
	)
	for _, e := range entries {
		l, err := s.readAny(e.Name())
		switch {
		case err == nil && l == nil:
		case err == nil:
			layers = append(layers, l)
		case !errors.Is(err, errdefs.ErrNotFound): // removed meanwhile
			damaged = append(damaged, err)
		}
	}
	return layers, errors.Join(damaged...)
}

// readAny reads the layer in a directory of the store, nil if it has none's name.
func (s *Store) readAny(key string) (*Layer, error) {
	if chainID, ok := ntKeyDigest(key); ok {
		return s.readNT(chainID, key)
	}
	if diffID, ok := keyDigest(key); ok {
		return s.read(diffID, key)
	}
	return nil, nil //nolint:nilnil // it is something else
}

// Unpack returns the layer, unpacking it if the store does not have it yet. blob opens the layer's tar stream, compressed
// or not; it is called at most once, and not at all if the layer is there.
//
// If others unpack the same layer, Unpack waits for them and returns what they made; ctx ends the wait. A layer appears
// when it is complete, is what diffID says (or the error is of class errdefs.ErrDataLoss), and is safe from a power cut;
// otherwise nothing of it stays. What a killed process left is removed first.
func (s *Store) Unpack(ctx context.Context, diffID digest.Digest, blob func() (io.ReadCloser, error)) (*Layer, error) {
	key, err := layerKey(diffID)
	if err != nil {
		return nil, err
	}
	if l, err := s.read(diffID, key); !errors.Is(err, errdefs.ErrNotFound) {
		return l, err
	}
	lock, err := s.locks.Lock(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", diffID, err)
	}
	l, err := s.unpackLocked(ctx, diffID, key, blob)
	if err := errors.Join(err, lock.Unlock()); err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", diffID, err)
	}
	return l, nil
}

func (s *Store) unpackLocked(
	ctx context.Context, diffID digest.Digest, key string, blob func() (io.ReadCloser, error),
) (*Layer, error) {
	if l, err := s.read(diffID, key); !errors.Is(err, errdefs.ErrNotFound) {
		return l, err // somebody else was faster
	}
	if err := s.discard(key); err != nil {
		return nil, err
	}
	begin := time.Now()
	record, err := s.fill(ctx, diffID, s.temp(key), blob)
	if err == nil {
		err = s.publish(key, record)
	}
	if err != nil {
		return nil, errors.Join(err, s.discard(key))
	}
	s.cfg.Logger.Info("unpacked layer", "diffID", diffID, "entries", record.Entries, "size", record.Size,
		"took", time.Since(begin))
	return &Layer{diffID: diffID, dir: filepath.Join(s.dir, key), record: *record}, nil
}

// fill unpacks the layer into the new directory temp, and checks that it is the right one.
func (s *Store) fill(
	ctx context.Context, diffID digest.Digest, temp string, open func() (io.ReadCloser, error),
) (*layerRecord, error) {
	files := filepath.Join(temp, filesDir)
	if err := os.Mkdir(temp, 0o700); err != nil {
		return nil, err
	}
	if err := makeFiles(files); err != nil {
		return nil, err
	}
	root, err := inroot.Open(files)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	stream, err := open()
	if err != nil {
		return nil, err
	}
	stats, err := s.apply(ctx, diffID, root, stream)
	if err != nil {
		return nil, err
	}
	return stats.record(diffID), nil
}

func (s Stats) record(diffID digest.Digest) *layerRecord {
	return &layerRecord{
		DiffID: diffID, Size: s.Bytes, Entries: s.Entries, Root: s.Root, Opaque: s.Opaque, Whiteouts: s.Whiteouts,
		Created: time.Now().UTC(),
	}
}

// write puts the record into a layer's directory.
func (r *layerRecord) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, layerFile), append(data, '\n'), 0o600)
}

// makeFiles makes the directory of a layer's files, with the metadata of a root that the layer does not mention.
func makeFiles(files string) error {
	if err := os.Mkdir(files, impliedMode); err != nil {
		return err
	}
	if err := os.Chmod(files, impliedMode); err != nil {
		return err
	}
	return os.Chtimes(files, time.Unix(0, 0), time.Unix(0, 0))
}

func (s *Store) apply(
	ctx context.Context, diffID digest.Digest, root *inroot.Root, stream io.ReadCloser,
) (stats Stats, err error) {
	defer func() { err = errors.Join(err, stream.Close()) }()
	blob, err := layer.OpenBlob(stream, s.cfg.Limits)
	if err != nil {
		return stats, err
	}
	blob.Lend()
	defer func() { err = errors.Join(err, blob.Close()) }()
	stats, err = Apply(ctx, root, blob.Reader, ApplyOptions{
		Format: OverlayUpper, Owner: s.cfg.Owner, UserXattr: s.cfg.UserXattr,
	})
	if err != nil {
		return stats, err
	}
	got, err := blob.Finish()
	if err == nil && got.DiffID != diffID {
		err = fmt.Errorf("its content has the digest %s: %w", got.DiffID, errdefs.ErrDataLoss)
	}
	return stats, err
}

// publish makes the unpacked layer durable and gives it its name.
func (s *Store) publish(key string, record *layerRecord) error {
	temp := s.temp(key)
	if err := record.write(temp); err != nil {
		return err
	}
	if err := inDirectory(temp, sys.SyncFS); err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(s.dir, key)); err != nil {
		return err
	}
	return s.keepName(key)
}

// keepName makes a layer's new name safe from a power cut, or takes it away.
func (s *Store) keepName(key string) error {
	if err := inDirectory(s.dir, sys.SyncFD); err != nil {
		// It may or may not be there after a power cut; a layer that was reported as failed should not.
		return errors.Join(err, os.Rename(filepath.Join(s.dir, key), s.temp(key)))
	}
	return nil
}

func inDirectory(dir string, f func(fd int) error) error {
	fd, err := sys.OpenAt(sys.CWD, dir, sys.OpenDirectory, 0)
	if err != nil {
		return err
	}
	return errors.Join(f(fd), sys.Close(fd))
}

// temp is where the layer is made, and where it goes to be removed. Who holds the layer's lock has it for himself.
func (s *Store) temp(key string) string { return filepath.Join(s.dir, tempPrefix+key) }

// discard removes what a failed or killed process left.
func (s *Store) discard(key string) error {
	root, err := inroot.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(tempPrefix+key), root.RemoveAll(workPrefix+tempPrefix+key), root.Close())
}

// layerKey is the name of a layer's directory and lock.
func layerKey(diffID digest.Digest) (string, error) {
	if err := diffID.Validate(); err != nil {
		return "", fmt.Errorf("use %q as a diffID: %w: %w", string(diffID), err, errdefs.ErrInvalidArgument)
	}
	return diffID.Algorithm().String() + "-" + diffID.Encoded(), nil
}

func keyDigest(key string) (digest.Digest, bool) {
	algorithm, encoded, _ := strings.Cut(key, "-")
	d := digest.Digest(algorithm + ":" + encoded)
	return d, d.Validate() == nil
}
