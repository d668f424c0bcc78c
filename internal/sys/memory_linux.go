package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MapMemory returns memory of zeros that the garbage collector knows nothing of: it holds no pointers, and the caller gives
// it back with UnmapMemory. size is in bytes.
func MapMemory(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory: %w", size, err)
	}
	return b, nil
}

// UnmapMemory gives back what MapMemory returned.
func UnmapMemory(b []byte) error {
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("unmap memory: %w", err)
	}
	return nil
}

// UnnamedFile opens a new file in dir that has no name there and goes when it is closed. On a file system that knows no such
// files it is called name for a moment, so the name has to be the caller's alone, and a killed process may leave it.
func UnnamedFile(dir, name string) (*os.File, error) {
	fd, err := OpenAt(CWD, dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), filepath.Join(dir, name)), nil
	case !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL):
		return nil, &os.PathError{Op: "create a file without name in", Path: dir, Err: err}
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
