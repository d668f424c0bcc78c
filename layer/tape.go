package layer

import (
	"errors"
	"io"
)

// chunkSize is the size of the pieces in which streams are handed on.
const chunkSize = 256 << 10

// feeder hands out a stream in chunks. A chunk is the caller's until the next
// call; it is never empty when the error is nil.
type feeder interface {
	next() ([]byte, error)
}

// readerFeed feeds from an io.Reader through a buffer of its own.
type readerFeed struct {
	r   io.Reader
	buf []byte
	err error
}

func (f *readerFeed) next() ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	if f.buf == nil {
		f.buf = make([]byte, chunkSize)
	}
	for range 100 {
		n, err := f.r.Read(f.buf)
		f.err = err
		if n > 0 {
			return f.buf[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
	f.err = io.ErrNoProgress
	return nil, f.err
}

// sliceFeed feeds one slice.
type sliceFeed []byte

func (f *sliceFeed) next() ([]byte, error) {
	b := *f
	if len(b) == 0 {
		return nil, io.EOF
	}
	*f = nil
	return b, nil
}

// tape is the stream below an archive/tar reader. It keeps what that reader
// reads, which is exactly what belongs to headers, because the content of
// entries is read around it. So that archive/tar does not miss the content,
// the tape pretends to hold ghost bytes more.
//
// It implements io.Seeker for archive/tar's sake, which seeks over content
// that nobody read.
type tape struct {
	feed  feeder
	chunk []byte // what is left of the last chunk
	after []byte // what follows chunk of the same piece of the stream
	joint []byte // the memory of a chunk that join made
	err   error  // that feed met when join looked ahead
	pos   int64  // bytes taken from feed
	ghost int64

	slab  []byte // slab[start:] is recorded; what is before it belongs to earlier entries
	start int
	most  int64 // bytes that may be recorded

	lent bool // nobody has what is recorded when the next recording starts
}

const slabSize = 32 << 10

// errLostTrack means that archive/tar and this package disagree on where the
// content of an entry ends, which tests rule out.
var errLostTrack = errors.New("content of an entry does not end where its header says")

// startRecording forgets what was recorded. The slices that recorded returned
// stay as they are, unless nobody has them.
func (t *tape) startRecording() {
	if t.lent && cap(t.slab) == slabSize {
		t.slab, t.start = t.slab[:0], 0
		return
	}
	t.start = len(t.slab)
	if cap(t.slab)-len(t.slab) < 3*blockSize || cap(t.slab) > slabSize {
		t.slab, t.start = make([]byte, 0, slabSize), 0
	}
}

// recorded returns what was read since startRecording; it is never written to
// again.
func (t *tape) recorded() []byte { return t.slab[t.start:len(t.slab):len(t.slab)] }

func (t *tape) record(b []byte) error {
	have := len(t.slab) - t.start
	if int64(have+len(b)) > t.most {
		return exceeded("HeaderBytes", t.most)
	}
	if len(t.slab)+len(b) > cap(t.slab) {
		bigger := make([]byte, have, max(slabSize, 2*(have+len(b))))
		copy(bigger, t.slab[t.start:])
		t.slab, t.start = bigger, 0
	}
	t.slab = append(t.slab, b...)
	return nil
}

// Read is for archive/tar alone.
func (t *tape) Read(p []byte) (int, error) {
	if t.ghost > 0 {
		n := int(min(int64(len(p)), t.ghost))
		t.ghost -= int64(n)
		return n, nil
	}
	n, err := t.take(p)
	if rerr := t.record(p[:n]); rerr != nil {
		return 0, rerr // with n, io.ReadFull would overlook it
	}
	return n, err
}

// Seek is for archive/tar alone.
func (t *tape) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 || offset > t.ghost {
		return 0, errLostTrack
	}
	t.ghost -= offset
	return t.pos - t.ghost, nil
}

// fill makes sure that the chunk is not empty.
func (t *tape) fill() error {
	if len(t.chunk) > 0 {
		return nil
	}
	if t.chunk, t.after = t.after, nil; len(t.chunk) > 0 {
		return nil
	}
	if t.err != nil {
		return t.err
	}
	var err error
	t.chunk, err = t.feed.next()
	return err
}

// joinMost is how much of a chunk join copies to what was left of the one before.
const joinMost = 16 << 10

// join makes the chunk longer by what follows it, so that headers lie in one piece, and says whether it could.
func (t *tape) join() bool {
	if len(t.chunk) > joinMost || len(t.after) > 0 || t.err != nil {
		return false
	}
	t.joint = append(t.joint[:0], t.chunk...)
	t.chunk = t.joint
	next, err := t.feed.next()
	if err != nil {
		t.err = err
		return false
	}
	n := min(len(next), joinMost)
	t.joint = append(t.joint, next[:n]...)
	t.chunk, t.after = t.joint, next[n:]
	return true
}

// take reads without recording.
func (t *tape) take(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := t.fill(); err != nil {
		return 0, err
	}
	n := copy(p, t.chunk)
	t.advance(n)
	return n, nil
}

// peek returns up to most bytes, at least one, without taking them.
func (t *tape) peek(most int64) ([]byte, error) {
	if err := t.fill(); err != nil {
		return nil, err
	}
	return t.chunk[:min(int64(len(t.chunk)), most)], nil
}

func (t *tape) advance(n int) {
	t.chunk = t.chunk[n:]
	t.pos += int64(n)
}

// skip takes n bytes and forgets them.
func (t *tape) skip(n int64) error {
	for n > 0 {
		b, err := t.peek(n)
		if err != nil {
			return cutOff(err)
		}
		t.advance(len(b))
		n -= int64(len(b))
	}
	return nil
}

// keep takes n bytes and records them, or else, if they are too many, says
// false and takes none.
func (t *tape) keep(n int64) (bool, error) {
	if int64(len(t.slab)-t.start)+n > t.most {
		return false, nil
	}
	for n > 0 {
		b, err := t.peek(n)
		if err == nil {
			err = t.record(b)
		}
		if err != nil {
			return true, cutOff(err)
		}
		t.advance(len(b))
		n -= int64(len(b))
	}
	return true, nil
}

// cutOff makes the end of the stream within an entry an error.
func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
