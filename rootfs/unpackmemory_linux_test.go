package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/rootfs"
)

// A bigImage makes the entries of its layers, base first, on the way: of all layers about as many as it is told. count is what
// a test of ordinary length takes.
type bigImage struct {
	name   string
	count  int
	layers []func(count int, write func(h tar.Header))
}

var bigImages = []bigImage{
	{"one directory", 100_000, []func(int, func(tar.Header)){func(count int, write func(tar.Header)) {
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(count) {
			write(file(fmt.Sprintf("f%07d", i), ""))
		}
	}}},
	{"long names", 100_000, []func(int, func(tar.Header)){func(count int, write func(tar.Header)) {
		for i := range count {
			if i%1000 == 0 {
				write(dir(fmt.Sprintf("d%04d", i/1000)))
			}
			write(symlink(fmt.Sprintf("d%04d/%s%d", i/1000, strings.Repeat("n", 200), i), strings.Repeat("t", 200)))
		}
	}}},
	{"directories", 50_000, []func(int, func(tar.Header)){func(count int, write func(tar.Header)) {
		for i := range count {
			name := strconv.Itoa(i)
			write(dir(strings.Join(strings.Split(name, ""), "/") + "/d" + name))
		}
	}}},
	{"in order", 100_000, []func(int, func(tar.Header)){func(count int, write func(tar.Header)) {
		write(dir("d"))
		write(symlink("l", "d"))
		write(file("l/x", "d"))
		bigLayer(count, write)
	}}},
	{"layers", 300_000, []func(int, func(tar.Header)){
		func(count int, write func(tar.Header)) { bigLayer(count/2, write) },
		func(count int, write func(tar.Header)) {
			bigLayer(count/4, write) // which hides a part of the lower one
			for i := range count / 4 {
				write(hardlink(fmt.Sprintf("d%04d/h%d", i/100, i), fmt.Sprintf("d%04d/f%d", i/100, i)))
			}
		},
	}},
}

func bigLayer(count int, write func(tar.Header)) {
	for i := range count {
		if i%100 == 0 {
			write(dir(fmt.Sprintf("d%04d", i/100)))
		}
		write(file(fmt.Sprintf("d%04d/f%d", i/100, i), "x"))
	}
}

// blobs returns the layers, which are made while they are read.
func (b *bigImage) blobs(count int) []rootfs.LayerBlob {
	var blobs []rootfs.LayerBlob
	for _, entries := range b.layers {
		open := func(context.Context) (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() {
				t := tar.NewWriter(w)
				entries(count, func(h tar.Header) {
					content := h.Gname
					h.Gname, h.Uid, h.Gid, h.Size, h.Mode = "", os.Geteuid(), os.Getegid(), int64(len(content)), 0o755
					if h.Typeflag == 0 {
						h.Typeflag = tar.TypeReg
					}
					// What fails here is a pipe that the reader closed, who says why.
					_ = t.WriteHeader(&h)
					_, _ = t.Write([]byte(content))
				})
				_ = w.CloseWithError(t.Close())
			}()
			return r, nil
		}
		blobs = append(blobs, rootfs.LayerBlob{Open: open})
	}
	return blobs
}

// mostAboveSmall is how much more memory an unpack of any image may take than one of a small image.
const mostAboveSmall = 64 << 20

// TestUnpackTreeMemory has processes unpack images of very many names, and compare the tree with its manifest, and says how
// much memory each of both took beyond an unpack of a small image.
func TestUnpackTreeMemory(t *testing.T) {
	if name := os.Getenv("HCS_TEST_BIG_IMAGE"); name != "" {
		unpackBig(t, name)
		return
	}
	for _, b := range bigImages {
		t.Run(b.name, func(t *testing.T) {
			count := b.count
			if n, err := strconv.Atoi(os.Getenv("HCS_TEST_BIG_COUNT")); err == nil {
				count = n
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestUnpackTreeMemory$", "-test.count=1")
			cmd.Env = append(os.Environ(), "HCS_TEST_BIG_IMAGE="+b.name, fmt.Sprint("HCS_TEST_BIG_COUNT=", count), "HCS_TEST_BIG_DIR="+onTmpfs(t))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("unpack: %v\n%s", err, out)
			}
			var small, unpack, compare int64
			if _, err := fmt.Sscanf(string(out), "peaks %d %d %d", &small, &unpack, &compare); err != nil {
				t.Fatalf("the process says %q: %v", out, err)
			}
			t.Logf("%d entries: %d KiB, to compare them %d KiB; a small image: %d KiB", count, unpack>>10, compare>>10, small>>10)
			if most := max(unpack, compare) - small; most > mostAboveSmall {
				t.Errorf("%d entries take %d MiB more than a small image, want at most %d", count, most>>20, mostAboveSmall>>20)
			}
		})
	}
}

// onTmpfs returns a directory where making files is cheap, if the test may have such.
func onTmpfs(t *testing.T) string {
	dir := t.TempDir()
	if os.Geteuid() == 0 && exec.Command("mount", "-t", "tmpfs", "none", dir).Run() == nil {
		t.Cleanup(func() { must(t, sys.Unmount(dir)) })
	}
	return dir
}

// unpackBig unpacks a small image and a large one, compares the latter with its manifest, and prints the peak of memory in
// each step.
func unpackBig(t *testing.T, name string) {
	count, err := strconv.Atoi(os.Getenv("HCS_TEST_BIG_COUNT"))
	must(t, err)
	dir := os.Getenv("HCS_TEST_BIG_DIR")
	for _, b := range bigImages {
		if b.name != name {
			continue
		}
		var peaks strings.Builder
		peaks.WriteString("peaks")
		for _, n := range []int{1000, count} {
			manifest, err := os.Create(filepath.Join(dir, "manifest"))
			must(t, err)
			opts := rootfs.TreeOptions{Owner: rootfs.IgnoreOwner, Mtree: manifest}
			stats, err := rootfs.UnpackTree(t.Context(), filepath.Join(dir, strconv.Itoa(n)), b.blobs(n), opts)
			must(t, err)
			must(t, manifest.Close())
			if inOrder := name == "in order"; stats.InOrder != inOrder {
				t.Errorf("the layers were applied in order: %v", stats.InOrder)
			}
			peaks.WriteString(fmt.Sprint(" ", peakMemory(t)))
		}
		debug.FreeOSMemory()
		must(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)) // proc(5): the peak begins anew
		changes, err := changesIn(t.Context(), filepath.Join(dir, strconv.Itoa(count)), filepath.Join(dir, "manifest"))
		must(t, err)
		if len(changes) > 0 {
			t.Errorf("the tree has %d changes, first %v", len(changes), changes[0])
		}
		peaks.WriteString(fmt.Sprint(" ", peakMemory(t)))
		if !t.Failed() {
			fmt.Println(peaks.String())
		}
	}
}

func changesIn(ctx context.Context, tree, manifest string) ([]rootfs.Change, error) {
	f, err := os.Open(manifest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return rootfs.Changes(ctx, tree, f, rootfs.ChangeOptions{})
}

// peakMemory is the largest resident set that this process had, in bytes.
func peakMemory(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib int64
	_, err = fmt.Sscanf(string(rest), "%d kB", &kib)
	must(t, err)
	return kib << 10
}
