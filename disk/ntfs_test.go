package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// TestNTFS makes the two images of a base layer, blank-base.vhdx and blank.vhdx over it, and reads the volume through both.
func TestNTFS(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "mkntfs", "ntfs-3g")
	dir := t.TempDir()
	base, blank := filepath.Join(dir, "blank-base.vhdx"), filepath.Join(dir, "blank.vhdx")
	when := time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC)
	entry := layer.Entry{
		Name: "hello.txt", Size: 5, ModTime: when, AccessTime: when.Add(time.Hour), ChangeTime: when.Add(2 * time.Hour),
		NT: &ntfs.Meta{Attributes: ntfs.AttrArchive | ntfs.AttrHidden, CreationTime: when.Add(3 * time.Hour)},
	}
	o := disk.Options{Format: disk.DynamicVHDX, Size: 20 << 30, BlockSize: mib}
	must(t, disk.CreateNTFS(t.Context(), base, "", o, func(add disk.Adder) error { return add(&entry, strings.NewReader("hello")) }))
	must(t, mustDisk(t)(disk.CreateChild(blank, base, disk.Options{BlockSize: mib}, disk.FileOptions{})).Close())
	for _, name := range []string{base, blank} {
		d := mustDisk(t)(disk.OpenFile(name, disk.FileOptions{}))
		found := map[string]string{}
		must(t, disk.ReadNTFS(t.Context(), d, func(e *layer.Entry, content io.Reader) error {
			if content == nil {
				return nil
			}
			b, err := io.ReadAll(content)
			found[e.Name] = string(b)
			for _, pair := range [][2]time.Time{
				{e.ModTime, entry.ModTime}, {e.AccessTime, entry.AccessTime}, {e.ChangeTime, entry.ChangeTime}, {e.NT.CreationTime, entry.NT.CreationTime},
			} {
				if !pair[0].Equal(pair[1]) {
					t.Errorf("%s: time %v, want %v", name, pair[0], pair[1])
				}
			}
			if e.NT.Attributes != entry.NT.Attributes {
				t.Errorf("%s: attributes %v", name, e.NT.Attributes)
			}
			return err
		}))
		if d := cmp.Diff(map[string]string{"hello.txt": "hello"}, found); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		must(t, d.Close())
	}
	if info, err := os.Stat(base); err != nil || info.Size() > 200*mib {
		t.Errorf("an empty disk of 20 GiB takes %d bytes, %v", info.Size(), err)
	}
	run(t, testenv.NeedCommand(t, "qemu-img")[0], "check", "-f", "vhdx", base)

	fault := errors.New("no more")
	err := disk.CreateNTFS(t.Context(), filepath.Join(dir, "x.vhdx"), "", o, func(disk.Adder) error { return fault })
	names, _ := os.ReadDir(dir)
	if !errors.Is(err, fault) || len(names) != 2 {
		t.Errorf("failed: %v, and left %v", err, names)
	}
}

// TestNTFSKilled kills a process that makes an image: nothing has its name, and the next call removes what is beside it.
func TestNTFSKilled(t *testing.T) {
	o := disk.Options{Format: disk.DynamicVHDX, Size: 1 << 30, BlockSize: mib}
	if name := os.Getenv("HCS_TEST_DISK_NTFS"); name != "" {
		t.Error(disk.CreateNTFS(t.Context(), name, "", o, func(disk.Adder) error {
			fmt.Println("now")
			testenv.AwaitKill()
			return nil
		}))
		return
	}
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "mkntfs", "ntfs-3g")
	dir, temporary := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	name := filepath.Join(dir, "a.vhdx")
	cmd := exec.Command(os.Args[0], "-test.run=^TestNTFSKilled$", "-test.v=false")
	cmd.Env = append(os.Environ(), "HCS_TEST_DISK_NTFS="+name)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("now\n")))
	must(t, disk.CreateNTFS(t.Context(), filepath.Join(dir, "b.vhdx"), "", o, nil))
	if list := namesOf(t, dir); len(list) != 2 {
		t.Errorf("while another call runs there are %v", list)
	}
	if err = errors.Join(err, cmd.Process.Kill()); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	add := func(disk.Adder) error { return nil }
	must(t, disk.CreateNTFS(t.Context(), filepath.Join(dir, "c.vhdx"), "", o, add))
	if d := cmp.Diff([]string{"b.vhdx", "c.vhdx"}, namesOf(t, dir)); d != "" {
		t.Error(d)
	}
	if left := namesOf(t, temporary); len(left) > 0 {
		t.Errorf("left in the directory for temporary files: %v", left)
	}
	if err := disk.CreateNTFS(t.Context(), filepath.Join(dir, "c.vhdx"), "", o, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another image: %v", err)
	}
}

func namesOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestGrowNTFS grows disks of all formats with files on them, and a differencing one over one of them, whose parent stays.
func TestGrowNTFS(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "mkntfs", "ntfs-3g", "ntfsresize", "ntfsfix")
	dir := t.TempDir()
	content := strings.Repeat("a file of the volume ", 100_000)
	fill := func(add disk.Adder) error {
		return add(&layer.Entry{Name: "old.txt", Size: int64(len(content)), NT: &ntfs.Meta{Attributes: ntfs.AttrArchive}}, strings.NewReader(content))
	}
	for name, format := range map[string]disk.Format{"a.vhdx": disk.DynamicVHDX, "a.vhd": disk.DynamicVHD, "a.img": disk.Raw} {
		path := filepath.Join(dir, name)
		must(t, disk.CreateNTFS(t.Context(), path, "", disk.Options{Format: format, Size: 200 * mib}, fill))
		if format == disk.DynamicVHDX {
			child := filepath.Join(dir, "child.vhdx")
			must(t, mustDisk(t)(disk.CreateChild(child, path, disk.Options{BlockSize: mib}, disk.FileOptions{})).Close())
			before, err := os.ReadFile(path)
			must(t, err)
			must(t, disk.GrowNTFS(t.Context(), child, 500*mib, disk.FileOptions{}))
			checkGrown(t, child, 500*mib, content)
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the parent has changed, %v", err)
			}
			if info, err := os.Stat(child); err != nil || info.Size() > 40*mib {
				t.Errorf("the child takes %d bytes, %v", info.Size(), err)
			}
		}
		for _, size := range []int64{300 * mib, 1 << 30, 1<<30 + 512} {
			must(t, disk.GrowNTFS(t.Context(), path, size, disk.FileOptions{}))
			checkGrown(t, path, size, content)
		}
		if err := disk.GrowNTFS(t.Context(), path, 300*mib, disk.FileOptions{}); !errdefs.IsNotImplemented(err) {
			t.Errorf("%s shrinks: %v", name, err)
		}
	}
	empty := filepath.Join(dir, "empty.vhdx")
	must(t, mustDisk(t)(disk.CreateFile(empty, disk.Options{Format: disk.DynamicVHDX, Size: 10 * mib})).Close())
	if err := disk.GrowNTFS(t.Context(), empty, 20*mib, disk.FileOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a disk without partitions: %v", err)
	}
	d := mustDisk(t)(disk.OpenFile(empty, disk.FileOptions{Access: disk.ReadWrite}))
	must(t, d.Resize(30*mib))
	table, err := disk.WindowsTable(30*mib, 512, seeded(1))
	must(t, err)
	must(t, errors.Join(disk.WriteTable(d, 30*mib, table), d.Close()))
	if err := disk.GrowNTFS(t.Context(), empty, 40*mib, disk.FileOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("a disk without a volume: %v", err)
	}
}

// checkGrown looks at the disk, its table and its volume.
func checkGrown(t *testing.T, path string, size int64, content string) {
	t.Helper()
	d := mustDisk(t)(disk.OpenFile(path, disk.FileOptions{}))
	defer func() { must(t, d.Close()) }()
	table, err := disk.ReadTable(d, size)
	must(t, err)
	part := table.Partitions[len(table.Partitions)-1]
	boot := make([]byte, 512)
	_, err = d.ReadAt(boot, part.Offset)
	must(t, err)
	if volume := int64(le.Uint64(boot[40:])) * 512; d.Size() != size || part.Offset+part.Size < size-3*mib || volume < part.Size-mib || volume > part.Size {
		t.Errorf("%s: a disk of %d bytes, a partition of %d at %d, a volume of %d", path, d.Size(), part.Size, part.Offset, volume)
	}
	n := 0
	must(t, disk.ReadNTFS(t.Context(), d, func(e *layer.Entry, r io.Reader) error {
		if e.Name != "old.txt" {
			return nil
		}
		n++
		b, err := io.ReadAll(r)
		if string(b) != content {
			t.Errorf("%s: the file has %d bytes, not those that it had", path, len(b))
		}
		return err
	}))
	if n != 1 {
		t.Errorf("%s has %d files", path, n)
	}
}
