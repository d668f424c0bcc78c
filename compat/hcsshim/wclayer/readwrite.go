package wclayer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	"github.com/hostcompute/hcs/compat/hcsshim/internal/transfer"
	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// LayerReader reads a layer file by file. It is for one goroutine.
type LayerReader interface {
	// Next goes to the next file and returns its name, relative and with backslashes ("Files\Windows"), the size of its content,
	// and its times and attributes; these are nil for what the layer removes from those below it. It returns io.EOF at the end.
	Next() (string, int64, *winio.FileBasicInfo, error)
	// Read reads the file's Win32 backup stream.
	Read(b []byte) (int, error)
	// Close ends reading.
	Close() error
}

// LayerWriter writes a new layer file by file. It is for one goroutine.
type LayerWriter interface {
	// Add starts a file or directory. What it is in must have been added, or be in a parent layer.
	Add(name string, fileInfo *winio.FileBasicInfo) error
	// AddLink adds another name of a file of this layer, which must have been added, or of a parent layer.
	AddLink(name string, target string) error
	// Remove removes a file that a parent layer has.
	Remove(name string) error
	// Write takes a piece of the Win32 backup stream of what Add started.
	Write(b []byte) (int, error)
	// Close finishes the layer, which is not there before. It must be called, after an error too, and then removes what was
	// written.
	Close() error
}

// WC_LAYER_DESCRIPTOR names a parent layer as Windows' own calls want it. Nothing here takes one.
type WC_LAYER_DESCRIPTOR struct {
	LayerId guid.GUID
	Flags   uint32
	Pathp   *uint16
}

// FilterLayerReader is the LayerReader that NewLayerReader returns. The zero value is a closed one.
type FilterLayerReader struct {
	reader *transfer.Reader
	title  string
	path   string
	cancel context.CancelFunc
}

// Next goes to the next file.
func (r *FilterLayerReader) Next() (string, int64, *winio.FileBasicInfo, error) {
	if r.reader == nil {
		return "", 0, nil, errReaderClosed
	}
	name, size, info, err := r.reader.Next()
	return name, size, info, r.wrap(err)
}

// Read reads the current file's backup stream.
func (r *FilterLayerReader) Read(b []byte) (int, error) {
	if r.reader == nil {
		return 0, errReaderClosed
	}
	n, err := r.reader.Read(b)
	return n, r.wrap(err)
}

// Close ends reading. Called again, it does nothing.
func (r *FilterLayerReader) Close() (err error) {
	if r.reader == nil {
		return nil
	}
	err = r.wrap(r.reader.Close())
	r.cancel()
	r.reader = nil
	return err
}

func (r *FilterLayerReader) wrap(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return hcserror.New(err, r.title, "path="+r.path)
}

var (
	errReaderClosed = errors.New("LayerReader closed")
	errWriterClosed = errors.New("LayerWriter closed")
)

// FilterLayerWriter is the LayerWriter that NewLayerWriter returns. The zero value is a closed one.
type FilterLayerWriter struct {
	writer *transfer.Writer
	finish func(error) error // completes the layer, or gives it up for the reason that it is told
	path   string
	failed error
}

// Add starts a file or directory.
func (w *FilterLayerWriter) Add(name string, fileInfo *winio.FileBasicInfo) error {
	return w.do(func(t *transfer.Writer) error { return t.Add(name, fileInfo) })
}

// AddLink adds another name of a file.
func (w *FilterLayerWriter) AddLink(name string, target string) error {
	return w.do(func(t *transfer.Writer) error { return t.AddLink(name, target) })
}

// Remove removes a file that a parent layer has.
func (w *FilterLayerWriter) Remove(name string) error {
	return w.do(func(t *transfer.Writer) error { return t.Remove(name) })
}

// Write takes a piece of the current file's backup stream.
func (w *FilterLayerWriter) Write(b []byte) (int, error) {
	n := 0
	err := w.do(func(t *transfer.Writer) (err error) {
		n, err = t.Write(b)
		return err
	})
	return n, err
}

// Close finishes the layer. Called again, it does nothing.
func (w *FilterLayerWriter) Close() (err error) {
	if w.writer == nil {
		return nil
	}
	err = w.failed
	if last := w.writer.Close(); err == nil {
		err = last
	}
	err = w.finish(err)
	w.writer = nil
	return hcserror.New(err, "hcsshim::ImportLayer", "path="+w.path)
}

func (w *FilterLayerWriter) do(f func(*transfer.Writer) error) error {
	if w.writer == nil {
		return errWriterClosed
	}
	if w.failed == nil {
		w.failed = f(w.writer)
	}
	return hcserror.New(w.failed, "hcsshim::ImportLayerNext", "path="+w.path)
}

// NewLayerReader returns a reader of a layer, or of what was written into a scratch layer, which must be active and not
// prepared. Its parents are given nearest first. A second and later name of a file is a file with the same content.
func NewLayerReader(ctx context.Context, path string, parentLayerPaths []string) (_ LayerReader, err error) {
	const title = "hcsshim::ExportLayerBegin"
	ctx, cancel := context.WithCancel(ctx)
	source, err := export(ctx, path, parentLayerPaths, rootfs.CopyLinks)
	if err != nil {
		cancel()
		return nil, hcserror.New(err, title, "path="+path)
	}
	return &FilterLayerReader{
		reader: transfer.NewReader(source, linksOf(path, parentLayerPaths)), title: title, path: path, cancel: cancel,
	}, nil
}

// NewLayerWriter returns a writer of the layer at a path, which may be there and empty. Its parents are given nearest first;
// without any it is a base layer.
func NewLayerWriter(ctx context.Context, path string, parentLayerPaths []string) (_ LayerWriter, err error) {
	imp, err := startImport(ctx, path, parentLayerPaths)
	if err != nil {
		return nil, hcserror.New(err, "hcsshim::ImportLayerBegin", "path="+path)
	}
	put := imp.put
	if len(parentLayerPaths) == 0 {
		put = refuseTombstones(put)
	}
	return &FilterLayerWriter{writer: transfer.NewWriter(put, os.TempDir()), finish: imp.finish, path: path}, nil
}

func refuseTombstones(put transfer.Emit) transfer.Emit {
	return func(e *layer.Entry, content io.Reader) error {
		if e.Kind == layer.Whiteout {
			return fmt.Errorf("base layer cannot have tombstones: %w", errdefs.ErrInvalidArgument)
		}
		return put(e, content)
	}
}
