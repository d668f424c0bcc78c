package layer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	digest "github.com/opencontainers/go-digest"
)

// BlobWriter writes a layer's blob and finds out both digests meanwhile.
// Hashing and compressing overlap with what the caller does.
type BlobWriter struct {
	*Writer

	compression Compression
	out         *tee
	diff        *summer // nil if nothing is compressed
	plain       *pipe
	cut         *cutter
	done        chan struct{}
	stop        func()
	wait        sync.WaitGroup
	failed      error // what the compressor or the writer below met
	finished    bool
	digests     Digests
	err         error
}

// CreateBlob starts to write a layer's blob to w. The caller calls Finish for
// the digests, and in any case Close, and does not use w until then.
func CreateBlob(w io.Writer, c Compression) (*BlobWriter, error) {
	done := make(chan struct{})
	b := &BlobWriter{compression: c, done: done, stop: sync.OnceFunc(func() { close(done) })}
	b.out = &tee{w: w, hash: sha256.New()}
	z, err := Compress(b.out, c)
	if err != nil {
		return nil, err
	}
	b.plain = newPipe(done)
	b.cut = &cutter{to: b.plain, cause: b.out.failure}
	if c != None {
		b.diff = newSummer(done)
		b.cut.also = b.diff.in
		b.wait.Go(b.diff.run)
	}
	b.wait.Go(func() { b.failed = b.compress(z) })
	b.Writer = NewWriter(b.cut)
	return b, nil
}

// compress writes the stream to z. When that fails it stops all others.
func (b *BlobWriter) compress(z io.WriteCloser) error {
	err := errors.Join(b.feed(z), z.Close(), b.out.failure())
	if err != nil {
		b.stop()
	}
	return err
}

func (b *BlobWriter) feed(z io.Writer) error {
	for b.out.err.Load() == nil {
		p, err := b.plain.next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			_, err = z.Write(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Finish closes the Writer, if that is not done yet, writes what is left and
// returns the digests; called again, it returns the same.
func (b *BlobWriter) Finish() (Digests, error) {
	if b.finished {
		return b.digests, b.err
	}
	werr := b.Writer.Close()
	if werr == nil && !b.cut.flush() {
		werr = errAbandoned
	}
	b.end(werr)
	// The Writer's error is but an echo where the stages below it failed.
	if err := b.failed; err != nil {
		b.err = fmt.Errorf("write layer blob: %w", err)
	} else if werr != nil {
		b.err = werr
	}
	if b.err != nil {
		return Digests{}, b.err
	}
	b.digests = Digests{
		Blob: b.out.digest(), Size: b.out.size,
		DiffID: b.out.digest(), DiffSize: b.out.size,
		Compression: b.compression,
	}
	if b.diff != nil {
		b.digests.DiffID, b.digests.DiffSize = b.diff.digest(), b.diff.size
	}
	return b.digests, nil
}

// Close abandons the blob, of which a part may be written; after Finish it
// does nothing. It waits for a Write to w that is under way.
func (b *BlobWriter) Close() error {
	if !b.finished {
		b.err = errAbandoned
		b.end(errAbandoned)
	}
	return nil
}

// end ends all goroutines, the compressor's stream with err.
func (b *BlobWriter) end(err error) {
	b.finished = true
	if b.cut.also != nil {
		b.cut.also.finish(nil)
	}
	b.plain.finish(err)
	b.wait.Wait()
	b.stop()
	b.plain.empty()
	if b.Writer.err == nil {
		b.Writer.err = errAbandoned
	}
}

// tee hashes what it writes. An error is for failure alone: pgzip leaves a
// goroutine behind when the writer below it fails.
type tee struct {
	w    io.Writer
	hash hash.Hash
	size int64
	err  atomic.Pointer[error]
}

func (t *tee) digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, t.hash.Sum(nil))
}

func (t *tee) failure() error {
	if err := t.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (t *tee) Write(p []byte) (int, error) {
	if t.err.Load() != nil {
		return len(p), nil
	}
	n, err := t.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		t.err.Store(&err)
		return len(p), nil
	}
	t.hash.Write(p)
	t.size += int64(n)
	return n, nil
}

// cutter cuts what is written into chunks for one or two pipes.
type cutter struct {
	to, also *pipe
	cur      *chunk
	cause    func() error // says why nobody wants more, if that is known
}

func (c *cutter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if c.cur == nil {
			c.cur = newChunk(2)
			if c.also == nil {
				c.cur.refs.Store(1)
			}
		}
		n := copy(c.cur.buf[c.cur.n:], p)
		c.cur.n += n
		p = p[n:]
		if c.cur.n == chunkSize && !c.flush() {
			if err := c.cause(); err != nil {
				return total - len(p), err
			}
			return total - len(p), errAbandoned
		}
	}
	return total, nil
}

// flush hands over the current chunk; it says false if nobody wants it.
func (c *cutter) flush() bool {
	k := c.cur
	if k == nil {
		return true
	}
	c.cur = nil
	return (c.also == nil || c.also.send(k)) && c.to.send(k)
}
