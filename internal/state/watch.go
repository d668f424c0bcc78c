package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
)

// ChangeKind says what happened to an object.
type ChangeKind int

const (
	// Put objects are new, or their record was replaced.
	Put ChangeKind = iota
	// Deleted objects are gone.
	Deleted
)

// String returns the kind in lower case.
func (k ChangeKind) String() string {
	if k == Deleted {
		return "deleted"
	}
	return "put"
}

// Change is one step in the life of an object.
type Change struct {
	ID   string
	Kind ChangeKind
}

// Watch reports every object that exists as put, and then every change, so that a watcher needs no List before it and
// misses nothing in between. It tells that a record changed, and Get what it is now: several quick changes of one object
// may be reported as one, and one as several. It ends with an error, the last pair: context.Cause when ctx is done.
func (s *Store[T]) Watch(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for changes, err := range s.watch(ctx) {
			for _, c := range changes {
				if !yield(c, nil) {
					return
				}
			}
			if err != nil {
				yield(Change{}, fmt.Errorf("watch %ss: %w", s.kind, err))
				return
			}
		}
	}
}

// notifier tells which objects may have changed.
type notifier interface {
	// wait returns the ids of objects to look at again, or all, and blocks until there is one.
	wait(ctx context.Context) (dirty, error)
	Close() error
}

type dirty struct {
	ids []string
	all bool
}

func (s *Store[T]) watch(ctx context.Context) iter.Seq2[[]Change, error] {
	return func(yield func([]Change, error) bool) {
		n, err := newNotifier(s.dir)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = n.Close() }() // only reads
		known := map[string]bool{}
		next := dirty{all: true}
		for err == nil {
			var changes []Change
			changes, err = s.look(known, next)
			if !yield(changes, err) || err != nil {
				return
			}
			next, err = n.wait(ctx)
		}
		yield(nil, err)
	}
}

// look compares what is known with what is there, and brings known up to date.
func (s *Store[T]) look(known map[string]bool, d dirty) ([]Change, error) {
	ids := d.ids
	if d.all {
		there, err := s.ids()
		if err != nil {
			return nil, err
		}
		ids = slices.Concat(there, slices.Collect(maps.Keys(known)))
	}
	slices.Sort(ids)
	var changes []Change
	for _, id := range slices.Compact(ids) {
		_, err := os.Lstat(s.record(id))
		switch {
		case err == nil:
			known[id] = true
			changes = append(changes, Change{ID: id, Kind: Put})
		case !errors.Is(err, fs.ErrNotExist):
			return changes, err
		case known[id]:
			delete(known, id)
			changes = append(changes, Change{ID: id, Kind: Deleted})
		}
	}
	return changes, nil
}
