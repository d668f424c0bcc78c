package disk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/testenv"
)

// qemuDriver is what qemu calls a format.
func qemuDriver(f disk.Format) (driver, options string) {
	switch f {
	case disk.FixedVHD:
		return "vpc", "subformat=fixed,force_size=on"
	case disk.DynamicVHD:
		return "vpc", "subformat=dynamic,force_size=on"
	case disk.FixedVHDX:
		return "vhdx", "subformat=fixed"
	case disk.DynamicVHDX:
		return "vhdx", "subformat=dynamic"
	}
	return "raw", ""
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestQemuReads has qemu check and compare what was written here.
func TestQemuReads(t *testing.T) {
	t.Parallel()
	qemu := testenv.NeedCommand(t, "qemu-img")[0]
	for _, o := range kinds {
		t.Run(name(o), func(t *testing.T) {
			t.Parallel()
			if o.SectorSize == 4096 {
				t.Log("qemu has no disks with sectors of 4096 bytes")
				return
			}
			dir := t.TempDir()
			image, raw := filepath.Join(dir, "image"), filepath.Join(dir, "raw")
			model := make([]byte, 70*mib+512)
			o.Size, o.Time = int64(len(model)), time.Now()
			d := mustDisk(t)(disk.CreateFile(image, o))
			r := rand.New(rand.NewPCG(4, 4))
			scribble(t, r, d, model, 40)
			must(t, d.Close())
			driver, _ := qemuDriver(o.Format)
			compare := func() {
				t.Helper()
				must(t, os.WriteFile(raw, model, 0o600))
				if driver == "vhdx" {
					run(t, qemu, "check", "-f", driver, image)
				}
				run(t, qemu, "compare", "-f", driver, "-F", "raw", image, raw)
				var info struct {
					Size int64 `json:"virtual-size"`
				}
				must(t, json.Unmarshal([]byte(run(t, qemu, "info", "--output=json", "-f", driver, image)), &info))
				if info.Size != int64(len(model)) {
					t.Errorf("qemu sees %d bytes, want %d", info.Size, len(model))
				}
			}
			compare()
			d = mustDisk(t)(disk.OpenFile(image, disk.FileOptions{Access: disk.ReadWrite}))
			scribble(t, r, d, model, 40)
			must(t, d.Resize(int64(len(model))+40*mib))
			model = append(model, make([]byte, 40*mib)...)
			scribble(t, r, d, model, 10)
			must(t, d.Close())
			compare()
		})
	}
}

// TestReadsQemu reads images that qemu has made, written into and grown.
func TestReadsQemu(t *testing.T) {
	t.Parallel()
	tools := testenv.NeedCommand(t, "qemu-img", "qemu-io")
	for _, format := range []disk.Format{disk.FixedVHD, disk.DynamicVHD, disk.FixedVHDX, disk.DynamicVHDX} {
		t.Run(format.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			image, raw := filepath.Join(dir, "image"), filepath.Join(dir, "raw")
			model := make([]byte, 40*mib)
			var buf memory
			scribble(t, rand.New(rand.NewPCG(5, 5)), &buf, model, 20)
			must(t, os.WriteFile(raw, model, 0o600))
			driver, options := qemuDriver(format)
			run(t, tools[0], "convert", "-f", "raw", "-O", driver, "-o", options, raw, image)
			run(t, tools[1], "-f", driver, "-c", "write -P 0x5a 5M 70000", "-c", "write -P 0x6b 33M 512", image)
			copy(model[5*mib:], bytes.Repeat([]byte{0x5a}, 70000))
			copy(model[33*mib:], bytes.Repeat([]byte{0x6b}, 512))
			d := mustDisk(t)(disk.OpenFile(image, disk.FileOptions{}))
			wantBytes(t, "read", contents(t, d), model)
			if d.Info().Format != format {
				t.Errorf("got %v", d.Info().Format)
			}
			must(t, d.Close())
			// And it goes on to be written here, and is qemu's again.
			d = mustDisk(t)(disk.OpenFile(image, disk.FileOptions{Access: disk.ReadWrite}))
			scribble(t, rand.New(rand.NewPCG(6, 6)), d, model, 20)
			must(t, d.Close())
			must(t, os.WriteFile(raw, model, 0o600))
			run(t, tools[0], "compare", "-f", driver, "-F", "raw", image, raw)
		})
	}
}

// TestReplaysQemu reads an image whose last change is in qemu's log alone. qemu empties its log with every write, so that
// killing it hardly ever finds an entry in use: the test puts the file back to the moment between the entry and its change.
func TestReplaysQemu(t *testing.T) {
	t.Parallel()
	tools := testenv.NeedCommand(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	image, raw := filepath.Join(dir, "image.vhdx"), filepath.Join(dir, "raw")
	run(t, tools[0], "create", "-f", "vhdx", "-o", "block_size=1M", image, "64M")
	args, model := []string{"-f", "vhdx"}, make([]byte, 64*mib)
	for i := range 20 {
		args = append(args, "-c", fmt.Sprintf("write -P %d %dM 1M", i+1, 3*i))
		copy(model[3*i*mib:], bytes.Repeat([]byte{byte(i + 1)}, mib))
	}
	var exit *exec.ExitError
	args = append(args, "-c", "sigraise 9", image)
	if out, err := exec.CommandContext(t.Context(), tools[1], args...).CombinedOutput(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("qemu-io was not killed: %v\n%s", err, out)
	}
	undoLast(t, image, 57)
	must(t, os.WriteFile(raw, model, 0o600))

	d := mustDisk(t)(disk.OpenFile(image, disk.FileOptions{}))
	wantBytes(t, "read with its log", contents(t, d), model)
	if !d.Info().Replayed {
		t.Error("the log was not replayed")
	}
	must(t, d.Close())
	d = mustDisk(t)(disk.OpenFile(image, disk.FileOptions{Access: disk.ReadWrite}))
	wantBytes(t, "read after its log is in place", contents(t, d), model)
	must(t, d.Close())
	run(t, tools[0], "check", "-f", "vhdx", image)
	run(t, tools[0], "compare", "-f", "vhdx", "-F", "raw", image, raw)
}

// undoLast takes a block out of the allocation table again, and gives the header the GUID of the last entry in the log.
func undoLast(t *testing.T, image string, block int) {
	t.Helper()
	b, err := os.ReadFile(image)
	must(t, err)
	const log = mib
	last := log
	for at := log; at < 2*mib; at += 4096 {
		if string(b[at:at+4]) == "loge" && bytes.Compare(b[at+16:at+17], b[last+16:last+17]) > 0 { // fewer than 256 entries
			last = at
		}
	}
	header := 64 * 1024
	if binary.LittleEndian.Uint64(b[2*header+8:]) > binary.LittleEndian.Uint64(b[header+8:]) {
		header *= 2
	}
	copy(b[header+48:header+64], b[last+32:last+48])
	seal(b[header : header+4096])
	regions := b[192*1024:]
	for i := range binary.LittleEndian.Uint32(regions[8:]) {
		if r := regions[16+32*i:]; binary.LittleEndian.Uint32(r) == 0x2dc27766 {
			clear(b[binary.LittleEndian.Uint64(r[16:])+8*uint64(block):][:8])
		}
	}
	must(t, os.WriteFile(image, b, 0o600))
}

// seal computes the checksum of a VHDX structure anew.
func seal(b []byte) {
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// crash is a file that keeps its state at every Sync, as a machine that stops would leave it: all that came before, and of
// what comes after any part.
type crash struct {
	*memory
	states []*memory
}

func (c *crash) Sync() error {
	c.states = append(c.states, c.memory.copy())
	return nil
}

// WriteAt keeps the states between writes of tables, which are the small ones.
func (c *crash) WriteAt(p []byte, off int64) (int, error) {
	if len(p) <= 600*1024 && off < 4*mib {
		c.states = append(c.states, c.memory.copy())
		torn := c.memory.copy()
		_, _ = torn.WriteAt(p[:len(p)/2], off)
		c.states = append(c.states, torn)
	}
	return c.memory.WriteAt(p, off)
}

// TestCrash stops the writer everywhere, and finds the disk of one Sync or of the next, here and with qemu, whose log
// replay is another's.
func TestCrash(t *testing.T) {
	t.Parallel()
	qemu := testenv.NeedCommand(t, "qemu-img")[0]
	var base memory
	d := mustDisk(t)(disk.Create(&base, disk.Options{Format: disk.DynamicVHDX, Size: 40 * mib, BlockSize: mib, Rand: seeded(9)}))
	must(t, d.Close())
	f := &crash{memory: base.copy()}
	d = mustDisk(t)(disk.OpenToWrite(f, f.size, disk.OpenOptions{Rand: seeded(10)}))
	models := [][]byte{make([]byte, 40*mib)}
	for i := range 3 { // only new blocks: those that are there change in place, as on a disk
		model := bytes.Clone(models[i])
		for j := range 5 {
			p := bytes.Repeat([]byte{byte(1 + 5*i + j)}, mib)
			copy(model[(5*i+j)*2*mib:], p)
			_, err := d.WriteAt(p, int64((5*i+j)*2*mib))
			must(t, err)
		}
		models = append(models, model)
		must(t, d.Sync())
	}
	must(t, d.Close())
	at, replayed := 0, 0
	for i, state := range append(f.states, f.memory) {
		d := mustDisk(t)(disk.Open(state, state.size, disk.OpenOptions{}))
		got := contents(t, d)
		for !bytes.Equal(got, models[at]) {
			if at++; at == len(models) {
				t.Fatalf("state %d is that of no Sync", i)
			}
		}
		if !d.Info().Replayed {
			continue
		}
		replayed++
		if replayed%3 == 1 {
			checkWithQemu(t, qemu, state, models[at])
		}
		w := mustDisk(t)(disk.OpenToWrite(state, state.size, disk.OpenOptions{Rand: seeded(11)}))
		wantBytes(t, "after its log is in place", contents(t, w), models[at])
		must(t, w.Close())
	}
	if at != len(models)-1 || replayed < 6 {
		t.Errorf("saw %d of %d models, %d states with a log", at+1, len(models), replayed)
	}
}

// checkWithQemu has qemu replay the log of a state and compare.
func checkWithQemu(t *testing.T, qemu string, state *memory, model []byte) {
	t.Helper()
	dir := t.TempDir()
	image, raw := filepath.Join(dir, "image.vhdx"), filepath.Join(dir, "raw")
	must(t, os.WriteFile(image, state.bytes(), 0o600))
	must(t, os.WriteFile(raw, model, 0o600))
	run(t, qemu, "check", "-r", "all", "-f", "vhdx", image)
	run(t, qemu, "compare", "-f", "vhdx", "-F", "raw", image, raw)
}

// TestChainFiles makes a chain of files, which libvhdi reads the identities of.
func TestChainFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "base"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "scratch"), 0o700))
	base, scratch := filepath.Join(dir, "base", "blank-base.vhdx"), filepath.Join(dir, "scratch", "sandbox.vhdx")
	model := make([]byte, 30*mib)
	r := rand.New(rand.NewPCG(1, 9))
	d := mustDisk(t)(disk.CreateFile(base, disk.Options{Format: disk.DynamicVHDX, Size: int64(len(model)), BlockSize: mib}))
	scribble(t, r, d, model, 10)
	must(t, d.Close())
	options := disk.Options{BlockSize: mib, ParentPaths: disk.Locator{Absolute: `\\?\C:\layers\base\blank-base.vhdx`}}
	d = mustDisk(t)(disk.CreateChild(scratch, base, options, disk.FileOptions{}))
	scribble(t, r, d, model, 10)
	must(t, d.Close())

	if _, err := disk.OpenFile(scratch, disk.FileOptions{}); err == nil {
		t.Error("a parent outside of the image's directory was opened without leave")
	}
	d = mustDisk(t)(disk.OpenFile(scratch, disk.FileOptions{Within: dir}))
	wantBytes(t, "through the parent", contents(t, d), model)
	info := d.Info()
	if info.Parent.Relative != `..\base\blank-base.vhdx` || info.Parent.Absolute != options.ParentPaths.Absolute {
		t.Errorf("got %+v", info.Parent)
	}
	must(t, d.Close())

	out := run(t, testenv.NeedCommand(t, "vhdiinfo")[0], scratch)
	for _, want := range []string{"Differential", info.Parent.Linkage.String(), "blank-base.vhdx", info.DataID.String()} {
		if !strings.Contains(strings.ToLower(out), strings.ToLower(want)) {
			t.Errorf("vhdiinfo does not tell of %s:\n%s", want, out)
		}
	}
}
