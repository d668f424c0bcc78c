package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
)

// Staged is a record that is written and not in its place yet: somebody else
// is to put it there, by renaming it to Path when what it says has come true.
type Staged struct {
	Path string // of the record that is in force
	Is   []byte // what that holds
	New  string // the file to rename
}

// Stage writes what change makes of the record of id beside it. Who puts it in
// its place must see that the one in force still is what it was. The error is
// of class errdefs.ErrNotFound if there is none, and change's where that
// fails. The caller holds the lock of id.
func (s *Store[T]) Stage(id string, change func(*T) error) (Staged, error) {
	if err := CheckID(s.kind, id); err != nil {
		return Staged{}, err
	}
	is, err := os.ReadFile(s.record(id))
	if errors.Is(err, os.ErrNotExist) {
		return Staged{}, s.notFound(id)
	}
	if err != nil {
		return Staged{}, fmt.Errorf("read %s %s: %w", s.kind, id, err)
	}
	var record T
	if err := json.Unmarshal(is, &record); err != nil {
		return Staged{}, fmt.Errorf("decode %s %s: %w: %w", s.kind, id, errdefs.ErrDataLoss, err)
	}
	if err := change(&record); err != nil {
		return Staged{}, err
	}
	data, err := json.MarshalIndent(record, "", "\t")
	if err != nil {
		return Staged{}, fmt.Errorf("encode %s %s: %w", s.kind, id, err)
	}
	temp, err := os.CreateTemp(s.Dir(id), tempPrefix)
	if err != nil {
		return Staged{}, fmt.Errorf("write %s %s: %w", s.kind, id, err)
	}
	if err := s.fill(temp, append(data, '\n')); err != nil {
		return Staged{}, fmt.Errorf("write %s %s: %w", s.kind, id, errors.Join(err, os.Remove(temp.Name())))
	}
	return Staged{Path: s.record(id), Is: is, New: temp.Name()}, nil
}

// Drop removes a staged record that was not put in its place. One that was is
// none any more.
func (s *Store[T]) Drop(staged Staged) error { return ignoreMissing(os.Remove(staged.New)) }

// Settle makes a staged record last that was put in its place.
func (s *Store[T]) Settle(id string) error {
	if s.durability == Volatile {
		return nil
	}
	return syncDir(s.Dir(id))
}
