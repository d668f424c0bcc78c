package sys

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetXattrFD sets an extended attribute of what fd stands for.
func SetXattrFD(fd int, name, value string) error {
	// The kernel only reads the value, of which importing a Windows layer would otherwise make a copy for each file.
	data := unsafe.Slice(unsafe.StringData(value), len(value))
	return again(func() error { return unix.Fsetxattr(fd, name, data, 0) })
}

// SetXattrAt sets an extended attribute of base in dir and does not follow symbolic links. base must be a single name.
func SetXattrAt(dir int, base, name, value string) error {
	// setxattrat(2) is of Linux 6.13; the way through /proc leads to the same directory on all of them.
	return again(func() error { return unix.Lsetxattr(procFD(dir)+"/"+base, name, []byte(value), 0) })
}

// GetXattrFD returns an extended attribute's value. The error matches ErrNoXattr if there is none of that name.
func GetXattrFD(fd int, name string) (string, error) {
	return grow(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// GetXattrAt is GetXattrFD for base in dir, a symbolic link itself.
func GetXattrAt(dir int, base, name string) (string, error) {
	path := procFD(dir) + "/" + base
	return grow(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

// ListXattrsFD returns the names of all extended attributes; none where the file system has no such thing.
func ListXattrsFD(fd int) ([]string, error) {
	return splitNames(grow(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) }))
}

// ListXattrsAt is ListXattrsFD for base in dir, a symbolic link itself.
func ListXattrsAt(dir int, base string) ([]string, error) {
	path := procFD(dir) + "/" + base
	return splitNames(grow(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) }))
}

// RemoveXattrFD removes an extended attribute. The error matches ErrNoXattr if there is none of that name.
func RemoveXattrFD(fd int, name string) error {
	return again(func() error { return unix.Fremovexattr(fd, name) })
}

func splitNames(names string, err error) ([]string, error) {
	if err == unix.EOPNOTSUPP || err == nil && names == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(names, "\x00"), "\x00"), nil
}

// grow reads a value whose size may change between two calls.
func grow(read func(buf []byte) (int, error)) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := retry(func() (int, error) { return read(buf) })
		if err == unix.ERANGE {
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
}
