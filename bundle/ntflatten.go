package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// errFound ends the reading of a layer whose rest nobody wants.
var errFound = fmt.Errorf("the entry is found")

// ntFlattener writes what a merge has found as the entries of one layer. What
// is in files goes from the layers to the new one as it passes.
type ntFlattener struct {
	*ntMerge
	layers []rootfs.LayerBlob
	read   Reading
	emit   rootfs.Emit

	index  int
	linked *ntObject                     // whose other names are to be written
	bases  map[*ntObject]rootfs.HiveName // hives that deltas go into, by file
}

// FlattenWindows reads the layers of a Windows image, base first, as one, in the
// form of a base layer: names once, directories before what is in them, files
// and streams of a name from the topmost layer that has it, the registry's
// changes in the hives of the base. Without a base's hive, what there is of
// changes stays one. Layers are opened twice, and again for hives.
//
// emit gets content that is valid during the call.
func FlattenWindows(ctx context.Context, layers []rootfs.LayerBlob, r Reading, emit rootfs.Emit) error {
	m, err := mergeNT(ctx, layers, r)
	if err != nil {
		return err
	}
	return m.flatten(ctx, layers, r, emit)
}

func (m *ntMerge) flatten(ctx context.Context, layers []rootfs.LayerBlob, r Reading, emit rootfs.Emit) error {
	m.settle()
	f := &ntFlattener{ntMerge: m, layers: layers, read: r.again(), emit: emit, bases: make(map[*ntObject]rootfs.HiveName)}
	if err := f.findBases(); err != nil {
		return err
	}
	for i, l := range layers {
		f.index = 0
		err := readLayer(ctx, l, f.read.layer(i), func(e *layer.Entry, content *layer.Blob) error {
			index := f.index
			f.index++
			return f.entry(ctx, e, content, i, index)
		})
		if err == nil {
			err = f.links()
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return f.rest()
}

// findBases finds the files that the changes of hives go into. A layer that
// brings a whole hive makes those below it void.
func (f *ntFlattener) findBases() error {
	for _, hive := range rootfs.HiveNames() {
		deltas := f.hives[hive]
		if len(deltas) == 0 {
			continue
		}
		base := f.find(hive.File())
		if base == nil || base.object == nil {
			if len(deltas) > 1 {
				return fmt.Errorf("merge hive %s: %d layers change it and none has it: %w", hive, len(deltas), errdefs.ErrFailedPrecondition)
			}
			continue
		}
		for len(deltas) > 0 && deltas[0].layer < base.object.layer {
			deltas = deltas[1:]
		}
		f.hives[hive] = deltas
		if len(deltas) > 0 {
			f.bases[base.object] = hive
		} else {
			delete(f.hives, hive)
		}
	}
	return nil
}

func (f *ntFlattener) entry(ctx context.Context, e *layer.Entry, content *layer.Blob, i, index int) error {
	e.Forget()
	if e.Kind == layer.Stream {
		if o := f.streams[i][index]; o != nil && len(o.names) > 0 {
			e.Name = o.names[0]
			return f.emit(e, content)
		}
		return nil
	}
	if err := f.links(); err != nil {
		return err
	}
	if e.Kind == layer.Dir {
		if n := f.find(e.Name); n != nil && n.children != nil {
			return f.dir(e.Name)
		}
		return nil
	}
	o := f.objects[i][index]
	if o == nil || len(o.names) == 0 {
		return nil
	}
	if err := f.dir(path.Dir(o.names[0])); err != nil {
		return err
	}
	e.Name, f.linked = o.names[0], o
	if hive, is := f.bases[o]; is {
		return f.hive(ctx, e, content, hive)
	}
	return f.emit(e, content)
}

// links writes the other names of the file that was written last, behind its
// streams.
func (f *ntFlattener) links() error {
	o := f.linked
	if o == nil {
		return nil
	}
	f.linked = nil
	for _, name := range o.names[1:] {
		if err := f.dir(path.Dir(name)); err != nil {
			return err
		}
		e := *f.find(name).entry
		e.Forget()
		e.Name, e.Link = name, o.names[0]
		if err := f.emit(&e, nil); err != nil {
			return err
		}
	}
	return nil
}

// dir writes a directory and those above it, unless they are written.
func (f *ntFlattener) dir(name string) error {
	n, full := f.root, ""
	for part := range strings.SplitSeq(name, "/") {
		n = n.children[ntfs.Upcase(part)]
		full = path.Join(full, n.name)
		if err := f.writeDir(full, n); err != nil {
			return err
		}
	}
	return nil
}

func (f *ntFlattener) writeDir(name string, n *ntNode) error {
	if n.written || name == string(layer.HivesPart) && !f.needsHives(n) {
		return nil
	}
	n.written = true
	e := *n.entry
	e.Name, e.Implied = name, false
	if err := f.emit(&e, nil); err != nil {
		return err
	}
	for _, s := range n.streams {
		e := *s.entry
		e.Forget()
		e.Name = name
		if err := f.emit(&e, bytes.NewReader(s.data)); err != nil {
			return err
		}
	}
	return nil
}

// needsHives says whether the new layer has a directory for hives, which a base
// layer has not.
func (f *ntFlattener) needsHives(hives *ntNode) bool {
	return f.hasHive || len(hives.children) > 0 || len(f.bases) < len(f.hives)
}

// rest writes directories that are nothing's parent, and what there is of
// changes to hives that no layer has.
func (f *ntFlattener) rest() error {
	err := f.root.walk("", func(name string, n *ntNode) error {
		if n.children == nil {
			return nil
		}
		return f.writeDir(name, n)
	})
	if err != nil {
		return err
	}
	merged := make(map[rootfs.HiveName]bool, len(f.bases))
	for _, hive := range f.bases {
		merged[hive] = true
	}
	for _, hive := range rootfs.HiveNames() {
		for _, d := range f.hives[hive] {
			if merged[hive] {
				break
			}
			e := *d.entry
			e.Forget()
			if err := f.emit(&e, bytes.NewReader(d.data)); err != nil {
				return err
			}
		}
	}
	return nil
}

// hive writes a base layer's hive with the changes that the layers above make.
func (f *ntFlattener) hive(ctx context.Context, e *layer.Entry, content io.Reader, name rootfs.HiveName) error {
	base, err := readHive(e, content)
	if err != nil {
		return err
	}
	merged, err := f.mergeHive(ctx, e.Name, base, f.hives[name])
	if err != nil {
		return &layer.EntryError{Op: "merge hive", Name: e.Name, Err: err}
	}
	for _, d := range f.hives[name] {
		if d.entry.ModTime.After(e.ModTime) {
			e.ModTime = d.entry.ModTime
		}
	}
	e.Size, e.Data = int64(len(merged)), nil
	return f.emit(e, bytes.NewReader(merged))
}

func (f *ntFlattener) mergeHive(ctx context.Context, file string, base []byte, deltas []ntDelta) ([]byte, error) {
	lower, err := f.wholeHive(ctx, file, base)
	if err != nil {
		return nil, err
	}
	var uppers []*regf.Hive
	for _, d := range deltas {
		if len(d.data) == 0 {
			continue // nothing changes
		}
		upper, err := regf.Parse(d.data)
		if err != nil {
			return nil, fmt.Errorf("%s of layer %d: %w: %w", d.entry.Name, d.layer+1, err, errdefs.ErrInvalidArgument)
		}
		uppers = append(uppers, upper)
	}
	t, err := regf.Merge(lower, uppers...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return t.Bytes()
}

// wholeHive reads a base layer's hive, and what it has in logs.
func (f *ntFlattener) wholeHive(ctx context.Context, file string, data []byte) (*regf.Hive, error) {
	return rootfs.ParseHive(file, data, func(suffix string) ([]byte, error) { return f.fetch(ctx, file+suffix) })
}

// fetch reads a small file of the image out of its turn; nil if there is none.
func (f *ntFlattener) fetch(ctx context.Context, name string) (data []byte, err error) {
	n := f.find(name)
	if n == nil || n.object == nil {
		return nil, nil
	}
	index := 0
	err = readLayer(ctx, f.layers[n.object.layer], f.read.layer(n.object.layer), func(e *layer.Entry, content *layer.Blob) error {
		if index++; index <= n.object.index {
			return nil
		}
		if data, err = readHive(e, content); err != nil {
			return err
		}
		return errFound
	})
	if err == errFound { //nolint:errorlint // our own, as it is
		err = nil
	}
	return data, err
}
