package layer_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// makeDevices makes one node of each kind, and extended attributes.
func makeDevices(t testing.TB, dir string) {
	t.Helper()
	must(t, syscall.Mknod(filepath.Join(dir, "null"), syscall.S_IFCHR|0o666, 1<<8|3))
	must(t, syscall.Mknod(filepath.Join(dir, "disk"), syscall.S_IFBLK|0o660, 8<<8))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, os.Chown(filepath.Join(dir, "block"), 1234, 5678))
	must(t, syscall.Setxattr(filepath.Join(dir, "small"), "user.test", []byte("va\x00lue"), 0))
	must(t, syscall.Setxattr(filepath.Join(dir, "small"), "user.empty", nil, 0))
}
