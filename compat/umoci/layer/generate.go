package layer

import (
	"context"
	"errors"
	"io"

	"github.com/vbatts/go-mtree"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// GenerateLayer makes a layer of what has changed in the tree at path: deltas,
// as mtree.Compare and mtree.Check return them. The reader gives the
// uncompressed tar stream, and the errors that there are on the way.
func GenerateLayer(path string, deltas []mtree.InodeDelta, opt *RepackOptions) (io.ReadCloser, error) {
	changes := make([]rootfs.Change, 0, len(deltas))
	for _, d := range deltas {
		c := rootfs.Change{Name: bundle.CleanName(d.Path())}
		switch d.Type() {
		case mtree.Missing:
			c.Kind = rootfs.Deleted
		case mtree.Extra:
			c.Kind = rootfs.Added
		case mtree.Modified:
			c.Kind = rootfs.Modified
		default:
			continue
		}
		changes = append(changes, c)
	}
	o := filled(opt)
	return stream(func(w *layer.Writer) error {
		return bundle.WriteChanges(context.Background(), w, path, changes, o)
	}), nil
}

// GenerateInsertLayer makes a layer that puts the file or directory root at
// target, or, if root is empty, one that removes target. If opaque is set
// nothing of what target, a directory, held before is left.
func GenerateInsertLayer(root, target string, opaque bool, opt *RepackOptions) io.ReadCloser {
	o := filled(opt)
	in := bundle.Insertion{Source: root, Target: target, Mappings: o.Mappings, SourceDate: o.SourceDate}
	switch {
	case root == "":
		in.Kind = bundle.Whiteout
	case opaque:
		in.Kind = bundle.Replace
	}
	return stream(func(w *layer.Writer) error { return in.Write(context.Background(), w) })
}

func filled(opt *RepackOptions) bundle.WriteOptions {
	if opt == nil {
		return bundle.WriteOptions{}
	}
	f := formatOf(opt.OnDiskFormat)
	o := bundle.WriteOptions{Mappings: f.Map().mappings(), SourceDate: opt.SourceDateEpoch}
	o.Format, o.UserXattr = f.format()
	return o
}

// stream returns what write writes while it is read. Closing it early ends
// write.
func stream(write func(*layer.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		t := layer.NewWriter(w)
		err := write(t)
		if err == nil {
			err = t.Close()
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // to the reader it would mean that all is well
		}
		_ = w.CloseWithError(err) // which never fails
	}()
	return r
}
