package temporary

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
)

// Config says where a directory is made, and what is to be known of its kind.
type Config struct {
	// Parent is the directory to make it in; "" is the system's for temporary files.
	Parent string
	// Prefix is what the names of the kind begin with. No other kind's may.
	Prefix string
	// Release undoes what a killed call may have left in a directory that is not its files: a mount. After an error nothing is
	// removed. It may be nil.
	Release func(dir string) error
}

// Dir is a directory. Its owner removes it.
type Dir struct {
	path    string
	lock    *state.Lock // nil on systems without locks
	release func(string) error
}

// lockName is that of the lock's file in the directory; no file of the owner's may be called so.
const lockName = "held"

// New makes a directory that this user alone can enter. Those of the same kind beside it that killed calls of this user left
// are removed, as far as that is permitted, on systems that have locks between processes: Linux.
func New(ctx context.Context, c Config) (*Dir, error) {
	d, err := c.make(ctx)
	if err != nil {
		return nil, fmt.Errorf("make temporary directory: %w", err)
	}
	return d, nil
}

func (c *Config) make(ctx context.Context) (*Dir, error) {
	c.Sweep()
	const tries = 100
	for try := 1; ; try++ {
		dir, err := os.MkdirTemp(c.Parent, c.Prefix+"*")
		if err != nil {
			return nil, err
		}
		d, err := c.hold(dir)
		if errdefs.IsNotImplemented(err) { // then nobody sweeps either
			return &Dir{path: dir, release: c.Release}, nil
		}
		if err == nil {
			return d, nil
		}
		// Another call may have come before the lock was taken, and have removed the directory or be about to.
		_ = removeTree(dir)
		if try == tries || ctx.Err() != nil {
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// hold locks a directory, or fails if its owner lives.
func (c *Config) hold(dir string) (*Dir, error) {
	locks, err := state.Open[struct{}](state.Config{Dir: dir, Kind: "temporary directory", Durability: state.Volatile})
	if err != nil {
		return nil, err
	}
	lock, err := locks.TryLock(lockName)
	if err != nil {
		return nil, err
	}
	return &Dir{path: dir, lock: lock, release: c.Release}, nil
}

// Sweep removes what killed calls left, as New does first: it is for who takes away what the directories are in. Whatever
// stays is in nobody's way.
func (c *Config) Sweep() {
	parent := c.Parent
	if parent == "" {
		parent = os.TempDir()
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return // which who makes a directory there learns, too
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), c.Prefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		if !isOwn(dir) {
			continue
		}
		if d, err := c.hold(dir); err == nil {
			_ = d.Remove()
		}
	}
}

// isOwn says whether a directory is this user's alone: another's may have been prepared to lead a removal astray.
func isOwn(dir string) bool {
	st, err := sys.StatAt(sys.CWD, dir)
	return err == nil && st.IsDir() && st.UID == uint32(os.Geteuid()) && st.Mode&0o077 == 0 //nolint:gosec // no user's number is below 0 where there is StatAt
}

// Path returns the path of the directory, or with names that of something in it.
func (d *Dir) Path(names ...string) string {
	return filepath.Join(append([]string{d.path}, names...)...)
}

// Remove removes the directory with all that is in it.
func (d *Dir) Remove() error {
	var err error
	if d.release != nil {
		err = d.release(d.path)
	}
	if err == nil {
		err = removeTree(d.path) // the lock goes with it, so nobody takes it in between
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Unlock())
	}
	if err != nil {
		return fmt.Errorf("remove temporary directory: %w", err)
	}
	return nil
}

// Publish gives a file in the directory the name that it is made for, outside of it but on the same file system. What has
// that name already stays, which is an error of class errdefs.ErrAlreadyExists.
func (d *Dir) Publish(file, name string) error {
	from := d.Path(file)
	err := os.Link(from, name)
	if err != nil && !errors.Is(err, fs.ErrExist) { // no file system has to have links
		if _, missing := os.Lstat(name); !errors.Is(missing, fs.ErrNotExist) {
			return errors.Join(err, missing)
		}
		return os.Rename(from, name)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", errdefs.ErrAlreadyExists, err)
	}
	return err
}

// removeTree removes what an ordinary user has made, read-only directories too.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(p, 0o700) //nolint:gosec // before it is read
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
