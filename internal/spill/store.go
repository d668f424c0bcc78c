package spill

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hostcompute/hcs/internal/sys"
)

// Config says what a Store may use.
type Config struct {
	// Memory is how many bytes stay in memory, and the least that is taken is a block's.
	Memory int

	// Create opens a new file for what does not fit, which the Store closes and nobody else knows. It is called when it is
	// needed, once for an array.
	Create func() (*os.File, error)
}

// Store is the memory of some arrays. It is for one goroutine.
type Store struct {
	cfg    Config
	frames []*frame // that hold a block
	free   []*frame
	chunks [][]byte
	tables []*table
	hand   int // next of frames to be looked at for one that was not used
	err    error
}

const (
	blockSize = 16 << 10
	chunkSize = 64 * blockSize
)

// frame is memory for one block.
type frame struct {
	data        []byte
	table       *table
	block       int
	used, dirty bool // since the hand came by; since it was read or written
}

// table is an array without its type.
type table struct {
	s      *Store
	file   *os.File
	blocks []*frame // nil: in the file, or of zeros
	end    int      // blocks from here on are not in the file
}

// New returns a Store. The caller closes it.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

// Trim writes out what is more than should be in memory. Nothing that an array's At returned is of use afterwards. The error
// is the first that there was with the files since the Store was made: arrays may have given zeros since then.
func (s *Store) Trim() error {
	limit := max(s.cfg.Memory/blockSize, 1)
	if len(s.frames) <= limit || s.err != nil {
		return s.err
	}
	for rest := limit - limit/16; len(s.frames) > rest && s.err == nil; {
		s.evictNext()
	}
	return s.err
}

// Close gives back the memory and the files.
func (s *Store) Close() error {
	var failed []error
	for _, t := range s.tables {
		failed = append(failed, t.close())
	}
	for _, c := range s.chunks {
		failed = append(failed, sys.UnmapMemory(c))
	}
	*s = Store{cfg: s.cfg, err: os.ErrClosed}
	return errors.Join(failed...)
}

// evictNext goes on to the next frame, and empties it unless it was used since the last time.
func (s *Store) evictNext() {
	if s.hand >= len(s.frames) {
		s.hand = 0
	}
	f := s.frames[s.hand]
	if f.used {
		f.used = false
		s.hand++
		return
	}
	if f.dirty {
		if err := f.table.write(f); err != nil {
			s.fail(err)
			return
		}
	}
	f.table.blocks[f.block] = nil
	s.release(s.hand)
}

// release makes the frame of the given number free.
func (s *Store) release(i int) {
	f, last := s.frames[i], len(s.frames)-1
	s.frames[i] = s.frames[last]
	s.frames = s.frames[:last]
	f.table, f.dirty = nil, false
	s.free = append(s.free, f)
}

func (s *Store) fail(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("keep in a file what memory is not for: %w", err)
	}
}

// take returns a free frame.
func (s *Store) take() *frame {
	if len(s.free) == 0 {
		s.grow()
	}
	last := len(s.free) - 1
	f := s.free[last]
	s.free = s.free[:last]
	s.frames = append(s.frames, f)
	return f
}

func (s *Store) grow() {
	chunk, err := sys.MapMemory(chunkSize)
	if err != nil {
		chunk = make([]byte, chunkSize) // which ends the program if there is really none
	} else {
		s.chunks = append(s.chunks, chunk)
	}
	for at := 0; at < chunkSize; at += blockSize {
		s.free = append(s.free, &frame{data: chunk[at : at+blockSize : at+blockSize]})
	}
}

func (s *Store) newTable() *table {
	t := &table{s: s}
	s.tables = append(s.tables, t)
	return t
}

// load returns a block, which is read, or of zeros if nothing was ever written to it.
func (t *table) load(block int) *frame {
	if f := t.blocks[block]; f != nil {
		f.used = true
		return f
	}
	f := t.s.take()
	f.table, f.block, f.used = t, block, true
	t.blocks[block] = f
	n := 0
	if block < t.end && t.s.err == nil {
		var err error
		n, err = t.file.ReadAt(f.data, int64(block)*blockSize)
		if err != nil && !errors.Is(err, io.EOF) {
			t.s.fail(err)
			n = 0
		}
	}
	clear(f.data[n:])
	return f
}

func (t *table) write(f *frame) error {
	if t.file == nil {
		file, err := t.s.cfg.Create()
		if err != nil {
			return err
		}
		t.file = file
	}
	if _, err := t.file.WriteAt(f.data, int64(f.block)*blockSize); err != nil {
		return err
	}
	t.end = max(t.end, f.block+1)
	return nil
}

// close forgets all blocks.
func (t *table) close() error {
	for i := len(t.s.frames) - 1; i >= 0; i-- {
		if t.s.frames[i].table == t {
			t.s.release(i)
		}
	}
	file := t.file
	t.file, t.blocks, t.end = nil, nil, 0
	if file == nil {
		return nil
	}
	return file.Close()
}
