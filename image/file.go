package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

type lockMode int

const (
	lockShared lockMode = iota
	lockExclusive
)

// errLocked says that somebody else holds a lock.
var errLocked = errors.New("it is locked by somebody else")

// openRegular opens a file that somebody else may have put there: links are
// not followed, and what is not a regular file is refused without waiting for
// the other end of a FIFO.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := openNoFollow(path)
	if err != nil {
		if info, lerr := os.Lstat(path); lerr == nil && !info.Mode().IsRegular() {
			return nil, nil, notRegular(path, info)
		}
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func notRegular(path string, info fs.FileInfo) error {
	return invalid("open %s: it is not a regular file but %s", path, info.Mode().Type())
}

// ReadFile reads a file that somebody else may have put there: a regular one,
// not a link to one, of at most limit bytes. The error is of class
// ErrInvalidArgument if it is not.
func ReadFile(path string, limit int64) ([]byte, error) { return readCapped(path, limit) }

// readCapped reads a regular file of at most limit bytes.
func readCapped(path string, limit int64) ([]byte, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > limit {
		return nil, invalid("read %s: its %d bytes are more than the %d allowed", path, info.Size(), limit)
	}
	buf := make([]byte, info.Size(), info.Size()+1)
	if _, err := io.ReadFull(f, buf); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return buf, nil
}

// lockContext waits for a lock on f until the context is done. The wait
// itself cannot be interrupted, so an abandoned one ends when it is its turn.
// f is closed if there is an error.
func lockContext(ctx context.Context, f *os.File, mode lockMode) error {
	err := tryLock(f, mode)
	if err == nil {
		return nil
	}
	if !errors.Is(err, errLocked) {
		_ = f.Close()
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	done := make(chan error, 1)
	abandoned := make(chan struct{})
	go func() {
		err := waitLock(f, mode)
		select {
		case <-abandoned:
			_ = f.Close()
		case done <- err:
		}
	}()
	select {
	case err = <-done:
		if err != nil {
			_ = f.Close()
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil
	case <-ctx.Done():
		close(abandoned)
		return fmt.Errorf("wait for the lock on %s: %w", f.Name(), context.Cause(ctx))
	}
}

// lockDir locks a directory. Closing the file that it returns unlocks it.
func lockDir(ctx context.Context, dir string, mode lockMode) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := lockContext(ctx, f, mode); err != nil {
		return nil, err
	}
	return f, nil
}

// sameFile reports whether path still leads to the open file.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
