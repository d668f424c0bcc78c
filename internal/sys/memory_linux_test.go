package sys_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
)

func TestUnnamedFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		dir  func(*testing.T) string
	}{
		{"known to the kernel", func(t *testing.T) string { return t.TempDir() }},
		{"unknown", withoutUnnamedFiles},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := c.dir(t)
			for range 2 {
				checkUnnamed(t, dir)
			}
		})
	}
}

func checkUnnamed(t *testing.T, dir string) {
	t.Helper()
	f, err := sys.UnnamedFile(dir, "file")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt([]byte("content"), 1<<20); err != nil {
		t.Error(err)
	}
	b := make([]byte, 100)
	if n, err := f.ReadAt(b, 1<<20); string(b[:n]) != "content" || !errors.Is(err, io.EOF) {
		t.Errorf("the file has %q: %v", b[:n], err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file has a name: %v", err)
	}
}

// withoutUnnamedFiles mounts a file system that does not know files without names.
func withoutUnnamedFiles(t *testing.T) string {
	t.Helper()
	testenv.NeedRoot(t)
	programs := testenv.NeedCommand(t, "mkntfs", "ntfs-3g", "umount")
	top := t.TempDir()
	disk, mnt := filepath.Join(top, "disk"), filepath.Join(top, "mnt")
	steps := []error{
		os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 16<<20), os.Mkdir(mnt, 0o755),
		exec.Command(programs[0], "-F", "-Q", "-q", disk).Run(), exec.Command(programs[1], disk, mnt).Run(),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := exec.Command(programs[2], mnt).Run(); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.Open(mnt, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err == nil {
		_ = unix.Close(fd)
		t.Fatal("the file system knows files without names")
	}
	return mnt
}
