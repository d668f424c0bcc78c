package transfer

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/layer"
)

// Emit takes one entry of a layer and, if it has any, its content.
type Emit = func(*layer.Entry, io.Reader) error

// A Source gives the entries of a layer, in the order that Windows' exporter has.
type Source func(Emit) error

// errClosed is what a reader or writer says after its Close.
var errClosed = errors.New("closed")

// errStopped ends a Source whose reader was closed.
var errStopped = errors.New("the reader was closed")

// Reader reads a layer file by file. It is for one goroutine.
type Reader struct {
	pull    func() (*layer.Entry, io.Reader, bool)
	stop    func()
	failure error // of the source, once it has ended

	ahead        *layer.Entry // what pull gave and no Next took
	aheadContent io.Reader
	current      *layer.Entry
	stream       io.Reader // what is left of the current piece of the backup stream
	closed       bool
	err          error // stays
}

// LinkSource gives the entry of a name, with its content, and then its alternate streams: what a hard link stands for.
type LinkSource func(name string, emit Emit) error

// NewReader returns a Reader of what source gives. Hard links become files with the content that links finds for them, as a
// backup stream does not tell of them.
func NewReader(source Source, links LinkSource) *Reader {
	r := new(Reader)
	r.pull, r.stop = iter.Pull2(func(yield func(*layer.Entry, io.Reader) bool) {
		give := func(e *layer.Entry, content io.Reader) error {
			if !yield(e, content) {
				return errStopped
			}
			return nil
		}
		r.failure = source(func(e *layer.Entry, content io.Reader) error {
			if e.Kind != layer.Hardlink {
				return give(e, content)
			}
			return follow(e, links, give)
		})
	})
	return r
}

// follow gives what a hard link stands for, under the link's name.
func follow(e *layer.Entry, links LinkSource, give Emit) error {
	err := fmt.Errorf("nobody knows what that is: %w", errdefs.ErrNotImplemented)
	if links != nil {
		err = links(e.Link, func(target *layer.Entry, content io.Reader) error {
			file := *target
			file.Name = e.Name
			return give(&file, content)
		})
	}
	if err == nil || errors.Is(err, errStopped) {
		return err
	}
	return fmt.Errorf("read layer: %s is a link to %s: %w", e.Name, e.Link, err)
}

// Next goes to the next file and returns its name, with backslashes, the size of its content, and its times and attributes.
// The latter are nil for the name of what the layer removes. It returns io.EOF at the end.
func (r *Reader) Next() (string, int64, *winio.FileBasicInfo, error) {
	if r.closed {
		return "", 0, nil, fmt.Errorf("read layer: %w", errClosed)
	}
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return "", 0, nil, r.err
	}
	name := strings.ReplaceAll(r.current.Name, "/", `\`)
	if r.current.Kind == layer.Whiteout {
		return name, 0, nil, nil
	}
	var size int64
	if r.current.Kind == layer.File {
		size = r.current.Size
	}
	return name, size, BasicInfo(r.current), nil
}

func (r *Reader) next() error {
	r.stream = nil
	for {
		e, content, err := r.take()
		if err != nil {
			return err
		}
		switch e.Kind {
		case layer.Stream: // of a file that was not read to its end
			continue
		case layer.Opaque:
			return fmt.Errorf("read layer: %s hides all that lower layers have in it, which Windows has no form for: %w",
				e.Name, errdefs.ErrNotImplemented)
		default:
			return r.open(e, content)
		}
	}
}

// take returns the entry that was seen ahead, or the next.
func (r *Reader) take() (*layer.Entry, io.Reader, error) {
	if e := r.ahead; e != nil {
		r.ahead = nil
		return e, r.aheadContent, nil
	}
	e, content, ok := r.pull()
	switch {
	case ok:
		return e, content, nil
	case r.failure != nil:
		return nil, nil, r.failure
	default:
		return nil, nil, io.EOF
	}
}

// open makes e the current file.
func (r *Reader) open(e *layer.Entry, content io.Reader) (err error) {
	r.current = e
	if e.Kind == layer.Whiteout {
		return nil
	}
	r.stream, err = layer.BackupStream(e, content)
	return err
}

// Read reads the current file's backup stream.
func (r *Reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, fmt.Errorf("read layer: %w", errClosed)
	}
	for r.stream != nil {
		n, err := r.stream.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, unlessEOF(err)
		}
		if err := r.nextStream(); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// nextStream goes on with the alternate stream that follows the current file, if one does.
func (r *Reader) nextStream() error {
	r.stream = nil
	if r.current.Kind == layer.Whiteout || r.ahead != nil {
		return nil
	}
	e, content, err := r.take()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			r.err = err
			return err
		}
		r.err = io.EOF
		return nil
	}
	if e.Kind != layer.Stream || e.Name != r.current.Name {
		r.ahead, r.aheadContent = e, content
		return nil
	}
	r.stream, err = layer.BackupStream(e, content)
	return err
}

// Close ends the source.
func (r *Reader) Close() error {
	r.closed = true
	r.stop()
	if r.failure != nil && !errors.Is(r.failure, errStopped) && r.err == nil {
		return r.failure
	}
	return nil
}

// BasicInfo returns an entry's times and attributes.
func BasicInfo(e *layer.Entry) *winio.FileBasicInfo {
	written := winio.NewFiletime(e.ModTime)
	either := func(f winio.Filetime) winio.Filetime {
		if f == (winio.Filetime{}) {
			return written
		}
		return f
	}
	return &winio.FileBasicInfo{
		CreationTime:   either(winio.NewFiletime(e.NT.CreationTime)),
		LastAccessTime: either(winio.NewFiletime(e.AccessTime)),
		LastWriteTime:  written,
		ChangeTime:     either(winio.NewFiletime(e.ChangeTime)),
		FileAttributes: uint32(e.NT.Attributes),
	}
}
