package rootfs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

func ntStore(t *testing.T) (*rootfs.Store, string) {
	t.Helper()
	dir := t.TempDir()
	opts := ntOptions()
	s, err := rootfs.Open(rootfs.Config{Dir: dir, UserXattr: bool(opts.UserXattr), Owner: opts.Owner})
	must(t, err)
	return s, filepath.Join(dir, "layers")
}

func streamOpener(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func threeTars(t *testing.T) (tars [][]byte, ids []digest.Digest) {
	t.Helper()
	three, err := layertest.NewWindowsImage()
	must(t, err)
	tars, err = three.Tars()
	must(t, err)
	for _, tar := range tars {
		ids = append(ids, digest.FromBytes(tar))
	}
	return tars, ids
}

// TestStoreWindows keeps three layers, each on top of the others, and gives back the streams that they came as.
func TestStoreWindows(t *testing.T) {
	t.Parallel()
	s, dir := ntStore(t)
	tars, ids := threeTars(t)
	if _, err := s.UnpackNT(t.Context(), ids[:2], streamOpener(tars[1])); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without its base: %v", err)
	}
	var layers []*rootfs.Layer
	for i := range tars {
		l, err := s.UnpackNT(t.Context(), ids[:i+1], streamOpener(tars[i]))
		must(t, err)
		if l.DiffID() != ids[i] || l.ID() != rootfs.ChainID(ids[:i+1]) || l.Encoding() != layer.NT {
			t.Errorf("layer %d is %s of %s", i, l.DiffID(), l.ID())
		}
		var out bytes.Buffer
		must(t, rootfs.WriteNT(t.Context(), l.Dir(), &out))
		if !bytes.Equal(out.Bytes(), tars[i]) {
			t.Errorf("layer %d is not what it was", i)
		}
		layers = append(layers, l)
	}
	// Names are those of the base, and hard links share its files.
	if _, err := os.Lstat(filepath.Join(layers[1].Path(), "Windows/System32/App.dll")); err != nil {
		t.Error(err)
	}
	a, err := os.Stat(filepath.Join(layers[0].Path(), "Windows/win.ini"))
	must(t, err)
	b, err := os.Stat(filepath.Join(layers[1].Path(), "app/ini.lnk"))
	must(t, err)
	if !os.SameFile(a, b) {
		t.Error("the hard link is no link")
	}
	// The same diffID on another base is another layer.
	if _, err := s.UnpackNT(t.Context(), []digest.Digest{ids[0], ids[2]}, streamOpener(tars[2])); err != nil {
		t.Error(err)
	}
	all, err := s.Layers()
	must(t, err)
	if len(all) != 4 {
		t.Errorf("%d layers", len(all))
	}
	if err := s.Remove(t.Context(), ids[0]); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "stands on it") {
		t.Errorf("remove the base: %v", err)
	}
	report, err := s.Prune(t.Context(), func(digest.Digest) bool { return false })
	must(t, err)
	if len(report.Layers) != 4 || len(nonHidden(t, dir)) != 0 {
		t.Errorf("prune removed %v and left %v", report.Layers, nonHidden(t, dir))
	}
}

func nonHidden(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		if e.Name() != ".empty" && e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestStoreWindowsBad leaves nothing of what is not as the diffID says, is cut, or is no such layer.
func TestStoreWindowsBad(t *testing.T) {
	t.Parallel()
	s, dir := ntStore(t)
	tars, ids := threeTars(t)
	for name, c := range map[string]struct {
		id   digest.Digest
		blob func() (io.ReadCloser, error)
	}{
		"another digest": {digest.FromString("x"), streamOpener(tars[0])},
		"cut":            {ids[0], streamOpener(tars[0][:len(tars[0])/2])},
		"no layer":       {digest.FromString("x"), streamOpener([]byte(strings.Repeat("x", 1024)))},
		"not there":      {ids[0], func() (io.ReadCloser, error) { return nil, errors.New("gone") }},
	} {
		if _, err := s.UnpackNT(t.Context(), []digest.Digest{c.id}, c.blob); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left := nonHidden(t, dir); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	if _, err := s.LayerNT(ids[0]); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestStoreWindowsTogether unpacks a chain many times at once: each layer is made once.
func TestStoreWindowsTogether(t *testing.T) {
	t.Parallel()
	s, dir := ntStore(t)
	tars, ids := threeTars(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for n := range errs {
		wg.Go(func() {
			for i := range tars {
				if _, err := s.UnpackNT(t.Context(), ids[:i+1], streamOpener(tars[i])); err != nil {
					errs[n] = err
					return
				}
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	if got := nonHidden(t, dir); len(got) != 3 || slices.ContainsFunc(got, func(s string) bool { return s[0] == '.' }) {
		t.Errorf("there are %v", got)
	}
}
