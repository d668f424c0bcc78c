package disk

import (
	"io"
	"maps"
	"slices"
	"sync"
)

// maxCleanPages bounds the cache of tables: 4 MiB.
const maxCleanPages = 1024

// pages caches the 4 KiB pages of an image's tables, and holds those back that have changed.
type pages struct {
	r     io.ReaderAt
	mu    sync.Mutex // readers, which may be several, share clean; whoever changes pages is alone
	clean map[int64][]byte
	dirty map[int64][]byte
}

func newPages(r io.ReaderAt) *pages {
	return &pages{r: r, clean: map[int64][]byte{}, dirty: map[int64][]byte{}}
}

// page returns the page at the offset, which is a multiple of its size, to be read only.
func (p *pages) page(off int64) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.dirty[off]; ok {
		return b, nil
	}
	if b, ok := p.clean[off]; ok {
		return b, nil
	}
	b := make([]byte, vhdxPage)
	if err := readZeroed(p.r, b, off); err != nil {
		return nil, err
	}
	if len(p.clean) >= maxCleanPages {
		clear(p.clean)
	}
	p.clean[off] = b
	return b, nil
}

// change returns the page at the offset, to be changed.
func (p *pages) change(off int64) ([]byte, error) {
	b, err := p.page(off)
	if err != nil {
		return nil, err
	}
	delete(p.clean, off)
	p.dirty[off] = b
	return b, nil
}

// fresh makes the page at the offset one of zeros, without reading it.
func (p *pages) fresh(off int64) []byte {
	delete(p.clean, off)
	b := make([]byte, vhdxPage)
	p.dirty[off] = b
	return b
}

// changed returns the offsets of the changed pages in ascending order.
func (p *pages) changed() []int64 { return slices.Sorted(maps.Keys(p.dirty)) }

// write puts the changed pages into the file. They are clean then.
func (p *pages) write(w io.WriterAt) error {
	for _, off := range p.changed() {
		b := p.dirty[off]
		if _, err := w.WriteAt(b, off); err != nil {
			return err
		}
		delete(p.dirty, off)
		p.clean[off] = b
	}
	return nil
}
