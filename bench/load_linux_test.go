package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// BenchmarkLoad loads the Debian image into an empty store, synced to disk,
// against GNU tar unpacking the same layer, unsynced. Every run has fresh
// directories, and removes none: a file system is slow after a large removal.
func BenchmarkLoad(b *testing.B) {
	testenv.NeedRoot(b)
	bin := programs(b)
	layout := testenv.Image(b, "debian")
	for _, place := range []string{"disk", "tmpfs"} {
		for _, tag := range []struct{ name, flag string }{{"latest", "--gzip"}, {"zstd", "--zstd"}} {
			b.Run(place+"/"+tag.flag[2:], func(b *testing.B) {
				dir := loadDir(b, place)
				blob := layerOf(b, layout, tag.name)
				n := 0
				ours := func() error {
					n++
					cmd := exec.Command(filepath.Join(bin, "hcs"), "image", "load", "-q", "oci:"+layout+":"+tag.name)
					cmd.Env = append(os.Environ(), fmt.Sprintf("HCS_ROOT=%s/root-%d", dir, n), "HCS_RUN="+dir+"/run")
					return cmd.Run()
				}
				theirs := func() error {
					n++
					target := fmt.Sprintf("%s/tar-%d", dir, n)
					if err := os.Mkdir(target, 0o755); err != nil {
						return err
					}
					return exec.Command("tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", tag.flag,
						"-f", blob, "-C", target).Run()
				}
				must(b, ours())
				must(b, theirs())
				// What the one has left unwritten is not the other's to sync.
				clean := func(f func() error) runner { return runner{before: syscall.Sync, run: f} }
				for b.Loop() {
					pairs(b, 9, 200*time.Millisecond, clean(ours), clean(theirs))
				}
			})
		}
	}
}

func loadDir(b *testing.B, place string) string {
	dir := b.TempDir()
	if place == "tmpfs" {
		must(b, syscall.Mount("tmpfs", dir, "tmpfs", 0, ""))
		b.Cleanup(func() { must(b, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	}
	return dir
}

// layerOf returns the file of the only layer of an image in a layout.
func layerOf(b *testing.B, layout, tag string) string {
	ctx := b.Context()
	ref, err := image.ParseRef("oci:" + layout + ":" + tag)
	must(b, err)
	src, img, err := image.OpenImage(ctx, ref, image.HostPlatform())
	must(b, err)
	defer src.Close()
	if len(img.Manifest.Layers) != 1 {
		b.Fatalf("the image has %d layers", len(img.Manifest.Layers))
	}
	return filepath.Join(layout, "blobs", "sha256", img.Manifest.Layers[0].Digest.Encoded())
}
