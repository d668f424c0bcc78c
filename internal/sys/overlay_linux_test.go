package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/testenv"
)

// layerDirs makes n directories, topmost first, each with a file of its own and one that all have.
func layerDirs(t testing.TB, n int, suffix string) []string {
	t.Helper()
	base := t.TempDir()
	var dirs []string
	for i := range n {
		dir := filepath.Join(base, fmt.Sprint(i)+suffix)
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), nil, 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "all"), fmt.Append(nil, i), 0o644))
		dirs = append(dirs, dir)
	}
	return dirs
}

func needOverlay(t testing.TB) (target string) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	target = t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: target})
	t.Cleanup(func() { must(t, Unmount(target)) })
	return target
}

func TestMountOverlay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		layers   int
		suffix   string
		writable bool
		change   func(*Overlay)
	}{
		{name: "1 read-only", layers: 1},
		{name: "1", layers: 1, writable: true},
		{name: "2 read-only", layers: 2},
		{name: "2", layers: 2, writable: true},
		{name: "118", layers: 118, writable: true},
		{name: "500", layers: 500, writable: true},
		{name: "500 read-only", layers: 500},
		{name: "separators in names", layers: 3, suffix: `:\,=`, writable: true},
		{name: "long names", layers: 3, suffix: strings.Repeat("x", 250), writable: true},
		{name: "user xattrs", layers: 2, writable: true, change: func(o *Overlay) { o.UserXattr = true }},
		{name: "volatile", layers: 2, writable: true, change: func(o *Overlay) { o.Volatile = true }},
		{name: "read-only with upper", layers: 2, writable: true, change: func(o *Overlay) { o.ReadOnly = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := Overlay{Target: needOverlay(t), Lower: layerDirs(t, c.layers, c.suffix)}
			if c.writable {
				base := filepath.Join(t.TempDir(), strings.TrimLeft(c.suffix, ":"))
				o.Upper, o.Work = filepath.Join(base, "u"), filepath.Join(base, "w")
				must(t, os.MkdirAll(o.Upper, 0o755))
				must(t, os.MkdirAll(o.Work, 0o755))
			}
			if c.change != nil {
				c.change(&o)
			}
			must(t, MountOverlay(o))
			checkMerged(t, o.Target, c.layers)
			err := os.WriteFile(filepath.Join(o.Target, "new"), []byte("x"), 0o644)
			if writable := c.writable && !o.ReadOnly; writable != (err == nil) {
				t.Errorf("writing into the mount: %v", err)
			}
			if err == nil {
				_, err = os.Stat(filepath.Join(o.Upper, "new"))
				must(t, err)
			} else if !errors.Is(err, unix.EROFS) {
				t.Errorf("writing into a read-only mount: %v", err)
			}
			must(t, Unmount(o.Target))
			must(t, Unmount(o.Target)) // nothing there is fine
		})
	}
}

func checkMerged(t *testing.T, target string, n int) {
	t.Helper()
	entries, err := os.ReadDir(target)
	must(t, err)
	if len(entries) != n+1 {
		t.Errorf("the mount has %d entries, want %d", len(entries), n+1)
	}
	if got, err := os.ReadFile(filepath.Join(target, "all")); string(got) != "0" {
		t.Errorf("the mount shows layer %q on top, %v; want 0", got, err)
	}
}

func TestMountOverlayRefuses(t *testing.T) {
	t.Parallel()
	target := needOverlay(t)
	lower := layerDirs(t, 2, "")
	missing := filepath.Join(target, "missing")
	many := make([]string, 501)
	for i := range many {
		many[i] = lower[0]
	}
	for _, c := range []struct {
		name string
		o    Overlay
		err  error
		says string
	}{
		{"501 layers", Overlay{Lower: many, Target: target}, errdefs.ErrInvalidArgument, "501 layers given, overlayfs takes at most 500"},
		{"no layers", Overlay{Target: target}, errdefs.ErrInvalidArgument, "no lower directory"},
		{"no target", Overlay{Lower: lower}, errdefs.ErrInvalidArgument, "no target"},
		{"upper without work", Overlay{Lower: lower, Target: target, Upper: target}, errdefs.ErrInvalidArgument, "go together"},
		{"missing target", Overlay{Lower: lower, Target: missing}, os.ErrNotExist, missing},
		{"missing layer", Overlay{Lower: []string{lower[0], missing}, Target: target}, os.ErrNotExist, missing},
		{"missing base", Overlay{Lower: []string{missing, lower[0]}, Target: target}, os.ErrNotExist, missing},
		{"missing only layer", Overlay{Lower: []string{missing}, Target: target}, os.ErrNotExist, missing},
		{"work elsewhere", Overlay{Lower: lower, Target: target, Upper: lower[0], Work: "/proc"}, unix.EINVAL, "set up overlayfs"},
	} {
		err := MountOverlay(c.o)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", c.name, err, c.says)
		}
	}
}

// TestMountOverlayJoined uses the option that kernels before 6.5 know.
func TestMountOverlayJoined(t *testing.T) {
	t.Parallel()
	o := Overlay{Target: needOverlay(t), Lower: layerDirs(t, 3, `:\`)}
	must(t, mountWith(&o, addLowerJoined))
	checkMerged(t, o.Target, 3)
}

func TestUnmount(t *testing.T) {
	t.Parallel()
	target := needOverlay(t)
	must(t, Unmount(filepath.Join(target, "missing")))
	must(t, MountOverlay(Overlay{Target: target, Lower: layerDirs(t, 2, "")}))
	file, err := os.Open(filepath.Join(target, "all")) // in use
	must(t, err)
	defer func() { must(t, file.Close()) }()
	must(t, Unmount(target))
	if _, err := os.Stat(filepath.Join(target, "all")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount is still there: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("/proc", link))
	must(t, Unmount(link)) // the link itself is no mount
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Errorf("unmounted what a link leads to: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
