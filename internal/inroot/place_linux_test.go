package inroot_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestLocate(t *testing.T) {
	t.Parallel()
	dir, root := newTree(t)
	const (
		asIs = iota
		asFile
		asDir
	)
	for _, c := range []struct {
		name  string
		how   int
		found string // what it is, in the root
		err   error
	}{
		{name: "abs", found: "etc/passwd"},
		{name: "absdir/c", found: "a/b/c"},
		{name: "fifo", found: "fifo"},
		{name: "tofifo", how: asFile, found: "fifo"},
		{name: "climb", err: fs.ErrNotExist},
		{name: "climb", how: asFile, found: "secret"},
		{name: "loop", err: syscall.ELOOP},
		{name: "loop", how: asFile, err: syscall.ELOOP},
		{name: "x/y/file", how: asFile, found: "x/y/file"},
		{name: "x/y/file", how: asFile, found: "x/y/file"},
		{name: "/absdir/new/er", how: asFile, found: "a/b/new/er"},
		{name: "dangling", how: asFile, found: "nowhere"},
		{name: "danglingup", how: asFile, found: "new"},
		{name: "outside", how: asFile, found: filepath.Join(dir, "secret")}, // below the root
		{name: "p/q", how: asDir, found: "p/q"},
		{name: "absdir", how: asDir, found: "a/b"},
		{name: "etc/passwd/x", how: asFile, err: syscall.ENOTDIR},
		{name: "etc/passwd/x", how: asDir, err: syscall.ENOTDIR},
		{name: "..", how: asDir, found: "."},
	} {
		locate := root.Locate
		switch c.how {
		case asFile:
			locate = func(name string) (*os.File, error) { return root.LocateOrMakeFile(name, 0o644) }
		case asDir:
			locate = func(name string) (*os.File, error) { return root.LocateOrMakeDir(name, 0o755) }
		}
		f, err := locate(c.name)
		if !errors.Is(err, c.err) {
			t.Errorf("%q, %d: %v; want %v", c.name, c.how, err, c.err)
		}
		if err != nil {
			continue
		}
		got, err := f.Stat()
		must(t, errors.Join(err, f.Close()))
		if want, err := os.Lstat(filepath.Join(dir, "root", c.found)); err != nil || !os.SameFile(got, want) {
			t.Errorf("%q, %d: not %q: %v", c.name, c.how, c.found, err)
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 2 {
		t.Errorf("outside of the root there is %q", left)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "secret")); err != nil || string(text) != "outside" {
		t.Errorf("outside of the root: %q, %v", text, err)
	}
}
