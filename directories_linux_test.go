package hcs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs"
)

// TestOpenPrivate has a directory that others may write to, or that is
// another's, refused: one with a known name in /tmp could be.
func TestOpenPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	must(t, os.Mkdir(open, 0o700))
	must(t, os.Chmod(open, 0o777|os.ModeSticky))
	for _, c := range []hcs.Config{
		{Root: filepath.Join(dir, "root"), Run: open}, {Root: open, Run: filepath.Join(dir, "run")},
	} {
		if _, err := hcs.Open(c); !errdefs.IsPermissionDenied(err) {
			t.Errorf("open %+v: %v", c, err)
		}
	}
	_, err := hcs.Open(hcs.Config{Root: filepath.Join(dir, "root"), Run: "/usr"})
	if os.Geteuid() != 0 && !errors.Is(err, os.ErrPermission) {
		t.Errorf("open with another user's directory: %v", err)
	}
	if _, err := hcs.Open(hcs.Config{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run")}); err != nil {
		t.Error(err)
	}
}
