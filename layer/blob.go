package layer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// Digests identify a layer: as the blob that images hold, and by its content.
type Digests struct {
	Blob        digest.Digest // of the compressed bytes
	Size        int64         // of the compressed bytes
	DiffID      digest.Digest // of the tar stream
	DiffSize    int64         // of the tar stream
	Compression Compression
}

// chunk is a piece of a stream that several goroutines look at. The last one
// to release it gives it back.
type chunk struct {
	buf  [chunkSize]byte
	n    int
	refs atomic.Int32
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk(refs int32) *chunk {
	c := chunks.Get().(*chunk)
	c.n = 0
	c.refs.Store(refs)
	return c
}

func (c *chunk) bytes() []byte { return c.buf[:c.n] }

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		chunks.Put(c)
	}
}

// queueLength is how many chunks may wait between two stages: enough to level
// out their speeds, and little enough to stay in the processor's cache.
const queueLength = 4

// pipe hands chunks from one goroutine to another. The sender sets err, then
// closes ch; done closes when the receiver wants no more.
type pipe struct {
	ch   chan *chunk
	err  error
	done <-chan struct{}
	cur  *chunk
	rest []byte
}

func newPipe(done <-chan struct{}) *pipe {
	return &pipe{ch: make(chan *chunk, queueLength), done: done}
}

// send hands c over; it says false, and keeps c, if nobody wants it.
func (p *pipe) send(c *chunk) bool {
	select {
	case p.ch <- c:
		return true
	case <-p.done:
		return false
	}
}

// finish ends the stream with err, or io.EOF if it is nil.
func (p *pipe) finish(err error) {
	if err == nil {
		err = io.EOF
	}
	p.err = err
	close(p.ch)
}

// next implements feeder.
func (p *pipe) next() ([]byte, error) {
	p.drop()
	c, ok := <-p.ch
	if !ok {
		return nil, p.err
	}
	p.cur = c
	return c.bytes(), nil
}

func (p *pipe) drop() {
	if p.cur != nil {
		p.cur.release()
		p.cur = nil
	}
}

// Read implements io.Reader over the same chunks.
func (p *pipe) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		rest, err := p.next()
		if err != nil {
			return 0, err
		}
		p.rest = rest
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// empty releases what was sent and is not read. The sender must have ended.
func (p *pipe) empty() {
	p.drop()
	for c := range p.ch {
		c.release()
	}
}

// summer is the stage that hashes a stream.
type summer struct {
	in   *pipe
	hash hash.Hash
	size int64
}

func newSummer(done <-chan struct{}) *summer {
	return &summer{in: newPipe(done), hash: sha256.New()}
}

func (s *summer) run() {
	for c := range s.in.ch {
		s.hash.Write(c.bytes())
		s.size += int64(c.n)
		c.release()
	}
}

func (s *summer) digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, s.hash.Sum(nil))
}

// Blob reads the entries of a layer from its blob, and finds out both digests
// meanwhile. Reading, decompressing, hashing and parsing overlap; a Blob holds
// a few MiB of buffers, and for zstd a window.
type Blob struct {
	*Reader

	compression Compression
	blob, diff  *summer // the same one if nothing is compressed
	raw, plain  *pipe
	done        chan struct{}
	stop        func()
	wait        sync.WaitGroup
	finished    bool
	digests     Digests
	err         error
}

var errAbandoned = fmt.Errorf("layer blob is closed: %w", errdefs.ErrFailedPrecondition)

// OpenBlob starts to read a layer's blob, which [Decompress] understands. The
// caller calls Close, and does not use r until then; Finish gives the digests.
func OpenBlob(r io.Reader, l Limits) (*Blob, error) {
	return openBlob(r, ReadOptions{Limits: l})
}

func openBlob(r io.Reader, o ReadOptions) (*Blob, error) {
	done := make(chan struct{})
	b := &Blob{done: done, stop: sync.OnceFunc(func() { close(done) })}
	b.raw, b.blob = newPipe(done), newSummer(done)
	b.wait.Go(func() { fetch(r, b.raw, b.blob.in) })
	b.wait.Go(b.blob.run)
	dec, c, err := Decompress(b.raw, o.Limits)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.compression, b.diff = c, b.blob
	b.plain = newPipe(done)
	if c != None {
		b.diff = newSummer(done)
		b.wait.Go(b.diff.run)
		b.wait.Go(func() {
			fetch(dec, b.plain, b.diff.in)
			dec.Close() // has nothing to report: it only gives memory back
		})
	} else {
		b.wait.Go(func() { fetch(dec, b.plain, nil) })
	}
	b.Reader = o.reader(b.plain)
	return b, nil
}

// fetch reads r to its end and hands it to both pipes, of which the second may
// be nil.
func fetch(r io.Reader, to, also *pipe) {
	var err error
	refs := int32(2)
	if also == nil {
		refs = 1
	}
	for err == nil {
		c := newChunk(refs)
		c.n, err = fillUp(r, c.buf[:])
		if c.n == 0 || (also != nil && !also.send(c)) || !to.send(c) {
			break
		}
	}
	if also != nil {
		also.finish(err)
	}
	if err == io.EOF {
		err = nil
	}
	to.finish(err)
}

// fillUp reads until p is full or r ends.
func fillUp(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// Finish reads what is left of the blob, entries or not, and returns its
// digests; called again, it returns the same. An error of the Reader is not
// one of Finish: a blob that is no layer has digests, too.
func (b *Blob) Finish() (Digests, error) {
	if b.finished {
		return b.digests, b.err
	}
	b.finished = true
	err := b.drain()
	b.stopAndWait()
	if err != nil {
		b.err = fmt.Errorf("read layer blob: %w", err)
		return Digests{}, b.err
	}
	b.digests = Digests{
		Blob: b.blob.digest(), Size: b.blob.size,
		DiffID: b.diff.digest(), DiffSize: b.diff.size,
		Compression: b.compression,
	}
	return b.digests, nil
}

// Close abandons what Finish has not read; after Finish it does nothing. It
// waits for a Read of r that is under way: to interrupt that is the business
// of whoever made r.
func (b *Blob) Close() error {
	if !b.finished {
		b.finished, b.err = true, errAbandoned
		b.stopAndWait()
	}
	return nil
}

// stopAndWait ends all goroutines, and gives their buffers back.
func (b *Blob) stopAndWait() {
	b.stop()
	b.wait.Wait()
	b.raw.empty()
	if b.plain != nil {
		b.plain.empty()
	}
	if b.Reader != nil {
		b.Reader.abandon()
	}
}

// abandon makes the Reader refuse to go on, unless it is at the end anyway.
func (r *Reader) abandon() {
	if r.err == nil {
		r.err = errAbandoned
	}
	r.tape.chunk, r.tape.after = nil, nil
}
