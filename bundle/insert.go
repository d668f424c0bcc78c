package bundle

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"time"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// InsertKind says what an insertion does to what is there.
type InsertKind int

// What an insertion can do.
const (
	Merge    InsertKind = iota // the source comes on top
	Replace                    // what the target, a directory, held is gone
	Whiteout                   // the target is gone, and nothing comes in its place
)

// An Insertion is a file or directory that is to be in an image.
type Insertion struct {
	Kind       InsertKind
	Source     string // on this machine; none for Whiteout
	Target     string // in the image
	Mappings   Mappings
	SourceDate *time.Time // the latest time that anything gets, if not nil
}

// Insert adds a layer with the insertion to an edit. Symbolic links are
// inserted as such, the source itself too.
//
// In an image for Windows, which into says, the target is one of drive C:, with
// slashes or backslashes. Files inherit descriptors from the directories that
// they come into, and names that differ in case alone are one. What such an
// image cannot tell, devices for instance, is of class ErrInvalidArgument.
func Insert(ctx context.Context, into Side, e *image.Edit, c layer.Compression, in Insertion) (layer.Digests, error) {
	if layer.EncodingOf(e.Config.OS) == layer.POSIX {
		return e.AddLayer(ctx, c, func(w *layer.Writer) error { return in.Write(ctx, w) })
	}
	below, err := belowOf(ctx, into)
	if err != nil {
		return layer.Digests{}, fmt.Errorf("insert %q: %w", in.Target, err)
	}
	return e.AddLayer(ctx, c, func(w *layer.Writer) error {
		if err := in.insertNT(ctx, w, below); err != nil {
			return fmt.Errorf("insert %q: %w", in.Target, err)
		}
		return nil
	})
}

// Write writes the insertion's entries to a layer.
func (in Insertion) Write(ctx context.Context, w *layer.Writer) error {
	if err := in.write(ctx, w, clean(in.Target)); err != nil {
		return fmt.Errorf("insert %q: %w", in.Target, err)
	}
	return nil
}

func (in Insertion) write(ctx context.Context, w *layer.Writer, target string) error {
	emit := toLayer(w, in.SourceDate)
	switch in.Kind {
	case Whiteout:
		if target == "." {
			return invalid("the root cannot be removed")
		}
		return emit(&layer.Entry{Kind: layer.Whiteout, Name: target}, nil)
	case Replace:
		if err := emit(&layer.Entry{Kind: layer.Opaque, Name: target}, nil); err != nil {
			return err
		}
	}
	return in.emit(ctx, target, emit)
}

// emit reads the source as entries at the target.
func (in Insertion) emit(ctx context.Context, target string, emit rootfs.Emit) error {
	in.Source = filepath.Clean(in.Source)
	dir, list, err := in.objects(ctx)
	if err != nil {
		return err
	}
	rename := func(name string) string { return path.Join(target, name) }
	if dir != in.Source {
		rename = func(string) string { return target }
	}
	return rootfs.EmitChanges(ctx, dir, list, in.Mappings.changeOptions(), func(e *layer.Entry, content io.Reader) error {
		e.Name = rename(e.Name)
		if e.Kind == layer.Hardlink {
			e.Link = rename(e.Link)
		}
		return emit(e, content)
	})
}

// objects lists the source: a directory and what is below it, or the
// directory that the source is in and its name there.
func (in Insertion) objects(ctx context.Context) (dir string, list []rootfs.Change, err error) {
	err = filepath.WalkDir(in.Source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if d.Type()&fs.ModeSocket != 0 {
			return nil
		}
		if p == in.Source && !d.IsDir() {
			absolute, err := filepath.Abs(p)
			dir, list = filepath.Dir(absolute), []rootfs.Change{{Name: filepath.Base(absolute)}}
			return err
		}
		name, err := filepath.Rel(in.Source, p)
		dir, list = in.Source, append(list, rootfs.Change{Name: filepath.ToSlash(name)})
		return err
	})
	return dir, list, err
}
