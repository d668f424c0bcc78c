package bundle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
)

// temporary is a private directory for as long as a call takes. Its lock tells others that the call is still there.
type temporary struct {
	dir  string
	lock *state.Lock
}

const (
	temporaryPrefix = ".hcs-squash-"
	temporaryLock   = "tree"
)

// newTemporary makes a directory in parent, and removes those of calls that were killed, as far as that is permitted.
func newTemporary(ctx context.Context, parent string) (*temporary, error) {
	removeLeft(parent)
	const tries = 100
	for try := 1; ; try++ {
		dir, err := os.MkdirTemp(parent, temporaryPrefix+"*")
		if err != nil {
			return nil, err
		}
		lock, err := lockTemporary(dir)
		if err == nil {
			return &temporary{dir, lock}, nil
		}
		// Another call may have come before the lock was taken, and have
		// removed the directory or be about to.
		_ = removeTree(dir)
		if try == tries || ctx.Err() != nil {
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

func lockTemporary(dir string) (*state.Lock, error) {
	locks, err := state.Open[struct{}](state.Config{Dir: dir, Kind: "temporary directory", Durability: state.Volatile})
	if err != nil {
		return nil, err
	}
	return locks.TryLock(temporaryLock)
}

// removeLeft removes what killed calls of this user left in parent. Whatever
// stays is in nobody's way.
func removeLeft(parent string) {
	if parent == "" {
		parent = os.TempDir()
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return // which who makes a directory there learns, too
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), temporaryPrefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		st, err := sys.StatAt(sys.CWD, dir)
		if err != nil || !st.IsDir() || st.UID != uint32(os.Geteuid()) || st.Mode&0o077 != 0 {
			continue // somebody else may have prepared it
		}
		if lock, err := lockTemporary(dir); err == nil {
			_ = (&temporary{dir, lock}).remove()
		}
	}
}

// remove removes the directory, and lets the lock go with it.
func (t *temporary) remove() error {
	return errors.Join(removeTree(t.dir), t.lock.Unlock())
}
