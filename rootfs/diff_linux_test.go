package rootfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// mounted is a container's root: layers with a scratch layer on top.
type mounted struct {
	store  *rootfs.Store
	layers []*rootfs.Layer
	x      *rootfs.Scratch
	dir    string // the mount
}

func mount(t *testing.T, blobs ...[]byte) *mounted {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	s, dir := newStore(t)
	testenv.NoLeaks(t, testenv.Scope{Dir: dir})
	m := &mounted{store: s, dir: filepath.Join(dir, "mnt")}
	for _, blob := range blobs {
		l, err := s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
		must(t, err)
		m.layers = append(m.layers, l)
	}
	var err error
	m.x, err = s.CreateScratch(t.Context(), "x", m.layers...)
	must(t, err)
	must(t, os.Mkdir(m.dir, 0o700))
	must(t, sys.MountOverlay(s.Overlay(m.x, m.dir, m.layers...)))
	t.Cleanup(func() { must(t, sys.Unmount(m.dir)) })
	return m
}

// commit makes a layer of what was changed.
func (m *mounted) commit(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := layer.NewWriter(&buf)
	must(t, m.store.Diff(t.Context(), m.x, w.Write))
	must(t, w.Close())
	return buf.Bytes()
}

// TestDiffRoundTrip changes a container's root in every way, makes a layer of the change and puts it on the same layers,
// in both formats: it must look as the container did.
func TestDiffRoundTrip(t *testing.T) {
	t.Parallel()
	base := tarOf(t, dir("."), dir("d"), file("d/f", "x"), file("d/g", "y"), file("gone", "z"), dir("gonedir"), file("gonedir/f", ""),
		dir("again"), file("again/old", ""), file("becomesdir", ""), dir("becomesfile"), file("becomesfile/x", ""),
		file("chmod", "1"), file("append", "2"), symlink("l", "d"), file("rename", "3"), dir("renamedir"), file("renamedir/f", "4"),
		hardlink("hard", "chmod"))
	m := mount(t, base)
	in := func(name string) string { return filepath.Join(m.dir, name) }
	must(t, os.Remove(in("gone")))
	must(t, os.RemoveAll(in("gonedir")))
	must(t, os.RemoveAll(in("again")))
	must(t, os.Mkdir(in("again"), 0o711))
	must(t, os.WriteFile(in("again/new"), []byte("n"), 0o600))
	must(t, os.Remove(in("becomesdir")))
	must(t, os.MkdirAll(in("becomesdir/sub"), 0o755))
	must(t, os.RemoveAll(in("becomesfile")))
	must(t, os.WriteFile(in("becomesfile"), []byte("f"), 0o644))
	must(t, os.Chmod(in("chmod"), 0o4711))
	must(t, os.WriteFile(in("append"), []byte("22"), 0o644))
	must(t, os.Rename(in("rename"), in("d/renamed")))
	if err := os.Rename(in("renamedir"), in("renameddir")); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("rename of a lower layer's directory: %v; want EXDEV, or the diff has a redirect", err)
	}
	must(t, os.Lchown(in("l"), 5, 6))
	must(t, os.Remove(in("d/g")))
	must(t, os.Mkdir(in("fresh"), 0o755))
	nastyTree(t, in("fresh"))

	change := m.commit(t)
	v := view{times: true, holes: true}
	want := listing(t, m.dir, v)
	must(t, os.Mkdir(m.dir+"2", 0o700))
	l, err := m.store.Unpack(t.Context(), diffIDOf(change), opener(change))
	must(t, err)
	must(t, sys.MountOverlay(m.store.Overlay(nil, m.dir+"2", append(m.layers, l)...)))
	t.Cleanup(func() { must(t, sys.Unmount(m.dir+"2")) })
	compare(t, listing(t, m.dir+"2", v), want)

	plain := t.TempDir()
	for _, blob := range [][]byte{base, change} {
		_, err := apply(t, plain, bytes.NewReader(blob), rootfs.ApplyOptions{})
		must(t, err)
	}
	compare(t, listing(t, plain, v), want)
	if again := m.commit(t); !bytes.Equal(again, change) {
		t.Error("the second diff of the same change is another layer")
	}
}

// TestDiffEntries sees what is emitted, in order.
func TestDiffEntries(t *testing.T) {
	t.Parallel()
	upper := t.TempDir()
	root, err := inroot.Open(upper)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	marks := "trusted.overlay."
	if os.Geteuid() != 0 {
		marks = "user.overlay."
	}
	must(t, root.Mkdir("b", 0o755))
	must(t, root.Mkdir("b/opaque", 0o755))
	must(t, root.Mknod("b/gone", sys.ModeChar, 0, 0))
	must(t, os.WriteFile(filepath.Join(upper, "b/xgone"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(upper, "b-file"), []byte("12"), 0o644))
	must(t, root.Link("b-file", "a-link"))
	must(t, syscall.Mkfifo(filepath.Join(upper, "fifo"), 0o600))
	for name, attr := range map[string]string{"b/opaque": "opaque", "b": "origin", "b/xgone": "whiteout", "b-file": "origin"} {
		d, last, err := root.OpenParent(name)
		must(t, err)
		must(t, d.SetXattr(last, marks+attr, "y"))
		must(t, d.Close())
	}
	listen(t, filepath.Join(upper, "socket"))
	var got []string
	must(t, rootfs.Diff(t.Context(), upper, func(e *layer.Entry, content io.Reader) error {
		s := fmt.Sprintf("%v %s %s", e.Kind, e.Name, e.Link)
		if content != nil {
			data, err := io.ReadAll(content)
			must(t, err)
			s += string(data)
		}
		if len(e.Xattrs) > 0 {
			s += fmt.Sprint(e.Xattrs)
		}
		got = append(got, s)
		return nil
	}))
	want := []string{
		"dir . ", "file a-link 12", "dir b ", "hardlink b-file a-link", "whiteout b/gone ", "dir b/opaque ", "opaque b/opaque ",
		"whiteout b/xgone ", "fifo fifo ",
	}
	slices.Sort(want)
	sorted := slices.Sorted(slices.Values(got))
	if !slices.Equal(sorted, want) || got[0] != "dir . " {
		t.Errorf("entries are %q, want %q", got, want)
	}
}

// listen leaves a socket at path.
func listen(t *testing.T, path string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	must(t, err)
	defer func() { must(t, syscall.Close(fd)) }()
	must(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}))
}

func TestDiffRefuses(t *testing.T) {
	t.Parallel()
	marks := "trusted.overlay."
	if os.Geteuid() != 0 {
		marks = "user.overlay."
	}
	for _, c := range []struct {
		name, attr string
		err        error
	}{
		{"redirected", "redirect", errdefs.ErrFailedPrecondition},
		{"metacopied", "metacopy", errdefs.ErrFailedPrecondition},
		{".wh.x", "", errdefs.ErrInvalidArgument},
	} {
		upper := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(upper, "d", c.name), 0o755))
		if c.attr != "" {
			must(t, syscall.Setxattr(filepath.Join(upper, "d", c.name), marks+c.attr, []byte("/x"), 0))
		}
		err := rootfs.Diff(t.Context(), upper, func(*layer.Entry, io.Reader) error { return nil })
		oneLine(t, err, c.err, "d/"+c.name)
	}
	err := rootfs.Diff(t.Context(), filepath.Join(t.TempDir(), "missing"), nil)
	oneLine(t, err, os.ErrNotExist, "missing")
	full := errors.New("disk full")
	err = rootfs.Diff(t.Context(), t.TempDir(), func(*layer.Entry, io.Reader) error { return full })
	oneLine(t, err, full)
}

// TestDiffManyHoles has a file with more holes than a header can list.
func TestDiffManyHoles(t *testing.T) {
	t.Parallel()
	upper := t.TempDir()
	f, err := os.Create(filepath.Join(upper, "f"))
	must(t, err)
	for i := range int64(20000) {
		_, err := f.WriteAt([]byte("x"), i*16384)
		must(t, err)
	}
	must(t, f.Truncate(1<<40))
	must(t, f.Close())
	var buf bytes.Buffer
	w := layer.NewWriter(&buf)
	must(t, rootfs.Diff(t.Context(), upper, w.Write))
	must(t, w.Close())
	dst := t.TempDir()
	_, err = apply(t, dst, &buf, rootfs.ApplyOptions{})
	must(t, err)
	got, err := os.Open(filepath.Join(dst, "f"))
	must(t, err)
	defer func() { must(t, got.Close()) }()
	info, err := got.Stat()
	must(t, err)
	data := make([]byte, 20000*16384)
	_, err = io.ReadFull(got, data)
	must(t, err)
	if info.Size() != 1<<40 || bytes.Count(data, []byte("x")) != 20000 || strings.Trim(string(data[:16385]), "\x00") != "x"+strings.Repeat("\x00", 16383)+"x" {
		t.Errorf("the file of %d bytes is another one", info.Size())
	}
}
