package rootfs_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// BenchmarkUnpack unpacks 10,000 small files, and Debian, from layers in all compressions into a store, and with GNU tar,
// which does not sync, verify or count whiteouts. Each run has fresh directories, all of which go in the end only: removing
// makes file systems slow for a while.
func BenchmarkUnpack(b *testing.B) {
	testenv.NeedRoot(b)
	for name, blob := range map[string]func(testing.TB) string{
		"many":   func(t testing.TB) string { return manyFiles(t, 10000) },
		"debian": testenv.DebianLayer,
	} {
		b.Run(name, func(b *testing.B) { benchmarkUnpack(b, blob(b)) })
	}
}

func benchmarkUnpack(b *testing.B, plain string) {
	data, err := os.ReadFile(plain)
	must(b, err)
	diffID := digest.FromBytes(data)
	dir := b.TempDir()
	blobs := []string{plain}
	for _, tool := range []string{"gzip", "zstd"} {
		out, err := os.Create(filepath.Join(dir, tool))
		must(b, err)
		cmd := exec.Command(testenv.NeedCommand(b, tool)[0], "-c", plain)
		cmd.Stdout = out
		must(b, cmd.Run())
		must(b, out.Close())
		blobs = append(blobs, out.Name())
	}
	for i, kind := range []string{"tar", "gzip", "zstd"} {
		n := 0
		fresh := func() string {
			n++
			return filepath.Join(dir, fmt.Sprint(kind, b.Name(), n))
		}
		b.Run(kind+"/store", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				s, err := rootfs.Open(rootfs.Config{Dir: fresh()})
				must(b, err)
				_, err = s.Unpack(b.Context(), diffID, func() (io.ReadCloser, error) { return os.Open(blobs[i]) })
				must(b, err)
			}
		})
		b.Run(kind+"/gnutar", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				dst := fresh()
				must(b, os.MkdirAll(dst, 0o755))
				tarCommand(b, "-C", dst, "-xpf", blobs[i])
			}
		})
	}
}
