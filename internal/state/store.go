package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// RecordName is the record's file in its object's directory. An owner who removes
// the directory with files of his own in it removes the record first: from there
// on the object does not exist.
const RecordName = "record.json"

const (
	tempPrefix = ".record-"
	lockDir    = ".lock"
)

// Durability says what a record has to outlive.
type Durability int

const (
	// Durable records survive a power cut from the moment Put returns: the file and its directory are fsynced.
	Durable Durability = iota
	// Volatile records survive the death of any process but not the machine's, and cost no fsync. It is right for
	// directories that are themselves gone at boot, such as those below /run.
	Volatile
)

// Config says what a store holds and where.
type Config struct {
	// Dir is the store's directory. It is created, with mode 0700, where it is missing.
	Dir string
	// Kind is the noun in error messages: "container", "layer".
	Kind string
	// Durability is Durable unless set.
	Durability Durability
	// Locks is the directory of the locks, made where it is missing. They are of no use after a boot, so it may be one that
	// is gone then; but all who use the store must name the same. Empty: .lock in Dir.
	Locks string
}

// Store keeps the records of the objects of one kind. Its methods may be called by any number of goroutines and
// processes at once.
type Store[T any] struct {
	dir        string
	locks      string // their directory
	kind       string
	durability Durability
}

// Object is a record together with the id it is kept under.
type Object[T any] struct {
	ID     string
	Record T
}

// Open returns the store at cfg.Dir. There is nothing to close.
func Open[T any](cfg Config) (*Store[T], error) {
	kind := cfg.Kind
	if kind == "" {
		kind = "object"
	}
	if cfg.Dir == "" {
		return nil, fmt.Errorf("open %s store: no directory given: %w", kind, errdefs.ErrInvalidArgument)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open %s store: %w", kind, err)
	}
	s := &Store[T]{dir: dir, locks: filepath.Join(dir, lockDir), kind: kind, durability: cfg.Durability}
	missing := []string{s.locks} // and what it is in
	if cfg.Locks != "" {
		if s.locks, err = filepath.Abs(cfg.Locks); err != nil {
			return nil, fmt.Errorf("open %s store: %w", kind, err)
		}
		missing = []string{dir, s.locks}
	}
	for _, d := range missing {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open %s store: %w", kind, err)
		}
	}
	return s, nil
}

// Dir returns the directory of the object id, where its owner may keep other files under names without a leading dot.
// It exists once the object was put, or once the owner made it.
func (s *Store[T]) Dir(id string) string {
	return filepath.Join(s.dir, id)
}

// Get returns the record of id. The error is of class errdefs.ErrNotFound if there is none, and errdefs.ErrDataLoss if
// the record can be read but not decoded.
func (s *Store[T]) Get(id string) (T, error) {
	var record T
	if err := CheckID(s.kind, id); err != nil {
		return record, err
	}
	data, err := os.ReadFile(s.record(id))
	if errors.Is(err, fs.ErrNotExist) {
		return record, s.notFound(id)
	}
	if err != nil {
		return record, fmt.Errorf("read %s %s: %w", s.kind, id, err)
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return record, fmt.Errorf("decode %s %s: %w: %w", s.kind, id, errdefs.ErrDataLoss, err)
	}
	return record, nil
}

// Put writes the record of id in place of the one that was there, if any. A reader, or a crash at any moment, sees the
// old record or the new one, complete.
func (s *Store[T]) Put(id string, record T) error {
	if err := CheckID(s.kind, id); err != nil {
		return err
	}
	data, err := json.MarshalIndent(record, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", s.kind, id, err)
	}
	if err := s.replace(id, append(data, '\n')); err != nil {
		return fmt.Errorf("write %s %s: %w", s.kind, id, err)
	}
	return nil
}

// Delete removes the record of id and its directory. It refuses, with an error of class errdefs.ErrFailedPrecondition,
// while the owner's own files are in that directory: the store does not know whether one of them is a mount point, below
// which other people's files lie. The error is of class errdefs.ErrNotFound if there is no such object.
func (s *Store[T]) Delete(id string) error {
	if err := CheckID(s.kind, id); err != nil {
		return err
	}
	foreign, err := s.foreign(id)
	if errors.Is(err, fs.ErrNotExist) {
		return s.notFound(id)
	}
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", s.kind, id, err)
	}
	if foreign != "" {
		return fmt.Errorf("delete %s %s: %s is still there: %w", s.kind, id,
			filepath.Join(s.Dir(id), foreign), errdefs.ErrFailedPrecondition)
	}
	if err := s.remove(id); err != nil {
		return fmt.Errorf("delete %s %s: %w", s.kind, id, err)
	}
	return nil
}

// List returns all objects by id in ascending order. Objects that are created or deleted meanwhile may or may not be in
// it. One damaged record does not hide the others: List returns what it could read, and the joined errors of the rest.
func (s *Store[T]) List() ([]Object[T], error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var (
		objects []Object[T]
		damaged []error
	)
	for _, id := range ids {
		record, err := s.Get(id)
		switch {
		case err == nil:
			objects = append(objects, Object[T]{ID: id, Record: record})
		case !errors.Is(err, errdefs.ErrNotFound):
			damaged = append(damaged, err)
		}
	}
	return objects, errors.Join(damaged...)
}

// Prune removes what dead writers left: half written records, directories that never got one, and locks of objects that
// went without the store's knowledge. Objects whose lock is
// held are left alone. It returns the ids of directories which have no record but files of their owner's, who alone knows
// how to undo them before he calls Delete.
func (s *Store[T]) Prune() ([]string, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	locks, err := os.ReadDir(s.locks)
	if err != nil {
		return nil, fmt.Errorf("list locks of %ss: %w", s.kind, err)
	}
	for _, l := range locks {
		if !slices.Contains(ids, l.Name()) && isID(l.Name()) {
			ids = append(ids, l.Name())
		}
	}
	var (
		orphans []string
		failed  []error
	)
	for _, id := range ids {
		orphan, err := s.prune(id)
		if orphan {
			orphans = append(orphans, id)
		}
		if err != nil && !errors.Is(err, errdefs.ErrUnavailable) {
			failed = append(failed, err)
		}
	}
	return orphans, errors.Join(failed...)
}

func (s *Store[T]) prune(id string) (orphan bool, err error) {
	lock, err := s.TryLock(id)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if err := s.removeTemps(id); err != nil {
		return false, fmt.Errorf("prune %s %s: %w", s.kind, id, err)
	}
	if _, err := os.Lstat(s.record(id)); err == nil {
		return false, nil
	}
	// Not Delete: a writer without the lock may be putting the record at this moment, and rmdir spares it.
	if ignoreMissing(os.Remove(s.Dir(id))) == nil {
		return false, nil
	}
	_, err = os.Lstat(s.record(id))
	return errors.Is(err, fs.ErrNotExist), nil
}

// replace tries again when the directory or the temporary file vanishes under it: a Delete or Prune ran at the same time.
func (s *Store[T]) replace(id string, data []byte) error {
	for {
		if err := os.Mkdir(s.Dir(id), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		err := s.replaceOnce(id, data)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := os.Lstat(s.dir); err != nil {
			return err
		}
	}
}

func (s *Store[T]) replaceOnce(id string, data []byte) error {
	temp, err := os.CreateTemp(s.Dir(id), tempPrefix)
	if err != nil {
		return err
	}
	if err := s.fill(temp, data); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp.Name())))
	}
	_, err = os.Lstat(s.record(id))
	isNew := errors.Is(err, fs.ErrNotExist)
	if err := os.Rename(temp.Name(), s.record(id)); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp.Name())))
	}
	if s.durability == Volatile {
		return nil
	}
	if isNew { // the object's own name has to last too
		if err := syncDir(s.dir); err != nil {
			return err
		}
	}
	return ignoreMissing(syncDir(s.Dir(id))) // deleted meanwhile: nothing to keep
}

func (s *Store[T]) fill(temp *os.File, data []byte) error {
	_, err := temp.Write(data)
	if err == nil && s.durability == Durable {
		err = temp.Sync()
	}
	return errors.Join(err, temp.Close())
}

// remove takes the record first: from there on the object does not exist, and the rest is a leftover for Prune.
func (s *Store[T]) remove(id string) error {
	if err := ignoreMissing(os.Remove(s.record(id))); err != nil {
		return err
	}
	if err := s.removeTemps(id); err != nil {
		return err
	}
	if err := ignoreMissing(os.Remove(s.Dir(id))); err != nil {
		return err
	}
	if s.durability == Volatile {
		return nil
	}
	return syncDir(s.dir)
}

func (s *Store[T]) removeTemps(id string) error {
	entries, err := os.ReadDir(s.Dir(id))
	if err != nil {
		return ignoreMissing(err)
	}
	var failed []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			failed = append(failed, ignoreMissing(os.Remove(filepath.Join(s.Dir(id), e.Name()))))
		}
	}
	return errors.Join(failed...)
}

// foreign returns the name of one file in the directory of id that is not the store's, or "".
func (s *Store[T]) foreign(id string) (string, error) {
	entries, err := os.ReadDir(s.Dir(id))
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Name() != RecordName && !strings.HasPrefix(e.Name(), tempPrefix) {
			return e.Name(), nil
		}
	}
	return "", nil
}

func (s *Store[T]) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", s.kind, err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && isID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

func (s *Store[T]) record(id string) string {
	return filepath.Join(s.dir, id, RecordName)
}

func (s *Store[T]) notFound(id string) error {
	return fmt.Errorf("find %s %s: %w", s.kind, id, errdefs.ErrNotFound)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
