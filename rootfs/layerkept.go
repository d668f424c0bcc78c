package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// keptReader passes the entries of a Linux layer on and keeps its stream beside the tree, without the content of
// files, so that the layer can be written as it came. Of a layer that replaces or removes what it has brought itself, of which
// the content is lost, nothing is kept.
type keptReader struct {
	*layer.Reader
	file     *os.File
	packed   *packedHeaders
	skeleton *layer.Writer
	brought  map[string]layer.Kind
	parents  map[string]struct{} // directories of those
	lossy    bool
}

func newKeptReader(dir string, r *layer.Reader) (*keptReader, error) {
	file, err := os.OpenFile(filepath.Join(dir, ntEntries), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	packed := &packedHeaders{w: s2.NewWriter(file)}
	return &keptReader{
		Reader: r, file: file, packed: packed, skeleton: layer.NewWriter(packed),
		brought: make(map[string]layer.Kind), parents: make(map[string]struct{}),
	}, nil
}

// Next implements entryReader.
func (k *keptReader) Next() (*layer.Entry, error) {
	e, err := k.Reader.Next()
	if err != nil || k.lossy {
		return e, err
	}
	if k.note(e); k.lossy {
		return e, nil
	}
	return e, k.skeleton.WriteHeader(e)
}

// note finds out whether an entry takes away what came before it.
func (k *keptReader) note(e *layer.Entry) {
	before, again := k.brought[e.Name]
	switch e.Kind {
	case layer.Whiteout:
		_, filled := k.parents[e.Name]
		k.lossy = again || filled
		return
	case layer.Opaque: // it concerns lower layers alone
		return
	}
	k.lossy = again && (before != layer.Dir || e.Kind != layer.Dir)
	k.brought[e.Name] = e.Kind
	for dir := path.Dir(e.Name); ; dir = path.Dir(dir) {
		if _, known := k.parents[dir]; known {
			return
		}
		k.parents[dir] = struct{}{}
		if dir == "." {
			return
		}
	}
}

// close completes what is kept if the layer was read, and removes it if that is not whole. It returns how many bytes it is.
func (k *keptReader) close(failed error) (int64, error) {
	if failed == nil && !k.lossy {
		trailer, err := k.Trailer()
		if err == nil {
			err = k.skeleton.CloseWith(trailer)
		}
		failed = err
	}
	err := errors.Join(failed, k.packed.Close(), k.file.Close())
	if k.lossy {
		return 0, errors.Join(err, os.Remove(k.file.Name()))
	}
	return k.packed.n, err
}

// exportKept reads a Linux layer as it came, of which headers bytes are kept. kept says that this is possible.
func exportKept(ctx context.Context, dir string, headers int64, emit Emit) (trailer layer.Trailer, kept bool, err error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return trailer, false, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	file, err := root.Open(ntEntries)
	if errors.Is(err, fs.ErrNotExist) {
		return trailer, false, nil
	}
	if err != nil {
		return trailer, false, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r := layer.ReadOptions{Limits: noLimits(), Hollow: true}.NewReader(&unpackedHeaders{r: s2.NewReader(file), want: headers})
	for e, err := range r.All() {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = emitKept(root, e, emit)
		}
		if err != nil {
			return trailer, true, err
		}
	}
	trailer, err = r.Trailer()
	return trailer, true, err
}

func emitKept(root *inroot.Root, e *layer.Entry, emit Emit) error {
	if e.Kind != layer.File {
		return emit(e, nil)
	}
	file, err := openContent(root, filesDir+"/"+e.Name)
	if err != nil {
		return &layer.EntryError{Op: "export", Name: e.Name, Err: err}
	}
	if st, err := file.Stat(); err != nil || st.Size() != e.Size {
		err = errors.Join(err, file.Close(), fmt.Errorf("its size is no longer %d: %w", e.Size, errdefs.ErrDataLoss))
		return &layer.EntryError{Op: "export", Name: e.Name, Err: err}
	}
	return errors.Join(emit(e, file), file.Close())
}
