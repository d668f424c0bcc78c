package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	teeBuffer = 256 << 10
	teeAhead  = 8 // buffers between reader and writer
)

// A tee hands a blob to its reader while another goroutine hashes it and
// writes it to the store. The reader sees io.EOF when the writer has found
// the whole blob to be right; giving the file its name, with the wait for the
// disk, is left to finish.
type tee struct {
	ctx  context.Context
	blob io.ReadCloser
	in   *ingest
	desc v1.Descriptor

	progress func(done int64)
	done     int64

	buf    []byte
	chunks chan []byte
	free   chan []byte
	result chan error  // of the writer, when chunks is closed
	failed atomic.Bool // the writer has an error already

	mu  sync.Mutex
	err error // what Read returns from now on
}

func newTee(ctx context.Context, blob io.ReadCloser, in *ingest, progress func(int64)) *tee {
	t := &tee{
		ctx: ctx, blob: blob, in: in, desc: in.check.desc, progress: progress,
		chunks: make(chan []byte, teeAhead),
		free:   make(chan []byte, teeAhead+2),
		result: make(chan error, 1),
	}
	go t.write()
	return t
}

// write is the writer. After a failure it goes on to take chunks, so that the
// reader never waits for it.
func (t *tee) write() {
	var err error
	for chunk := range t.chunks {
		if err == nil {
			_, err = t.in.Write(chunk)
			t.failed.Store(err != nil)
		}
		select {
		case t.free <- chunk[:0]:
		default:
		}
	}
	if err == nil {
		err = t.in.verdict()
	}
	t.result <- err
}

func (t *tee) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read(p)
}

func (t *tee) read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	if t.ctx.Err() != nil {
		return 0, t.end(context.Cause(t.ctx))
	}
	if t.failed.Load() {
		return 0, t.end(io.EOF)
	}
	n, err := t.blob.Read(p)
	t.pass(p[:n])
	if t.done > t.desc.Size {
		return n, t.end(dataLoss("blob %s: it is longer than the %d bytes of its descriptor", t.desc.Digest, t.desc.Size))
	}
	if err != nil {
		return n, t.end(err)
	}
	return n, nil
}

// pass hands a copy of p to the writer, in large pieces.
func (t *tee) pass(p []byte) {
	t.done += int64(len(p))
	for len(p) > 0 {
		if t.buf == nil {
			select {
			case t.buf = <-t.free:
			default:
				t.buf = make([]byte, 0, teeBuffer)
			}
		}
		n := min(len(p), cap(t.buf)-len(t.buf))
		t.buf = append(t.buf, p[:n]...)
		p = p[n:]
		if len(t.buf) == cap(t.buf) {
			t.flush()
		}
	}
}

func (t *tee) flush() {
	if len(t.buf) > 0 {
		t.chunks <- t.buf
	}
	t.buf = nil
	if t.progress != nil {
		t.progress(t.done)
	}
}

// end stops the writer and returns the blob's verdict: err, unless it is
// io.EOF and the writer knows better.
func (t *tee) end(err error) error {
	t.flush()
	close(t.chunks)
	werr := <-t.result
	if err == io.EOF && werr != nil {
		err = werr
		if !isClassed(werr) {
			err = fmt.Errorf("write blob %s: %w", t.desc.Digest, werr)
		}
	}
	t.err = err
	return err
}

func isClassed(err error) bool {
	var c *classError
	return errors.As(err, &c)
}

// Close does not close the blob: finish reads on where the reader stopped.
func (t *tee) Close() error { return nil }

// finish reads what is left and publishes the blob.
func (t *tee) finish() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.blob.Close()
	buf := make([]byte, copyBuffer)
	for t.err == nil {
		_, _ = t.read(buf)
	}
	if t.err != io.EOF {
		return errors.Join(t.err, t.in.abort())
	}
	t.err = errors.New("read blob after its end")
	return t.in.publish()
}

func (t *tee) abort() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		_ = t.end(context.Canceled)
	}
	return errors.Join(t.in.abort(), t.blob.Close())
}
