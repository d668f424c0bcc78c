package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// NTScratch is what was written into the stacked trees of Windows layers: the upper directory of an overlay mount of their
// Files. The mount may be gone; if it is there and in use, what changes meanwhile may be seen or not.
type NTScratch struct {
	Upper   string   // overlayfs's upper directory
	Parents []string // directories of the layers below, nearest first; at least one

	Links LinkPolicy
	Unfit UnfitPolicy
	Warn  func(error) // is told of every object that is left out; nil: nobody is

	// Mask, if not nil, says of a name below Files whether it is left out, as is all below it, as if nothing had been done
	// there.
	Mask func(name string) bool
}

// LinkPolicy says what becomes of a file's second and later names.
type LinkPolicy uint8

// What can become of them.
const (
	KeepLinks LinkPolicy = iota // they are hard links
	CopyLinks                   // they are files with the same content, for formats without links, as backup streams are
)

// UnfitPolicy says what becomes of objects that no Windows layer can hold: FIFOs, devices, sockets, names that Windows does
// not have, symbolic links that lead to such.
type UnfitPolicy uint8

// What can become of them.
const (
	RefuseUnfit UnfitPolicy = iota // an error of class errdefs.ErrInvalidArgument
	SkipUnfit                      // they are left out
)

// Diff reads the change as a Windows layer. It walks the upper directory alone, so the cost is that of the change; of the
// layers below it reads the names in directories that changed. If nothing changed there are no entries. Otherwise the
// directories above each change, Files and Hives are among them.
//
// emit gets the entries in the order of Windows' exporter: a directory, what is removed from it, then what is in it, names
// ascending. A file's content is an io.ReaderAt, too, and valid during the call. An error of emit ends the walk and is
// returned.
//
// What overlayfs copied up keeps Windows' metadata and alternate streams. What was made on Linux inherits a security
// descriptor from its directory; a file has the archive attribute, and is readonly if its mode lets nobody write; the
// target of a symbolic link gets backslashes. The hives in Windows\System32\config are not files of the layer, but, as
// far as they differ from the layers' merged ones, deltas in Hives.
//
// Names that differ in case alone, as Linux has them and Windows does not, are an error of class
// errdefs.ErrInvalidArgument, also where one of them is in a layer below; a file that got another case is none. The
// Recycle Bin is left out. A directory with a redirect and a file with its content elsewhere are errors of class
// errdefs.ErrFailedPrecondition, as for the function Diff.
func (s NTScratch) Diff(ctx context.Context, emit Emit) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("diff scratch layer %s: %w", s.Upper, err)
		}
	}()
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	d.emit = emit
	return d.all()
}

// Write writes the change to w as the tar stream of a Windows layer, as Diff reads it. Without any change it is empty.
func (s NTScratch) Write(ctx context.Context, w io.Writer) error {
	out := layer.NewWriter(w)
	if err := s.Diff(ctx, out.Write); err != nil {
		return err
	}
	return out.Close()
}

func (s NTScratch) open(ctx context.Context) (*ntDiffer, error) {
	if len(s.Parents) == 0 {
		return nil, fmt.Errorf("there are no layers below: %w", errdefs.ErrInvalidArgument)
	}
	parents, err := openStacked(s.Parents)
	if err != nil {
		return nil, err
	}
	upper, err := inroot.Open(s.Upper)
	if err != nil {
		return nil, errors.Join(err, parents.close())
	}
	return &ntDiffer{ctx: ctx, NTScratch: s, upper: upper, parents: parents, links: make(map[objectID]*layer.Entry)}, nil
}

func (d *ntDiffer) close() error { return errors.Join(d.upper.Close(), d.parents.close()) }
