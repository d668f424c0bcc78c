package layer_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/layer"
)

// benchNT makes a layer of n files of the given size as Windows exports it.
func benchNT(b *testing.B, n, size int) []byte {
	files := []winFile{{name: "Files", attrs: 0x10, sd: dirSD}, {name: "Hives", attrs: 0x10, sd: dirSD}}
	content := strings.Repeat("x", size)
	for i := range n {
		files = append(files, winFile{
			name: fmt.Sprintf("Files/Windows/System32/DriverStore/dir%d/file%d.dll", i/100, i), attrs: 0x20, sd: fileSD, content: content,
		})
	}
	return export(b, files, "")
}

// BenchmarkNT reads layers, and reads and writes them again: unchanged, and
// encoded anew.
func BenchmarkNT(b *testing.B) {
	for _, c := range benchLayers {
		in := benchNT(b, c.n, c.size)
		for _, m := range []struct {
			name string
			each func(w *layer.Writer, r *layer.Reader, e *layer.Entry) error
		}{
			{"decode", func(_ *layer.Writer, r *layer.Reader, _ *layer.Entry) error {
				_, err := r.WriteTo(io.Discard)
				return err
			}},
			{"decode+encode", func(w *layer.Writer, r *layer.Reader, e *layer.Entry) error { return w.Write(e, r) }},
			{"decode+anew", func(w *layer.Writer, r *layer.Reader, e *layer.Entry) error {
				e.Forget()
				return w.Write(e, r)
			}},
		} {
			b.Run(c.name+"/"+m.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(in)))
				for b.Loop() {
					r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(in))
					w := layer.NewWriter(io.Discard)
					for e, err := range r.All() {
						must(b, err)
						must(b, m.each(w, r, e))
					}
					must(b, w.Close())
				}
				b.ReportMetric(float64(b.N)*float64(c.n)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
}
