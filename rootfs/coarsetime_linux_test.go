package rootfs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// TestChangesInTheSameSecond changes a file on a file system that keeps times in seconds, without another sign of it than
// the content.
func TestChangesInTheSameSecond(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	tools := testenv.NeedCommand(t, "mkfs.ext4", "mount")
	top := t.TempDir()
	disk, mnt := filepath.Join(top, "disk"), filepath.Join(top, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 8<<20))
	for _, command := range [][]string{{tools[0], "-q", "-I", "128", disk}, {tools[1], "-o", "loop", disk, mnt}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	defer func() { must(t, sys.Unmount(mnt)) }()
	blob := tarOf(t, file("f", "old"))
	for range 10 {
		// Late in a second, the time of the unpacked file seems to be long ago.
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1300 * time.Millisecond)))
		tree := filepath.Join(mnt, "tree")
		var manifest bytes.Buffer
		_, err := rootfs.UnpackTree(t.Context(), tree, blobsOf(blob), rootfs.TreeOptions{Mtree: &manifest})
		must(t, err)
		name := filepath.Join(tree, "f")
		was := statOf(t, name)
		must(t, os.WriteFile(name, []byte("new"), 0))
		must(t, os.Chtimes(name, was.ATime, was.MTime))
		is := statOf(t, name)
		if got := changesOf(t, tree, manifest.Bytes()); got != "m f" {
			t.Fatalf("the changes are %q; change times are %v and %v", got, was.CTime, is.CTime)
		}
		must(t, os.RemoveAll(tree))
		if is.CTime.Equal(was.CTime) {
			return
		}
	}
	t.Error("no two changes had the same time")
}

func statOf(t testing.TB, name string) sys.Stat {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	st, err := sys.StatFD(int(f.Fd()))
	must(t, err)
	return st
}
