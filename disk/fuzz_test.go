package disk_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/disk"
)

// checkFault fails unless the error is one that a hostile image may cause.
func checkFault(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrNotImplemented) && !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("error of no class: %v", err)
	}
}

// use reads a disk here and there, follows its extents, writes to it and grows it.
func use(t *testing.T, f *memory) {
	if _, err := disk.ReadInfo(f, f.size); err != nil {
		checkFault(t, err)
	}
	read, err := disk.Open(f, f.size, disk.OpenOptions{Parent: func(disk.Locator) (*disk.Disk, error) {
		return nil, errdefs.ErrNotFound
	}})
	if err != nil {
		checkFault(t, err)
		return
	}
	b := make([]byte, 4096)
	for _, off := range []int64{0, read.Size() / 2, max(read.Size()-4096, 0)} {
		if _, err := read.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
			checkFault(t, err)
		}
	}
	n := 0
	for _, err := range read.Extents() {
		if err != nil {
			checkFault(t, err)
		}
		if n++; n == 1000 {
			break
		}
	}
	if _, err := disk.ReadTable(read, read.Size()); err != nil {
		checkFault(t, err)
	}
	d, err := disk.OpenToWrite(f, f.size, disk.OpenOptions{Rand: seeded(1)})
	if err != nil {
		t.Fatalf("opens to be read, not to be written: %v", err)
	}
	off := max(d.Size()/2-2, 0)
	if _, err := d.WriteAt([]byte("data"), off); err != nil {
		return
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := disk.Open(f, f.size, disk.OpenOptions{})
	if err != nil {
		t.Fatalf("cannot be opened after a write: %v", err)
	}
	if _, err := again.ReadAt(b[:4], off); err != nil || string(b[:4]) != "data" {
		t.Fatalf("wrote data, read %q: %v", b[:4], err)
	}
}

// patched is how a fuzzer gets at images of megabytes: the input is a list of changes to one of a few, each of an offset in
// steps of 8 bytes, and 8 bytes. Checksums are made anew, so that what is behind them is reached.
func patched(base, in []byte) *memory {
	f := &memory{}
	_, _ = f.WriteAt(base, 0)
	for ; len(in) >= 11; in = in[11:] {
		off := int64(in[0])<<11 | int64(in[1])<<3 | int64(in[2])<<17
		if off+8 <= f.size {
			_, _ = f.WriteAt(in[3:11], off)
		}
	}
	for _, s := range []struct{ at, n int64 }{{64 * kib, 4096}, {128 * kib, 4096}, {192 * kib, 64 * kib}, {256 * kib, 64 * kib}} {
		if s.at+s.n <= f.size {
			b := make([]byte, s.n)
			_, _ = f.ReadAt(b, s.at)
			seal(b)
			_, _ = f.WriteAt(b, s.at)
		}
	}
	return f
}

func FuzzVHDX(f *testing.F) {
	patch := func(off int, b string) []byte {
		return append([]byte{byte(off >> 11), byte(off >> 3), byte(off >> 17)}, (b + "\x00\x00\x00\x00\x00\x00\x00\x00")[:8]...)
	}
	f.Add(patch(bat, "\x06\x00\x40"))
	f.Add(patch(regions+32, "\x00\x00\x10"))
	f.Add(patch(metadata+64*kib, "\x00\x00\x20\x00\x02"))
	f.Add(patch(64*kib+48, "\x01"))
	f.Add(patch(mib, "loge"))
	base := small(f, disk.DynamicVHDX)
	f.Fuzz(func(t *testing.T, in []byte) { use(t, patched(base, in)) })
}

// interrupted returns an image whose log is to be replayed.
func interrupted(t testing.TB) []byte {
	t.Helper()
	f := &crash{memory: &memory{}}
	d := mustDisk(t)(disk.Create(f.memory, disk.Options{Format: disk.DynamicVHDX, Size: 3 * mib, BlockSize: mib, Rand: seeded(1)}))
	must(t, d.Close())
	d = mustDisk(t)(disk.OpenToWrite(f, f.size, disk.OpenOptions{Rand: seeded(2)}))
	_, err := d.WriteAt([]byte("content"), mib)
	must(t, errors.Join(err, d.Sync(), d.Close()))
	for _, state := range f.states {
		d, err := disk.Open(state, state.size, disk.OpenOptions{})
		must(t, err)
		if d.Info().Replayed {
			b := make([]byte, state.size)
			_, err := state.ReadAt(b, 0)
			must(t, err)
			return b
		}
	}
	t.Fatal("no state has a log")
	return nil
}

// FuzzVHDXLog changes the log of an image that was not closed; the entries' checksums are made anew. Replayed in memory and in
// place, the disk is the same.
func FuzzVHDXLog(f *testing.F) {
	base := interrupted(f)
	const at, size = mib, mib
	patch := func(off int, b string) []byte {
		return append([]byte{byte(off >> 11), byte(off >> 3)}, (b + "\x00\x00\x00\x00\x00\x00\x00\x00")[:8]...)
	}
	f.Add(patch(64, "zero"))
	f.Add(patch(64+8, "\x00\x00\x00\x00\x00\x01"))
	f.Add(patch(16, "\x05"))
	f.Add(patch(56, "\x00\x00\x00\x00\x00\x10"))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := append([]byte(nil), base...)
		log := b[at : at+size]
		for ; len(in) >= 10; in = in[10:] {
			copy(log[int(in[0])<<11|int(in[1])<<3:], in[2:10])
		}
		for i := 0; i < size; i += 4096 {
			if n := int64(le.Uint32(log[i+8:])); string(log[i:i+4]) == "loge" && n%4096 == 0 && int64(i)+n <= size {
				seal(log[i : int64(i)+n])
			}
		}
		m := &memory{}
		_, _ = m.WriteAt(b, 0)
		sameReplay(t, m)
		use(t, m)
	})
}

func sameReplay(t *testing.T, m *memory) {
	t.Helper()
	read, err := disk.Open(m, m.size, disk.OpenOptions{})
	if err != nil || read.Size() > 16*mib {
		return
	}
	want, written := contents(t, read), m.copy()
	d, err := disk.OpenToWrite(written, written.size, disk.OpenOptions{Rand: seeded(3)})
	if err != nil {
		t.Fatalf("opens to be read, not to be written: %v", err)
	}
	if !bytes.Equal(contents(t, d), want) {
		t.Fatal("replayed in place it is another disk")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzVHD(f *testing.F) {
	base := small(f, disk.DynamicVHD)
	header := base[:2048]
	f.Add(header)
	f.Add(base[len(base)-512:])
	f.Fuzz(func(t *testing.T, in []byte) {
		b := append([]byte(nil), in...)
		for i, at := range []int{0, len(b) - 512} { // sums are made right
			if at >= 0 && i <= len(b) && len(b) >= 512 {
				sealVHD(b, func([]byte) {})
				break
			}
		}
		if len(b) >= 1536 && string(b[512:520]) == "cxsparse" {
			var sum uint32
			for i, c := range b[512:1536] {
				if i < 36 || i >= 40 {
					sum += uint32(c)
				}
			}
			be.PutUint32(b[512+36:], ^sum)
		}
		m := &memory{}
		_, _ = m.WriteAt(b, 0)
		_ = m.Truncate(max(m.size, 2*mib))
		use(t, m)
	})
}

func FuzzTable(f *testing.F) {
	m, _ := partitioned(f, 40*mib, 512)
	head := make([]byte, 4096)
	_, _ = m.ReadAt(head, 0)
	f.Add(head, int64(40*mib))
	f.Fuzz(func(t *testing.T, in []byte, size int64) {
		m := &memory{}
		_, _ = m.WriteAt(in, 0)
		table, err := disk.ReadTable(m, size)
		if err != nil {
			checkFault(t, err)
			return
		}
		if err := disk.WriteTable(&memory{}, size, table); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}
