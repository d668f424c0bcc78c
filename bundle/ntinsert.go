package bundle

import (
	"context"
	"errors"
	"io"
	"iter"
	"path"
	"strings"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// errEnough ends a walk of which nobody wants more.
var errEnough = errors.New("nobody wants more entries")

// plainLayer makes a layer of a Windows image of plain entries.
type plainLayer struct {
	below *ntMerge // what the layers below add up to
	to    rootfs.Emit
}

// belowOf adds the layers up that a new one comes on top of.
func belowOf(ctx context.Context, s Side) (*ntMerge, error) {
	if s.Image == nil {
		return newNTMerge(), nil
	}
	return mergeNT(ctx, blobs(s.Source, s.Image), Reading{s.Limits, s.Strict, s.Warn})
}

// write writes what walk emits. Names that the layers below have are spelled as
// they do.
func (p plainLayer) write(walk func(rootfs.Emit) error) error {
	var (
		content io.Reader
		failed  error
	)
	entries := func(yield func(*layer.Entry, error) bool) {
		failed = walk(func(e *layer.Entry, r io.Reader) error {
			own := *e
			own.Name, content = p.below.spell(e.Name), r
			if e.Kind == layer.Hardlink {
				own.Link = p.below.spell(e.Link)
			}
			if !yield(&own, nil) {
				return errEnough
			}
			return nil
		})
		if failed != nil && !errors.Is(failed, errEnough) {
			yield(nil, failed)
		}
	}
	t := layer.WindowsTree{Lower: p.below.lower}
	for e, err := range t.Entries(iter.Seq2[*layer.Entry, error](entries)) {
		if err == nil {
			err = p.to(e, content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lower returns the entry of a directory, by its name in layers; nil if there
// is none.
func (m *ntMerge) lower(name string) *layer.Entry {
	n := m.find(name)
	if n == nil || n.entry == nil || n.children == nil {
		return nil
	}
	e := *n.entry
	return &e
}

// spell returns a name below Files as the layers spell it, as far as they have
// it.
func (m *ntMerge) spell(name string) string {
	if name == "." {
		return name
	}
	n, parts := m.find(string(layer.FilesPart)), strings.Split(name, "/")
	for i, part := range parts {
		if n = n.find(ntfs.Upcase(part)); n == nil {
			break
		}
		parts[i] = n.name
	}
	return path.Join(parts...)
}

// insertNT writes an insertion as a layer of a Windows image.
func (in Insertion) insertNT(ctx context.Context, w *layer.Writer, below *ntMerge) error {
	target := below.spell(cleanNT(in.Target))
	p := plainLayer{below, toLayerNT(w, in.SourceDate)}
	return p.write(func(emit rootfs.Emit) error {
		switch in.Kind {
		case Whiteout:
			if target == "." {
				return invalid("the root cannot be removed")
			}
			return emit(&layer.Entry{Kind: layer.Whiteout, Name: target}, nil)
		case Replace: // Windows has no opaque directories
			dir := below.find(path.Join(string(layer.FilesPart), target))
			if dir == nil {
				break
			}
			for _, key := range sortedKeys(dir.children) {
				if err := emit(&layer.Entry{Kind: layer.Whiteout, Name: path.Join(target, dir.children[key].name)}, nil); err != nil {
					return err
				}
			}
		}
		return in.emit(ctx, target, emit)
	})
}
