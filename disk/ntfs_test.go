package disk_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
