package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
)

// EntrySource gives the entries of a layer in their order to emit, and ends with its error if that has one. Content is valid
// until emit returns.
type EntrySource = func(emit Emit) error

// ImportEntries is ImportNT of a Windows layer that does not come as a tar stream: what such a stream has no form for
// (reparse points that are no links, object IDs, flags of extended attributes, sparse files, streams of a backup stream that
// nothing here looks into) is stored, too, and ExportNT gives it. WriteNT leaves it out, or refuses what is nothing without it.
//
// Entries are judged as a layer.Reader would, and directories that are missing are made up. The source runs in this
// goroutine's place while the import waits for it, and is not called after an error.
func ImportEntries(ctx context.Context, dir string, parents []string, source EntrySource, opts NTOptions) (stats NTStats, err error) {
	in := newPulled(source)
	in.order = layer.NewNTOrder(layer.ReadOptions{})
	opts.whole = true
	stats, err = importNT(ctx, dir, parents, in, opts)
	if err = errors.Join(err, in.end()); err != nil {
		return stats, fmt.Errorf("import layer to %s: %w", dir, err)
	}
	return stats, nil
}

// ntInput is what a Windows layer is imported from: a layer.Reader, or entries that were pulled.
type ntInput interface {
	entryReader
	Trailer() (layer.Trailer, error)
}

// pulled makes a reader of a source. What the source emits waits until it is wanted.
type pulled struct {
	pull    func() (*layer.Entry, io.Reader, bool)
	stop    func()
	failure error          // of the source, once it has ended
	order   *layer.NTOrder // nil: the source's

	queue   []*layer.Entry // that come before what was pulled last
	next    *layer.Entry   // what was pulled last, unless it is the current one
	waiting io.Reader      // its content
	current *layer.Entry
	content io.Reader // what is left of it, after offset at
	at      int64
	ended   bool
}

// errImportStopped ends a source of which nobody wants more.
var errImportStopped = errors.New("the import has ended")

func newPulled(source EntrySource) *pulled {
	p := new(pulled)
	p.pull, p.stop = iter.Pull2(func(yield func(*layer.Entry, io.Reader) bool) {
		p.failure = source(func(e *layer.Entry, content io.Reader) error {
			if !yield(e, content) {
				return errImportStopped
			}
			return nil
		})
	})
	return p
}

// end stops the source, and returns its error if nobody has seen it.
func (p *pulled) end() error {
	p.stop()
	if p.ended || errors.Is(p.failure, errImportStopped) {
		return nil
	}
	return p.failure
}

// Next returns the next entry. It is the caller's: the source may use its own again.
func (p *pulled) Next() (*layer.Entry, error) {
	p.current, p.content = nil, nil
	for len(p.queue) == 0 && p.next == nil && !p.ended {
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	switch {
	case len(p.queue) > 0:
		e := p.queue[0]
		p.queue = p.queue[1:]
		return e, nil
	case p.next != nil:
		p.current, p.content, p.at = p.next, p.waiting, 0
		p.next, p.waiting = nil, nil
		return p.current, nil
	}
	return nil, io.EOF
}

// advance pulls an entry and finds out what has to come before it.
func (p *pulled) advance() error {
	e, content, ok := p.pull()
	if !ok {
		p.ended = true
		if p.failure != nil {
			return p.failure
		}
		if p.order == nil {
			return nil
		}
		var err error
		p.queue, err = p.order.Rest()
		return err
	}
	own := *e
	if e.NT != nil {
		meta := *e.NT
		own.NT = &meta
	}
	if p.order != nil {
		var err error
		if p.queue, err = p.order.Place(&own); err != nil {
			return err
		}
	}
	p.next, p.waiting = &own, content
	return nil
}

// Read reads the current entry's content, holes as zeros.
func (p *pulled) Read(b []byte) (int, error) {
	if p.current == nil || p.at == p.current.Size || len(b) == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.current.Size-p.at)]
	if p.content == nil {
		return 0, p.short()
	}
	n, err := p.content.Read(b)
	p.at += int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if n == 0 {
			err = p.short()
		}
	}
	return n, err
}

func (p *pulled) short() error {
	err := fmt.Errorf("content has %d bytes less than its size says: %w", p.current.Size-p.at, errdefs.ErrDataLoss)
	return &layer.EntryError{Op: "read", Name: p.current.Name, Err: err}
}

// WriteDataAt writes the current entry's data to w and leaves the holes out.
func (p *pulled) WriteDataAt(w io.WriterAt) (written int64, err error) {
	runs := p.current.Data
	if runs == nil {
		runs = []layer.Extent{{Length: p.current.Size}}
	}
	at, anywhere := p.content.(io.ReaderAt)
	for _, x := range runs {
		var from io.Reader
		if anywhere {
			from = io.NewSectionReader(at, x.Offset, x.Length)
		} else {
			if _, err := io.CopyN(io.Discard, p, x.Offset-p.at); err != nil {
				return written, err
			}
			from = io.LimitReader(p, x.Length)
		}
		n, err := io.Copy(io.NewOffsetWriter(w, x.Offset), from)
		written += n
		if err == nil && n < x.Length {
			p.at = x.Offset + n
			err = p.short()
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Trailer returns that of a stream which nobody has written yet.
func (p *pulled) Trailer() (layer.Trailer, error) { return layer.Trailer{}, nil }
