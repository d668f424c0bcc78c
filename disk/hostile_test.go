package disk_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/disk"
)

var le, be = binary.LittleEndian, binary.BigEndian

// small makes an image with one block in use.
func small(t testing.TB, format disk.Format) []byte {
	t.Helper()
	var f memory
	o := disk.Options{Format: format, Size: 3 * mib, Rand: seeded(1)}
	switch format {
	case disk.DynamicVHD:
		o.BlockSize = mib
	case disk.DynamicVHDX, disk.FixedVHDX:
		o.BlockSize = mib
	}
	d := mustDisk(t)(disk.Create(&f, o))
	for _, at := range []int64{0, 2 * mib} {
		_, err := d.WriteAt([]byte("content"), at)
		must(t, err)
	}
	must(t, d.Close())
	return f.bytes()
}

func open(b []byte) (*disk.Disk, error) {
	f := &memory{}
	_, _ = f.WriteAt(b, 0)
	return disk.Open(f, f.size, disk.OpenOptions{Parent: func(disk.Locator) (*disk.Disk, error) {
		return nil, errdefs.ErrNotFound
	}})
}

const (
	kib      = 1 << 10
	regions  = 192 * kib
	metadata = 2 * mib
	bat      = 3 * mib
)

// patchRegions changes both region tables, patchHeaders both headers.
func patchRegions(b []byte, f func(b []byte)) {
	for _, at := range []int{regions, regions + 64*kib} {
		f(b[at:])
		seal(b[at : at+64*kib])
	}
}

func patchHeaders(b []byte, f func(b []byte)) {
	for _, at := range []int{64 * kib, 128 * kib} {
		f(b[at:])
		seal(b[at : at+4096])
	}
}

// TestHostile: each image has one fault, and the error says where.
func TestHostile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		format disk.Format
		damage func(b []byte) []byte
		want   string
		class  error
	}{
		{"both headers damaged", disk.DynamicVHDX, func(b []byte) []byte { b[64*kib+9]++; b[128*kib+9]++; return b }, "VHDX header at offset 65536: checksum", nil},
		{"version", disk.DynamicVHDX, func(b []byte) []byte { patchHeaders(b, func(b []byte) { b[66] = 2 }); return b }, "version 2", errdefs.ErrNotImplemented},
		{"log outside", disk.DynamicVHDX, func(b []byte) []byte { patchHeaders(b, func(b []byte) { le.PutUint64(b[72:], 1<<40) }); return b }, "VHDX header at offset 65536: log", nil},
		{"log at minus one", disk.DynamicVHDX, func(b []byte) []byte { patchHeaders(b, func(b []byte) { le.PutUint64(b[72:], 1<<63) }); return b }, "VHDX header", nil},
		{"dirty without entries", disk.DynamicVHDX, func(b []byte) []byte { patchHeaders(b, func(b []byte) { b[48] = 1 }); return b }, "VHDX log at offset 1048576: the image was not closed", nil},
		{"log too large", disk.DynamicVHDX, func(b []byte) []byte {
			patchHeaders(b, func(b []byte) { b[48] = 1; le.PutUint32(b[68:], 1<<30) })
			return b
		}, "VHDX log at offset 1048576: 1073741824", errdefs.ErrNotImplemented},
		{"no regions", disk.DynamicVHDX, func(b []byte) []byte { patchRegions(b, func(b []byte) { b[8] = 0 }); return b }, "no region for", nil},
		{"many regions", disk.DynamicVHDX, func(b []byte) []byte { patchRegions(b, func(b []byte) { le.PutUint32(b[8:], 1<<31) }); return b }, "2147483648 entries", nil},
		{"unknown region", disk.DynamicVHDX, func(b []byte) []byte { patchRegions(b, func(b []byte) { b[16]++ }); return b }, "VHDX region table at offset 196624: required region", errdefs.ErrNotImplemented},
		{"region twice", disk.DynamicVHDX, func(b []byte) []byte { patchRegions(b, func(b []byte) { copy(b[48:64], b[16:32]) }); return b }, "is there twice", nil},
		{"regions overlap", disk.DynamicVHDX, func(b []byte) []byte { patchRegions(b, func(b []byte) { copy(b[32:40], b[64:72]) }); return b }, "overlaps", nil},
		{"region outside", disk.DynamicVHDX, func(b []byte) []byte { patchRegions(b, func(b []byte) { le.PutUint64(b[32:], 1<<50) }); return b }, "VHDX", nil},
		{"metadata signature", disk.DynamicVHDX, func(b []byte) []byte { b[metadata]++; return b }, "VHDX metadata table at offset 2097152: signature", nil},
		{"metadata item outside", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint32(b[metadata+32+16:], 1<<30); return b }, "VHDX metadata table at offset 2097184: item", nil},
		{"required item", disk.DynamicVHDX, func(b []byte) []byte { b[metadata+32+4*32]++; return b }, "required item", errdefs.ErrNotImplemented},
		{"block size", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint32(b[metadata+64*kib:], 3*mib); return b }, "blocks of 3145728", nil},
		{"block size zero", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint32(b[metadata+64*kib:], 0); return b }, "blocks of 0", nil},
		{"disk size", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint64(b[metadata+64*kib+8:], 1<<63); return b }, "virtual disk of", nil},
		{"table too short", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint64(b[metadata+64*kib+8:], 60<<40); return b }, "VHDX block allocation table at offset 3145728", nil},
		{"block outside", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint64(b[bat:], 1<<63|6); return b }, "VHDX block allocation table at offset 3145728: entry 0", nil},
		{"block beyond the end", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint64(b[bat:], 6<<20|6); return b }, "entry 0", nil},
		{"blocks overlap", disk.DynamicVHDX, func(b []byte) []byte { copy(b[bat+16:], b[bat:bat+8]); return b }, "VHDX block allocation table at offset 3145744: entry 2: block at 4194304 overlaps", nil},
		{"block in the table", disk.DynamicVHDX, func(b []byte) []byte { le.PutUint64(b[bat:], 3<<20|6); return b }, "overlaps", nil},
		{"block state", disk.DynamicVHDX, func(b []byte) []byte { b[bat] = 5; return b }, "state 5", nil},
		{"partial block", disk.DynamicVHDX, func(b []byte) []byte { b[bat] |= 7; return b }, "state 7", nil},
		{"parent without locator", disk.DynamicVHDX, func(b []byte) []byte { b[metadata+64*kib+4] = 2; return b }, "without a parent locator", nil},
		{"cut off", disk.DynamicVHDX, func(b []byte) []byte { return b[:200*kib] }, "cut off", nil},

		{"VHD checksum", disk.FixedVHD, func(b []byte) []byte { b[len(b)-400]++; return b }, "VHD footer at offset 3145728: checksum", nil},
		{"VHD size", disk.FixedVHD, func(b []byte) []byte { return sealVHD(b, func(f []byte) { be.PutUint64(f[48:], 1<<40) }) }, "disk of 1099511627776 bytes in a file", nil},
		{"VHD differencing", disk.FixedVHD, func(b []byte) []byte { return sealVHD(b, func(f []byte) { f[63] = 4 }) }, "differencing", errdefs.ErrNotImplemented},
		{"VHD type", disk.FixedVHD, func(b []byte) []byte { return sealVHD(b, func(f []byte) { f[63] = 9 }) }, "disk type 9", nil},
		{"VHD header far away", disk.DynamicVHD, func(b []byte) []byte { return sealVHD(b, func(f []byte) { be.PutUint64(f[16:], 1<<62) }) }, "dynamic disk header at", nil},
		{"VHD block outside", disk.DynamicVHD, func(b []byte) []byte { be.PutUint32(b[1536:], 1<<30); return b }, "VHD block allocation table at offset 1536", nil},
		{"VHD blocks overlap", disk.DynamicVHD, func(b []byte) []byte { copy(b[1536+8:], b[1536:1540]); return b }, "overlaps", nil},
		{"VHD block in the table", disk.DynamicVHD, func(b []byte) []byte { be.PutUint32(b[1536:], 1); return b }, "overlaps", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, err := open(c.damage(small(t, c.format)))
			if err == nil {
				t.Fatalf("opened: %+v", d.Info())
			}
			class := c.class
			if class == nil {
				class = errdefs.ErrInvalidArgument
			}
			if !errors.Is(err, class) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q of class %q", err, c.want, class)
			}
		})
	}
}

// sealVHD changes the footer at the end, and its copy.
func sealVHD(b []byte, f func(footer []byte)) []byte {
	for _, footer := range [][]byte{b[len(b)-512:], b[:512]} {
		if string(footer[:8]) != "conectix" {
			continue
		}
		f(footer)
		var sum uint32
		for i, c := range footer {
			if i < 64 || i >= 68 {
				sum += uint32(c)
			}
		}
		be.PutUint32(footer[64:], ^sum)
	}
	return b
}

// TestDamagedCopies: of what is there twice one may be damaged.
func TestDamagedCopies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		format disk.Format
		damage func(b []byte) []byte
	}{
		"first header":       {disk.DynamicVHDX, func(b []byte) []byte { b[64*kib]++; return b }},
		"first region table": {disk.DynamicVHDX, func(b []byte) []byte { b[regions]++; return b }},
		"footer":             {disk.DynamicVHD, func(b []byte) []byte { b[len(b)-512]++; return b }},
		"footer cut off":     {disk.DynamicVHD, func(b []byte) []byte { return b[:len(b)-512] }},
	} {
		d, err := open(c.damage(small(t, c.format)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(contents(t, d)[2*mib : 2*mib+7]); got != "content" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestParentPaths: an image cannot have files opened that its user did not mean.
func TestParentPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	must(t, os.Mkdir(inner, 0o700))
	base, in := filepath.Join(dir, "base.vhdx"), filepath.Join(inner, "child.vhdx")
	d := mustDisk(t)(disk.CreateFile(base, disk.Options{Format: disk.DynamicVHDX, Size: mib}))
	must(t, d.Close())
	d = mustDisk(t)(disk.CreateChild(in, base, disk.Options{}, disk.FileOptions{}))
	must(t, d.Close())

	if _, err := disk.OpenFile(in, disk.FileOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("parent above: %v", err)
	}
	must(t, os.Symlink(base, filepath.Join(inner, "base.vhdx")))
	if _, err := disk.OpenFile(in, disk.FileOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("parent behind a link that leads out: %v", err)
	}
	must(t, os.Remove(filepath.Join(inner, "base.vhdx")))
	d = mustDisk(t)(disk.OpenFile(in, disk.FileOptions{Within: dir}))
	must(t, d.Close())
	must(t, os.Rename(base, filepath.Join(inner, "base.vhdx"))) // side by side it is found by its name
	d = mustDisk(t)(disk.OpenFile(in, disk.FileOptions{}))
	must(t, d.Close())

	// A chain that bites its tail: each has the identity that the other wants.
	a, b := filepath.Join(dir, "a.vhdx"), filepath.Join(dir, "b.vhdx")
	for _, pair := range [][2]string{{a, `.\b.vhdx`}, {b, `.\a.vhdx`}} {
		child, err := os.ReadFile(in)
		must(t, err)
		at := strings.Index(string(child), utf16Of(`..\base.vhdx`))
		copy(child[at:], utf16Of(pair[1]+`\\\\`))
		linkage := getLinkage(t, child)
		patchHeaders(child, func(h []byte) { copy(h[32:48], linkage) })
		must(t, os.WriteFile(pair[0], child, 0o600))
	}
	if _, err := disk.OpenFile(a, disk.FileOptions{}); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "its own parent") {
		t.Errorf("cyclic chain: %v", err)
	}
	info, err := os.ReadFile(a)
	must(t, err)
	f := &memory{}
	_, _ = f.WriteAt(info, 0)
	if i, err := disk.ReadInfo(f, f.size); err != nil || i.Format != disk.DifferencingVHDX || i.Parent.Linkage != i.DataID {
		t.Errorf("got %+v, %v", i, err)
	}
}

func utf16Of(s string) string {
	b := make([]byte, 2*len(s))
	for i := range len(s) {
		b[2*i] = s[i]
	}
	return string(b)
}

// getLinkage returns the linkage of a child as a header has it.
func getLinkage(t *testing.T, child []byte) []byte {
	t.Helper()
	f := &memory{}
	_, _ = f.WriteAt(child, 0)
	info, err := disk.ReadInfo(f, f.size)
	must(t, err)
	b := info.Parent.Linkage.ToWindowsArray()
	return b[:]
}

// TestCutLastBlock has an image whose last block is cut off where the disk ends, as other writers make them: a block that comes
// behind it leaves room for the rest.
func TestCutLastBlock(t *testing.T) {
	t.Parallel()
	const size = 2*mib + 700*kib
	f := &memory{}
	d := mustDisk(t)(disk.Create(f, disk.Options{Format: disk.DynamicVHD, Size: size, BlockSize: mib, Rand: seeded(1)}))
	_, err := d.WriteAt([]byte("last"), size-4)
	must(t, errors.Join(err, d.Close()))
	must(t, f.Truncate(f.size-512-(mib-700*kib))) // and the footer, of which there is a copy
	d = mustDisk(t)(disk.OpenToWrite(f, f.size, disk.OpenOptions{}))
	_, err = d.WriteAt([]byte("first"), 0)
	must(t, errors.Join(err, d.Close()))
	d = mustDisk(t)(disk.OpenToWrite(f, f.size, disk.OpenOptions{}))
	must(t, d.Resize(3*mib))
	_, err = d.WriteAt([]byte("end"), 3*mib-3)
	must(t, errors.Join(err, d.Close()))
	want := make([]byte, 3*mib)
	copy(want, "first")
	copy(want[size-4:], "last")
	copy(want[3*mib-3:], "end")
	wantBytes(t, "with a block behind the last", contents(t, mustDisk(t)(disk.Open(f, f.size, disk.OpenOptions{}))), want)
}
