package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
)

// A blocked flock(2) cannot be cancelled, and a goroutine left in it keeps a thread until somebody else lets go. So a
// waiter asks again, soon at first, and never less often than lockPollLast.
const (
	lockPollFirst = 200 * time.Microsecond
	lockPollLast  = 10 * time.Millisecond
)

type lockMode int

const (
	exclusive lockMode = iota
	shared
)

// Lock is an object's lock, held. It belongs to its holder and not to a goroutine or thread, and is let go by the
// kernel when the process ends. A holder keeps it until Unlock: one that nothing points at is let go with the garbage.
type Lock struct {
	file   *os.File
	record string // of the object; empty for the lock of all
}

// Lock waits until nobody else, here or in another process, holds the lock of id, and takes it. The object need not
// exist: a creator takes the lock first. When ctx is done first, the error wraps context.Cause(ctx).
func (s *Store[T]) Lock(ctx context.Context, id string) (*Lock, error) {
	return s.lock(ctx, id, exclusive)
}

// LockShared is like Lock but lets others hold the lock shared as well.
func (s *Store[T]) LockShared(ctx context.Context, id string) (*Lock, error) {
	return s.lock(ctx, id, shared)
}

// TryLock is like Lock but does not wait: the error is of class errdefs.ErrUnavailable if somebody holds the lock.
func (s *Store[T]) TryLock(id string) (*Lock, error) {
	return s.tryLock(id, exclusive)
}

// TryLockShared is like LockShared but does not wait, as TryLock.
func (s *Store[T]) TryLockShared(id string) (*Lock, error) {
	return s.tryLock(id, shared)
}

// LockAll and LockAllShared take a lock that is no object's: what it is for is the owner's to say. It keeps nobody from the
// locks of objects.
func (s *Store[T]) LockAll(ctx context.Context) (*Lock, error) {
	return s.wait(ctx, "all of the "+s.kind+"s", func() (*Lock, error) { return s.tryLockAll(exclusive) })
}

// LockAllShared is like LockAll but lets others hold the lock shared as well.
func (s *Store[T]) LockAllShared(ctx context.Context) (*Lock, error) {
	return s.wait(ctx, "all of the "+s.kind+"s", func() (*Lock, error) { return s.tryLockAll(shared) })
}

// tryLockAll locks the locks' directory itself, which takes no file of its own.
func (s *Store[T]) tryLockAll(mode lockMode) (*Lock, error) {
	dir, err := os.Open(s.locks)
	if err == nil {
		if err = flockTry(dir, mode); err != nil {
			err = errors.Join(err, dir.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock all of the %ss: %w", s.kind, err)
	}
	return &Lock{file: dir}, nil
}

// File is what holds the lock, and stays the lock's. A process that is started with it holds the lock too, until it closes
// it or either of them has unlocked: so what a caller has begun is not disturbed when the caller is killed.
func (l *Lock) File() *os.File { return l.file }

// Unlock lets the lock go. If the object does not exist, the lock's file goes too.
func (l *Lock) Unlock() error {
	err := l.sweep()
	// Closing is not enough to unlock at once: a child between fork and exec has the same open file.
	err = errors.Join(err, flockRelease(l.file), l.file.Close())
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.file.Name(), err)
	}
	return nil
}

func (s *Store[T]) lock(ctx context.Context, id string, mode lockMode) (*Lock, error) {
	return s.wait(ctx, s.kind+" "+id, func() (*Lock, error) { return s.tryLock(id, mode) })
}

// wait tries to take the lock of what until nobody else has it.
func (s *Store[T]) wait(ctx context.Context, what string, try func() (*Lock, error)) (*Lock, error) {
	for wait := lockPollFirst; ; wait = min(2*wait, lockPollLast) {
		lock, err := try()
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", what, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

func (s *Store[T]) tryLock(id string, mode lockMode) (*Lock, error) {
	if err := CheckID(s.kind, id); err != nil {
		return nil, err
	}
	for {
		file, err := lockFile(filepath.Join(s.locks, id), mode)
		if errors.Is(err, errUnlinked) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s %s: %w", s.kind, id, err)
		}
		return &Lock{file: file, record: s.record(id)}, nil
	}
}

var errUnlinked = errors.New("lock file was removed by its last holder")

func lockFile(name string, mode lockMode) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := claim(file, mode); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// claim locks the open file, or returns errUnlinked when since it was opened another holder removed it: then the lock
// protects nothing, as the next one locks a new file of that name.
func claim(file *os.File, mode lockMode) error {
	if err := flockTry(file, mode); err != nil {
		return err
	}
	if !isNamed(file) {
		return errUnlinked
	}
	return nil
}

// sweep removes the lock's file if the object has no record. Only the exclusive holder of the file which has the name
// may do that. A shared lock becomes exclusive in two steps, between which another may have done it, so isNamed looks again.
func (l *Lock) sweep() error {
	if l.record == "" {
		return nil
	}
	if _, err := os.Lstat(l.record); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := flockTry(l.file, exclusive); err != nil {
		return nil // shared with others: the last one sweeps
	}
	if !isNamed(l.file) {
		return nil
	}
	return os.Remove(l.file.Name())
}

// isNamed reports whether the open file is still the one that its name leads to.
func isNamed(file *os.File) bool {
	open, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(file.Name())
	return err == nil && os.SameFile(open, named)
}
