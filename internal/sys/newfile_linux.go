package sys

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func createUnnamed(dir string) (*os.File, error) {
	fd, err := OpenAt(CWD, dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create a file without name in", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// nameFile is the way of open(2) for who may not link by descriptor.
func nameFile(f *os.File, path string) error {
	from := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	err := again(func() error { return unix.Linkat(CWD, from, CWD, path, unix.AT_SYMLINK_FOLLOW) })
	if err != nil {
		return &os.LinkError{Op: "link", Old: "a new file", New: path, Err: err}
	}
	return nil
}
