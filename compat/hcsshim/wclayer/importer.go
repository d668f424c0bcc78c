package wclayer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/transfer"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// importer makes a layer of entries. They travel as the tar stream that images hold, so that a layer has the same form on
// disk whoever wrote it.
type importer struct {
	out  *layer.Writer
	pipe *io.PipeWriter
	done chan error
}

// startImport begins to import a layer to a path.
func startImport(ctx context.Context, path string, parents []string) (*importer, error) {
	if err := errors.Join(ctx.Err(), checkParents(parents)); err != nil {
		return nil, err
	}
	if names, err := os.ReadDir(path); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("%s is not empty: %w", path, errdefs.ErrAlreadyExists)
	}
	in, out := io.Pipe()
	i := &importer{out: layer.NewWriter(out), pipe: out, done: make(chan error, 1)}
	go func() {
		_, err := ImportStream(ctx, path, parents, in)
		_ = in.CloseWithError(errors.Join(err, errImportEnded)) // never fails
		i.done <- err
	}()
	return i, nil
}

// errImportEnded is what a writer sees whose reader has gone. The import's own error is told with it.
var errImportEnded = errors.New("the import has ended")

// put adds an entry.
func (i *importer) put(e *layer.Entry, content io.Reader) error {
	return i.out.Write(e, content)
}

// finish completes the layer if err is nil, and otherwise gives it up. It returns what went wrong first.
func (i *importer) finish(err error) error {
	if err == nil {
		err = i.out.Close()
	}
	_ = i.pipe.CloseWithError(err) // nil is the stream's end
	if imported := <-i.done; err == nil || errors.Is(err, errImportEnded) {
		return imported
	}
	return err
}

// ImportStream makes the layer at path, where an empty directory may be, of the uncompressed tar stream that an image of
// Windows holds, and returns the bytes of its files. Its parents are given nearest first. A stream that is malformed in known
// ways is mended, as package layer does it.
func ImportStream(ctx context.Context, path string, parents []string, stream io.Reader) (_ int64, err error) {
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		return 0, fmt.Errorf("import layer: %s is no directory: %w", path, errdefs.ErrAlreadyExists)
	}
	switch gone := os.Remove(path); {
	case gone == nil:
		defer func() { // what CreateLayer made stays if nothing comes in its place
			if err != nil {
				err = errors.Join(err, os.Mkdir(path, 0o700))
			}
		}()
	case !errors.Is(gone, fs.ErrNotExist):
		return 0, fmt.Errorf("import layer: %s is not empty: %w: %w", path, errdefs.ErrAlreadyExists, gone)
	}
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(stream)
	stats, err := rootfs.ImportNT(ctx, path, parents, r, options())
	return stats.Bytes, err
}

// options let ordinary users store layers, too. Mounting them takes a user namespace.
func options() rootfs.NTOptions {
	if os.Geteuid() > 0 {
		return rootfs.NTOptions{UserXattr: true, Owner: rootfs.IgnoreOwner}
	}
	return rootfs.NTOptions{}
}

// Export gives the entries of the layer at path to emit: those it was imported with, in their order. What was written into a
// scratch layer has no such form yet: the error is of class errdefs.ErrNotImplemented.
func Export(ctx context.Context, path string, emit func(*layer.Entry, io.Reader) error) error {
	if err := checkExport(ctx, path); err != nil {
		return err
	}
	return rootfs.ExportNT(ctx, path, emit)
}

// checkExport says whether a layer can be exported.
func checkExport(ctx context.Context, path string) error {
	v, err := scratch(ctx, path)
	if v == nil {
		return err
	}
	return fmt.Errorf("export %s: what was written into a scratch layer cannot be exported: %w", path, errdefs.ErrNotImplemented)
}

// linksOf finds what a layer's hard links stand for.
func linksOf(path string, parents []string) transfer.LinkSource {
	dirs := append([]string{path}, parents...)
	return func(name string) (*layer.Entry, io.Reader, error) {
		e, content, err := rootfs.OpenNT(dirs, name)
		if err != nil || content == nil {
			return e, nil, err
		}
		return e, content, nil
	}
}

// ExportStream writes the layer at path to w as the tar stream that it was imported from, byte for byte.
func ExportStream(ctx context.Context, path string, _ []string, w io.Writer) error {
	if err := checkExport(ctx, path); err != nil {
		return err
	}
	return rootfs.WriteNT(ctx, path, w)
}
