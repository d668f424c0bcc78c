package rootfs_test

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// TestUnpackTreeSpills unpacks images of which the table of names has next to no memory, with directories that are sorted in
// many parts, and compares with applying the layers in order.
func TestUnpackTreeSpills(t *testing.T) {
	t.Parallel()
	for name, layers := range map[string][][]tar.Header{
		"large directory": {manyNames(3000, "")},
		"long names":      {manyNames(300, strings.Repeat("n", 240))},
		"layers":          {manyNames(1500, ""), append([]tar.Header{dir("d"), wh("d/f7"), hardlink("h", "d/f8")}, manyNames(20, "")...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var blobs [][]byte
			for _, headers := range layers {
				blobs = append(blobs, tarOf(t, headers...))
			}
			if stats := compareWithOrder(t, blobs, rootfs.TreeOptions{Memory: 1}); stats.InOrder {
				t.Error("the layers were applied in order")
			}
		})
	}
}

// manyNames are some of everything in one directory, not sorted.
func manyNames(count int, long string) []tar.Header {
	headers := []tar.Header{dir("d")}
	for i := range count {
		name := fmt.Sprintf("d/f%d%s", i*7%count, long)
		switch i % 5 {
		case 0:
			headers = append(headers, dir(name), file(name+"/x", "y"))
		case 1:
			headers = append(headers, symlink(name, strings.Repeat("t", i)))
		default:
			h := file(name, fmt.Sprint(i))
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", i%100)}
			headers = append(headers, h)
		}
	}
	return headers
}

// TestUnpackTreeSpillFull has a disk with room for the files, but not for the table: the error says so, and nothing stays.
func TestUnpackTreeSpillFull(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top})
	must(t, exec.Command(testenv.NeedCommand(t, "mount")[0], "-t", "tmpfs", "-o", "size=256k,nr_inodes=100000", "none", top).Run())
	defer func() { must(t, sys.Unmount(top)) }()
	var headers []tar.Header
	for i := range 3000 {
		headers = append(headers, file(fmt.Sprint(strings.Repeat("n", 200), i), ""))
	}
	blob := tarOf(t, headers...)
	_, err := rootfs.UnpackTree(t.Context(), filepath.Join(top, "tree"), blobsOf(blob), rootfs.TreeOptions{Memory: 1})
	oneLine(t, err, sys.ErrNoSpace, "unpack to", "keep in a file what memory is not for")
	empty(t, top)
}

// TestUnpackTreeSpillLeft finds what a killed call leaves on a file system without nameless files.
func TestUnpackTreeSpillLeft(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	work := filepath.Join(top, ".hcs-unpack-tree")
	must(t, os.Mkdir(work, 0o700))
	must(t, os.WriteFile(filepath.Join(work, "spill"), []byte("x"), 0o600))
	tree := filepath.Join(top, "tree")
	_, err := rootfs.UnpackTree(t.Context(), tree, blobsOf(tarOf(t, file("f", "x"))), rootfs.TreeOptions{})
	must(t, err)
	must(t, os.RemoveAll(tree))
	empty(t, top)
}

// TestUnpackTreeSpillNamed unpacks to a file system that has no nameless files.
func TestUnpackTreeSpillNamed(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	programs := testenv.NeedCommand(t, "mkntfs", "ntfs-3g", "umount")
	top := t.TempDir()
	disk, mnt := filepath.Join(top, "disk"), filepath.Join(top, "mnt")
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 64<<20))
	must(t, exec.Command(programs[0], "-F", "-Q", "-q", disk).Run())
	must(t, os.Mkdir(mnt, 0o755))
	must(t, exec.Command(programs[1], "-o", "permissions", disk, mnt).Run())
	defer func() { must(t, exec.Command(programs[2], mnt).Run()) }()
	tree := filepath.Join(mnt, "tree")
	_, err := rootfs.UnpackTree(t.Context(), tree, blobsOf(tarOf(t, manyNames(1000, "")...)), rootfs.TreeOptions{Memory: 1})
	must(t, err)
	if found := names(t, filepath.Join(tree, "d")); len(found) != 1000 {
		t.Errorf("%d names", len(found))
	}
	must(t, os.RemoveAll(tree))
	empty(t, mnt)
}
