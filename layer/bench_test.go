package layer_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/hostcompute/hcs/layer"
)

// benchLayer makes a layer of n files of the given size, with a directory for
// every hundred, as Go programs write it.
func benchLayer(b *testing.B, n, size int) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := someBytes(size)
	for i := range n {
		if i%100 == 0 {
			must(b, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/share/dir%d/", i/100), Typeflag: tar.TypeDir, Mode: 0o755}))
		}
		must(b, w.WriteHeader(&tar.Header{
			Name: fmt.Sprintf("usr/share/dir%d/file%d", i/100, i), Size: int64(size), Mode: 0o644, Uname: "root", Gname: "root",
		}))
		_, err := w.Write(content)
		must(b, err)
	}
	must(b, w.Close())
	return buf.Bytes()
}

var benchLayers = []struct {
	name    string
	n, size int
}{
	{"small", 20_000, 700},
	{"large", 4, 32 << 20},
}

func BenchmarkReader(b *testing.B) {
	for _, c := range benchLayers {
		in := benchLayer(b, c.n, c.size)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				r := layer.NewReader(bytes.NewReader(in), layer.Limits{})
				for _, err := range r.All() {
					must(b, err)
					_, err := r.WriteTo(io.Discard)
					must(b, err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(c.n)/b.Elapsed().Seconds(), "entries/s")
		})
		b.Run(c.name+"/archive-tar", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				r := tar.NewReader(bytes.NewReader(in))
				for {
					if _, err := r.Next(); err == io.EOF {
						break
					}
					_, err := io.Copy(io.Discard, r)
					must(b, err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(c.n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkOpenBlob(b *testing.B) {
	for _, c := range benchLayers {
		in := benchLayer(b, c.n, c.size)
		for _, z := range compressions {
			blob := compress(b, in, z, len(in))
			b.Run(c.name+"/"+z.String(), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(in)))
				for b.Loop() {
					l, err := layer.OpenBlob(bytes.NewReader(blob), layer.Limits{})
					must(b, err)
					for _, err := range l.All() {
						must(b, err)
						_, err := l.WriteTo(io.Discard)
						must(b, err)
					}
					_, err = l.Finish()
					must(b, err)
				}
				b.ReportMetric(float64(b.N)*float64(c.n)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, c := range benchLayers {
		files := readAll(b, benchLayer(b, c.n, c.size))
		for _, anew := range []bool{false, true} {
			name := c.name + "/unchanged"
			if anew {
				name = c.name + "/anew"
				for i := range files {
					files[i].Entry = fresh(files[i].Entry)
				}
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(c.n * c.size))
				for b.Loop() {
					w := layer.NewWriter(io.Discard)
					for _, f := range files {
						must(b, w.Write(f.Entry, bytes.NewReader(f.Content)))
					}
					must(b, w.Close())
				}
				b.ReportMetric(float64(b.N)*float64(c.n)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
}
