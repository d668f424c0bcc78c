package layer_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
)

// checkHollow takes the content out of a layer's stream, which is readable, and puts it in again.
func checkHollow(t testing.TB, in []byte, opts layer.ReadOptions) {
	t.Helper()
	var hollow, out bytes.Buffer
	var files [][]byte
	r := opts.NewReader(bytes.NewReader(in))
	w := layer.NewWriter(&hollow)
	for e, err := range r.All() {
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		if e.Kind == layer.Stream {
			must(t, w.Write(e, bytes.NewReader(content)))
			continue
		}
		if e.Kind == layer.File {
			files = append(files, content)
		}
		must(t, w.WriteHeader(e))
	}
	trailer, err := r.Trailer()
	must(t, err)
	must(t, w.CloseWith(trailer))
	if len(files) > 0 && len(bytes.Join(files, nil)) > 0 && hollow.Len() >= len(in) {
		t.Fatalf("%d bytes without content, of %d", hollow.Len(), len(in))
	}

	opts.Hollow = true
	r, w = opts.NewReader(&hollow), layer.NewWriter(&out)
	for e, err := range r.All() {
		must(t, err)
		var content io.Reader = r
		if e.Kind == layer.File {
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("%s: read %d bytes, %v", e.Name, n, err)
			}
			content, files = bytes.NewReader(files[0]), files[1:]
		}
		must(t, w.Write(e, content))
	}
	trailer, err = r.Trailer()
	must(t, err)
	must(t, w.CloseWith(trailer))
	if !bytes.Equal(in, out.Bytes()) {
		t.Fatalf("written again: %d bytes, which differ from the %d read at %d", out.Len(), len(in), firstDifference(in, out.Bytes()))
	}
}

func TestNTHollow(t *testing.T) {
	t.Parallel()
	layers := map[string][]byte{
		"base": export(t, baseLayer, ""), "suffixes": export(t, baseLayer, ":$DATA"), "diff": export(t, diffLayer, ""),
		"random": export(t, randomLayer(rand.New(rand.NewPCG(9, 9)), 1500), ""),
	}
	vectors, err := layertest.NTVectors()
	must(t, err)
	for _, v := range vectors {
		layers[v.File+"/"+v.Name] = v.Layers[0]
	}
	tried := 0
	for name, in := range layers {
		opts := layer.ReadOptions{Encoding: layer.NT}
		if !isReadable(in, opts) {
			continue
		}
		tried++
		t.Run(name, func(t *testing.T) { checkHollow(t, in, opts) })
	}
	if tried < 20 {
		t.Errorf("only %d of %d layers can be read", tried, len(layers))
	}
}

func isReadable(in []byte, opts layer.ReadOptions) bool {
	r := opts.NewReader(bytes.NewReader(in))
	for _, err := range r.All() {
		if err != nil {
			return false
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return false
		}
	}
	_, err := r.Trailer()
	return err == nil
}

// TestHeaderOfStream: what has no place in a hollow stream is refused.
func TestHeaderOfStream(t *testing.T) {
	t.Parallel()
	for _, e := range readNT(t, export(t, baseLayer, ""), nil) {
		if e.Kind != layer.Stream {
			continue
		}
		if err := layer.NewWriter(io.Discard).WriteHeader(e.Entry); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", e.Name, err)
		}
		return
	}
	t.Error("the layer has no stream")
}
