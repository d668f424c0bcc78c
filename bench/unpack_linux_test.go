package bench_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

// rounds is how often each program unpacks each image: the median of fewer than three quiet runs is no figure.
const rounds = 3

// An unpacker unpacks the image that tag names into target, which does not exist.
type unpacker struct {
	name   string
	cannot func(compression string) bool
	args   func(o order) [][]string // the commands, one after the other
}

// order is what an unpacker is asked to do.
type order struct {
	layout, tag string
	blobs       []string // base first
	target      string
}

// BenchmarkUnpack unpacks four kinds of image, compressed in two ways, to two kinds of file system, with every unpacker
// that the machine has, in turn, each on a file system of its own, and prints one table. hcs and umoci make a bundle, with
// an mtree manifest; the others only files. The bound is the larger of decompressing in process without looking at what
// comes out, and of making the same files with two threads. Whoever checks an image computes digests, too: the blob's, the
// layer's, and for the manifest every file's; "all on 2 cores" is half of what inflating, digests and making files take.
func BenchmarkUnpack(b *testing.B) {
	testenv.NeedRoot(b)
	bin := programs(b)
	paths := layouts(b)
	all := unpackers(b, bin)
	var table []string
	for _, place := range []string{"tmpfs", "disk"} {
		for _, i := range unpackImages {
			for _, c := range []string{"gzip", "zstd"} {
				b.Run(place+"/"+i.name+"/"+c, func(b *testing.B) {
					for b.Loop() {
						table = append(table, unpackRow(b, place, i.name, paths[i.name], c, all)...)
					}
					b.ReportMetric(0, "ns/op") // all programs' time together says nothing
				})
			}
		}
	}
	fmt.Printf("\n%-6s %-7s %-5s %-17s %9s %6s %9s\n%s\n", "place", "image", "blob", "program", "seconds", "ratio", "peak MiB", strings.Join(table, "\n"))
}

// peers builds what is in the module peers, into the repository's cache, and returns the directory.
var peers = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../.cache/bench/peers")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./...")
	build.Dir = "peers"
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the peers: %w: %s", err, out)
	}
	return dir, nil
})

func unpackers(b *testing.B, bin string) []unpacker {
	dir, err := peers()
	must(b, err)
	apply := filepath.Join(dir, "archive-apply")
	tar := testenv.NeedCommand(b, "tar", "bsdtar", "umoci")
	never := func(string) bool { return false }
	return []unpacker{
		{"hcs", never, func(o order) [][]string {
			return [][]string{{filepath.Join(bin, "hcs"), "image", "unpack", "--image", o.layout + ":" + o.tag, o.target}}
		}},
		{"umoci", func(c string) bool { return c == "zstd" }, func(o order) [][]string {
			return [][]string{{tar[2], "unpack", "--image", o.layout + ":" + o.tag, o.target}}
		}},
		{"GNU tar", never, func(o order) [][]string {
			cmds := [][]string{{"mkdir", o.target}}
			for _, blob := range o.blobs {
				cmds = append(cmds, []string{tar[0], "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--" + o.tag, "-f", blob, "-C", o.target})
			}
			return cmds
		}},
		{"bsdtar", func(c string) bool { return c == "zstd" }, func(o order) [][]string {
			cmds := [][]string{{"mkdir", o.target}}
			for _, blob := range o.blobs {
				cmds = append(cmds, []string{tar[1], "-x", "-p", "--numeric-owner", "-f", blob, "-C", o.target})
			}
			return cmds
		}},
		{"containerd", never, func(o order) [][]string {
			return [][]string{{"mkdir", o.target}, append([]string{apply, o.target}, o.blobs...)}
		}},
	}
}

// unpackRow measures one image at one place and returns the lines of the table.
func unpackRow(b *testing.B, place, name, layout, compression string, all []unpacker) []string {
	o := order{layout: layout, tag: compression, blobs: blobsOf(b, layout, compression)}
	seconds := make(map[string][]float64)
	memory := make(map[string]int64)
	for range rounds {
		for _, u := range all {
			if u.cannot(compression) {
				continue
			}
			onNewFS(b, place, func(dir string) {
				o.target = filepath.Join(dir, "target")
				start := time.Now()
				peak := runAll(b, u.args(o))
				seconds[u.name] = append(seconds[u.name], time.Since(start).Seconds())
				memory[u.name] = max(memory[u.name], peak)
			})
		}
		inflated, hashed := inflate(b, o.blobs, compression)
		seconds["inflate alone"] = append(seconds["inflate alone"], inflated)
		seconds["digests alone"] = append(seconds["digests alone"], hashed)
		onNewFS(b, place, func(dir string) {
			seconds["create alone"] = append(seconds["create alone"], createAlone(b, filepath.Join(dir, "target"), o.blobs))
		})
	}
	return unpackLines([]string{place, name, compression}, seconds, memory)
}

func unpackLines(key []string, seconds map[string][]float64, memory map[string]int64) []string {
	middle := func(name string) float64 {
		s := slices.Sorted(slices.Values(seconds[name]))
		if len(s) == 0 {
			return 0
		}
		return s[len(s)/2]
	}
	ours := middle("hcs")
	line := func(name string, took float64) string {
		peak := ""
		if memory[name] > 0 {
			peak = fmt.Sprint(memory[name] >> 20)
		}
		return fmt.Sprintf("%-6s %-7s %-5s %-17s %9.2f %6.2f %9s", key[0], key[1], key[2], name, took, ours/took, peak)
	}
	var lines []string
	for _, name := range []string{"hcs", "umoci", "GNU tar", "bsdtar", "containerd", "inflate alone", "digests alone", "create alone"} {
		if took := middle(name); took > 0 {
			lines = append(lines, line(name, took))
		}
	}
	work := middle("inflate alone") + middle("digests alone") + 2*middle("create alone")
	return append(lines, line("bound", max(middle("inflate alone"), middle("create alone"))), line("all on 2 cores", work/2))
}

// blobsOf returns the files of an image's layers.
func blobsOf(b *testing.B, layout, tag string) []string {
	ref := image.Ref{Transport: image.TransportOCI, Path: layout, Tag: tag}
	src, img, err := image.OpenImage(b.Context(), ref, image.HostPlatform())
	must(b, err)
	defer func() { must(b, src.Close()) }()
	var blobs []string
	for _, l := range img.Manifest.Layers {
		blobs = append(blobs, filepath.Join(layout, "blobs", "sha256", l.Digest.Encoded()))
	}
	return blobs
}

// runAll runs commands one after the other and returns the largest resident set of them and their children, in bytes.
func runAll(b testing.TB, commands [][]string) int64 {
	dir, err := peers()
	must(b, err)
	file := filepath.Join(b.TempDir(), "peak")
	var most int64
	for _, args := range commands {
		cmd := exec.CommandContext(b.Context(), filepath.Join(dir, "peak"), append([]string{file}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("run %s: %v: %s", cmd, err, out)
		}
		data, err := os.ReadFile(file)
		must(b, err)
		peak, err := strconv.ParseInt(string(data), 10, 64)
		must(b, err)
		most = max(most, peak)
	}
	return most
}

// onNewFS calls f with the directory of a new file system.
func onNewFS(b *testing.B, place string, f func(dir string)) {
	dir, remove := newFS(b, place, 16<<30)
	defer remove()
	f(dir)
}

// newFS makes a file system, and mounts it: a tmpfs of half the size, or an ext4 in a file on the disk, as one that much was removed from is
// slow. A small one is all there from the beginning, and leaves the kernel nothing to do meanwhile.
func newFS(tb testing.TB, place string, size int64) (dir string, remove func()) {
	dir = tb.TempDir()
	file := dir + ".ext4"
	if place == "tmpfs" {
		must(tb, syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size/2)))
	} else {
		must(tb, os.WriteFile(file, nil, 0o600))
		must(tb, os.Truncate(file, size))
		lazy := 0
		if size > 1<<30 {
			lazy = 1
		}
		options := fmt.Sprintf("lazy_itable_init=%d,lazy_journal_init=%d,nodiscard", lazy, lazy)
		runAll(tb, [][]string{{"mkfs.ext4", "-q", "-E", options, file}, {"mount", "-o", "loop", file, dir}})
	}
	syscall.Sync()
	return dir, func() {
		must(tb, syscall.Unmount(dir, syscall.MNT_DETACH)) // processes that are ending may have it still
		if place != "tmpfs" {
			must(tb, os.Remove(file))
		}
	}
}

// inflate decompresses the blobs and looks at nothing, in one thread, and says how long that takes, and how long the digests
// of the blobs and, twice, of what comes out.
func inflate(b *testing.B, blobs []string, compression string) (inflated, hashed float64) {
	digest := sha256.New()
	buffer := make([]byte, 1<<20)
	for _, blob := range blobs {
		f, err := os.Open(blob)
		must(b, err)
		var r io.Reader
		start := time.Now()
		if compression == "gzip" {
			r, err = kgzip.NewReader(f)
		} else {
			var d *zstd.Decoder
			if d, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1)); err == nil {
				defer d.Close()
				r = d
			}
		}
		must(b, err)
		for err == nil {
			var n int
			n, err = io.ReadFull(r, buffer)
			inflated += time.Since(start).Seconds()
			start = time.Now()
			_, _ = digest.Write(buffer[:n])
			_, _ = digest.Write(buffer[:n])
			hashed += time.Since(start).Seconds()
			start = time.Now()
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			b.Fatal(err)
		}
		must(b, f.Close())
		data, err := os.ReadFile(blob)
		must(b, err)
		start = time.Now()
		_, _ = digest.Write(data)
		hashed += time.Since(start).Seconds()
	}
	return inflated, hashed
}

// createAlone makes the files that the layers have, by two threads, of zeros.
func createAlone(b *testing.B, target string, blobs []string) float64 {
	files := make(map[string]int64)
	var dirs []string
	for _, blob := range blobs {
		collect(b, blob, files, &dirs)
	}
	must(b, os.Mkdir(target, 0o755))
	names := make(chan string, len(files))
	for name := range files {
		names <- name
	}
	close(names)
	zeros := make([]byte, 1<<20)
	start := time.Now()
	for _, d := range dirs {
		must(b, os.MkdirAll(filepath.Join(target, d), 0o755))
	}
	var (
		group sync.WaitGroup
		lock  sync.Mutex
		errs  []error
	)
	for range 2 {
		group.Go(func() {
			for name := range names {
				if err := createFile(filepath.Join(target, name), files[name], zeros); err != nil {
					lock.Lock()
					errs = append(errs, err)
					lock.Unlock()
				}
			}
		})
	}
	group.Wait()
	must(b, errors.Join(errs...))
	return time.Since(start).Seconds()
}

func collect(b *testing.B, blob string, files map[string]int64, dirs *[]string) {
	f, err := os.Open(blob)
	must(b, err)
	defer func() { _ = f.Close() }()
	r, err := layer.OpenBlob(f, layer.Limits{})
	must(b, err)
	defer func() { must(b, r.Close()) }()
	for e, err := range r.All() {
		must(b, err)
		switch e.Kind {
		case layer.File:
			files[e.Name] = e.Size
			*dirs = append(*dirs, filepath.Dir(e.Name))
		case layer.Dir:
			*dirs = append(*dirs, e.Name)
		case layer.Whiteout:
			delete(files, e.Name)
		}
	}
	slices.Sort(*dirs)
	*dirs = slices.Compact(*dirs)
}

func createFile(name string, size int64, zeros []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for size > 0 && err == nil {
		var n int
		n, err = f.Write(zeros[:min(size, int64(len(zeros)))])
		size -= int64(n)
	}
	return errors.Join(err, f.Close())
}
