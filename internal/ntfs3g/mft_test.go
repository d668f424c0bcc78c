package ntfs3g

import (
	"errors"
	"io"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/ntfs"
)

type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// tiny is the least of a volume that has a file record: a boot sector, and a table in cluster 1 whose record 0 is that of the
// table itself. The change time ends where a sector does, in the bytes that the update sequence keeps.
func tiny() memory {
	m := make(memory, 8192)
	copy(m[3:], "NTFS    ")
	le.PutUint16(m[11:], 512)
	m[13], m[48], m[64] = 8, 1, 0xf6 // 4096, cluster 1, records of 2^10
	r := m[4096:]
	copy(r, "FILE")
	le.PutUint16(r[4:], 42) // update sequence of three
	le.PutUint16(r[6:], 3)
	copy(r[42:], "\x07\x00ABCD")
	copy(r[510:], "\x07\x00")
	copy(r[1022:], "\x07\x00")
	le.PutUint16(r[20:], 56)
	a := r[56:]
	le.PutUint32(a, 0x10)
	le.PutUint32(a[4:], 464)
	le.PutUint16(a[20:], 512-8-16-56)
	a = a[464:]
	le.PutUint32(a, data)
	le.PutUint32(a[4:], 72)
	a[8] = 1
	le.PutUint16(a[32:], 64)
	copy(a[64:], []byte{0x11, 1, 1, 0})
	le.PutUint32(a[72:], endOfAttributes)
	return m
}

func TestChangeTime(t *testing.T) {
	t.Parallel()
	m := tiny()
	if err := setChangeTimes(m, map[uint64]ntfs.FileTime{0: 0x1122334455667788}); err != nil {
		t.Fatal(err)
	}
	if got := string(m[4096+504 : 4096+512]); got != "\x88\x77\x66\x55\x44\x33\x07\x00" {
		t.Errorf("got %x", got)
	}
	if got := string(m[4096+42 : 4096+48]); got != "\x07\x00\x22\x11CD" {
		t.Errorf("update sequence %x", got)
	}
	if err := setChangeTimes(m, map[uint64]ntfs.FileTime{9: 1}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a record that is not there: %v", err)
	}
}

// FuzzChangeTimes also reads content that is in a record.
func FuzzChangeTimes(f *testing.F) {
	f.Add([]byte(tiny()), uint64(0))
	f.Fuzz(func(t *testing.T, in []byte, number uint64) {
		if _, err := resident(memory(in), number); err != nil &&
			!errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrNotImplemented) && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		err := setChangeTimes(memory(in), map[uint64]ntfs.FileTime{number: 1})
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}
