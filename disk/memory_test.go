package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hostcompute/hcs/disk"
)

// memory is a sparse file in memory: what the tests keep images in, and the second kind of disk.File.
type memory struct {
	mu    sync.Mutex
	pages map[int64]*[4096]byte
	size  int64
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for n < len(p) && off < m.size {
		part := int(min(4096-off%4096, m.size-off, int64(len(p)-n)))
		if page := m.pages[off/4096]; page != nil {
			copy(p[n:n+part], page[off%4096:])
		} else {
			clear(p[n : n+part])
		}
		n, off = n+part, off+int64(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pages == nil {
		m.pages = map[int64]*[4096]byte{}
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		page := m.pages[at/4096]
		if page == nil {
			page = new([4096]byte)
			m.pages[at/4096] = page
		}
		n += copy(page[at%4096:], p[n:])
	}
	m.size = max(m.size, off+int64(len(p)))
	return len(p), nil
}

func (m *memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, page := range m.pages {
		switch {
		case at*4096 >= size:
			delete(m.pages, at)
		case (at+1)*4096 > size:
			clear(page[size-at*4096:])
		}
	}
	m.size = size
	return nil
}

func (*memory) Sync() error { return nil }

func (m *memory) bytes() []byte {
	b := make([]byte, m.size)
	_, _ = m.ReadAt(b, 0)
	return b
}

func (m *memory) copy() *memory {
	c := &memory{size: m.size, pages: map[int64]*[4096]byte{}}
	for at, page := range m.pages {
		p := *page
		c.pages[at] = &p
	}
	return c
}

// seeded gives the bytes for GUIDs.
func seeded(seed uint64) io.Reader { return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustDisk(t testing.TB) func(*disk.Disk, error) *disk.Disk {
	return func(d *disk.Disk, err error) *disk.Disk {
		t.Helper()
		must(t, err)
		return d
	}
}

// contents reads all of a disk.
func contents(t testing.TB, d *disk.Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}

// scribble writes n times to random places of the disk and of the model, zeros now and then.
func scribble(t testing.TB, r *rand.Rand, d io.WriterAt, model []byte, n int) {
	t.Helper()
	for range n {
		off := r.IntN(len(model))
		size := min(1+r.IntN(1<<r.IntN(22)), len(model)-off)
		if r.IntN(3) == 0 {
			off, size = off/512*512, min(max(size/512, 1)*512, len(model)-off/512*512)
		}
		p := make([]byte, size)
		if r.IntN(5) != 0 {
			for i := range p {
				p[i] = byte(r.Uint32())
			}
		}
		copy(model[off:], p)
		_, err := d.WriteAt(p, int64(off))
		must(t, err)
	}
}

func name(o disk.Options) string {
	return fmt.Sprintf("%v-%d-%d", o.Format, o.BlockSize>>20, o.SectorSize)
}
