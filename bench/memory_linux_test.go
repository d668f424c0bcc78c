package bench_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

// BenchmarkMemory unpacks images of ever more small files, in two layers, changes one file in a hundred and repacks, and
// prints the peak of memory of both: it is to depend on the number of files no more.
func BenchmarkMemory(b *testing.B) {
	testenv.NeedRoot(b)
	hcs := filepath.Join(programs(b), "hcs")
	var table []string
	for b.Loop() {
		for _, count := range []int{1_000, 60_000, 300_000, 1_000_000} {
			layout := layoutOf(b, unpackImage{fmt.Sprint("names-", count), func(*testing.B) []writeLayer {
				return []writeLayer{namesLayer("lower", count/2), namesLayer("upper", count-count/2)}
			}})
			onNewFS(b, "tmpfs", func(dir string) {
				ours, bundle := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle")
				runAll(b, [][]string{{"cp", "-a", layout, ours}})
				unpack := runAll(b, [][]string{{hcs, "image", "unpack", "--image", ours + ":gzip", bundle}})
				changeOneInAHundred(b, filepath.Join(bundle, "rootfs"))
				repack := runAll(b, [][]string{{hcs, "image", "repack", "--image", ours + ":new", bundle}})
				table = append(table, fmt.Sprintf("%9d %11d %11d", count, unpack>>20, repack>>20))
			})
		}
	}
	b.ReportMetric(0, "ns/op")
	fmt.Printf("\n%9s %11s %11s\n%s\n", "files", "unpack MiB", "repack MiB", strings.Join(table, "\n"))
}

// namesLayer has a directory with directories of a hundred small files each.
func namesLayer(top string, count int) writeLayer {
	return func(w *layer.Writer) error {
		for i := range count {
			dir := fmt.Sprintf("%s/d%05d", top, i/100)
			if i%100 == 0 {
				if err := w.Write(&layer.Entry{Name: dir, Kind: layer.Dir, Mode: 0o755, ModTime: epoch}, nil); err != nil {
					return err
				}
			}
			content := fmt.Sprint("file ", i)
			e := &layer.Entry{Name: fmt.Sprintf("%s/f%07d", dir, i), Mode: 0o644, Size: int64(len(content)), ModTime: epoch}
			if err := w.Write(e, strings.NewReader(content)); err != nil {
				return err
			}
		}
		return nil
	}
}
