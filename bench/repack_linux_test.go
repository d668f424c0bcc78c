package bench_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
)

// BenchmarkRepack changes one file in a hundred of an unpacked image with 60,000 files, and makes a layer of it, as hcs and
// as umoci, each from the bundle that it unpacked itself.
func BenchmarkRepack(b *testing.B) {
	testenv.NeedRoot(b)
	hcs := filepath.Join(programs(b), "hcs")
	umoci := testenv.NeedCommand(b, "umoci")[0]
	layout := layouts(b)["files"]
	programs := map[string][]string{"hcs": {hcs, "image"}, "umoci": {umoci}}
	took := make(map[string][]time.Duration)
	memory := make(map[string]int64)
	for b.Loop() {
		for range rounds {
			for name, program := range programs {
				onNewFS(b, "tmpfs", func(dir string) {
					ours := filepath.Join(dir, "layout")
					bundle := filepath.Join(dir, "bundle")
					runAll(b, [][]string{{"cp", "-a", layout, ours}})
					runAll(b, [][]string{append(program[:len(program):len(program)], "unpack", "--image", ours+":gzip", bundle)})
					changeOneInAHundred(b, filepath.Join(bundle, "rootfs"))
					start := time.Now()
					peak := runAll(b, [][]string{append(program[:len(program):len(program)], "repack", "--image", ours+":new", bundle)})
					took[name] = append(took[name], time.Since(start))
					memory[name] = max(memory[name], peak)
				})
			}
		}
	}
	us, them := median(took["hcs"]), median(took["umoci"])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(us)/float64(them), "ratio")
	fmt.Printf("\nrepack after a change of 1 %%: hcs %v, %d MiB; umoci %v, %d MiB\n", us, memory["hcs"]>>20, them, memory["umoci"]>>20)
}

func changeOneInAHundred(b *testing.B, root string) {
	n := 0
	must(b, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if n++; n%100 != 0 {
			return nil
		}
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteString("changed"); err != nil {
			return err
		}
		return f.Close()
	}))
}
