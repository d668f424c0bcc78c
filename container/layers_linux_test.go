package container_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// TestOpaqueRoot has a layer whose root hides all below it, as the layer store
// knows and no directory tells.
func TestOpaqueRoot(t *testing.T) {
	f := newFixture(t)
	hidden := f.unpack(func(w *tar.Writer) error {
		return w.WriteHeader(&tar.Header{Name: "hidden", Typeflag: tar.TypeDir, Mode: 0o755})
	})
	opaque := f.unpack(func(w *tar.Writer) error {
		if err := copyTar(w, testenv.BusyboxLayer(t)); err != nil {
			return err
		}
		return w.WriteHeader(&tar.Header{Name: ".wh..wh..opq", Mode: 0o644})
	})
	for _, c := range []struct {
		layers []digest.Digest
		want   string
	}{
		{[]digest.Digest{hidden, f.layers[0]}, "seen"},
		{[]digest.Digest{hidden, opaque}, "not seen"},
		{[]digest.Digest{hidden, opaque, hidden}, "seen"},
	} {
		s, err := f.Create(t.Context(), container.Spec{Layers: c.layers})
		f.must(err)
		f.must(s.Start(t.Context()))
		if got := f.ok(s, "test -e /hidden && echo seen || echo not seen"); got != c.want {
			t.Errorf("%d layers: %s, want %s", len(c.layers), got, c.want)
		}
		f.must(errors.Join(s.Terminate(t.Context()), s.Delete(t.Context()), s.Close()))
	}
}

// unpack puts a layer into the store.
func (f *fixture) unpack(write func(*tar.Writer) error) digest.Digest {
	f.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	f.must(write(w))
	f.must(w.Close())
	id := digest.FromBytes(b.Bytes())
	_, err := f.config.Layers.Unpack(f.t.Context(), id, func() (io.ReadCloser, error) { return io.NopCloser(&b), nil })
	f.must(err)
	return id
}

func copyTar(w *tar.Writer, file string) error {
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = io.Copy(w, r)
		}
		if err != nil {
			return err
		}
	}
}
