package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// ntDiffer walks the upper directory of an NTScratch.
type ntDiffer struct {
	NTScratch
	ctx     context.Context // of the one call that the differ is for
	upper   *inroot.Root
	parents *ntStacked
	emit    Emit

	made  layer.Descriptors
	links map[objectID]*layer.Entry // the first name of files with several
	hives ntHiveDeltas
	name  string // of the current entry, for errors
}

// ntPlace is a directory of the upper directory.
type ntPlace struct {
	*inroot.Dir
	name   string // in the layer
	attrs  map[string]string
	below  *ntBelow // the directory of the layers below that has the name, whatever its case; nil if none has
	merged bool     // what is in below shows, unless something here has its name
	entry  *layer.Entry
}

const filesPart = string(layer.FilesPart)

func (d *ntDiffer) all() error { return d.named(d.tree) }

// named gives an error of f the name of the entry that it is about.
func (d *ntDiffer) named(f func() error) error {
	err := f()
	if err == nil || d.ctx.Err() != nil {
		return err
	}
	if _, ok := errors.AsType[*layer.EntryError](err); ok {
		return err
	}
	return &layer.EntryError{Op: "diff", Name: d.name, Err: err}
}

// tree walks everything.
func (d *ntDiffer) tree() error {
	d.name = filesPart
	below, err := d.parents.dir(filesPart)
	if err != nil {
		return err
	}
	top, err := d.upper.OpenDir(".")
	if err != nil {
		return errors.Join(err, below.close())
	}
	p := &ntPlace{Dir: top, name: filesPart, below: below, merged: true}
	if p.attrs, err = top.Self().Xattrs(); err == nil {
		err = d.top(p)
	}
	return errors.Join(err, top.Close(), below.close())
}

// top walks the root, which the layer has an entry for if anything changed.
func (d *ntDiffer) top(p *ntPlace) error {
	names, err := p.Names()
	if err != nil {
		return err
	}
	if len(slices.DeleteFunc(names, isRecycleBin)) == 0 {
		same, err := d.sameTop(p)
		if err != nil || same {
			return err
		}
	}
	if err := d.dir(p, nil); err != nil {
		return err
	}
	return d.hives.emit(d, p.entry)
}

// sameTop reports whether the root's metadata is that of the layers below.
func (d *ntDiffer) sameTop(p *ntPlace) (bool, error) {
	if p.below == nil {
		return true, nil
	}
	below, err := p.below.dirs[0].Self().Xattrs()
	return p.attrs[d.parents.attr] == "" || p.attrs[d.parents.attr] == below[d.parents.attr], err
}

func isRecycleBin(name string) bool { return ntfs.EqualFold(name, "$Recycle.Bin") }

// dir emits a directory and everything below it. above is the descriptor of the directory that it is in.
func (d *ntDiffer) dir(p *ntPlace, above []byte) error {
	fit, err := d.place(p, above)
	if err != nil || !fit {
		return err
	}
	objects, gone, err := d.judge(p)
	if err != nil {
		return err
	}
	for _, last := range gone {
		if err := d.whiteout(path.Join(p.name, last)); err != nil {
			return err
		}
	}
	for i := range objects {
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		if err := d.object(p, &objects[i]); err != nil {
			return err
		}
	}
	return nil
}

// place emits a directory, if a Windows layer can hold it, which is reported.
func (d *ntDiffer) place(p *ntPlace, above []byte) (bool, error) {
	if err := checkMarks(d.parents.marks, p.attrs); err != nil {
		return false, err
	}
	e := ntEntry(p.name, p.Stat())
	if err := d.describeDir(e, p, above); err != nil {
		return false, err
	}
	if fit, err := d.send(e, nil); err != nil || !fit {
		return fit, err
	}
	p.entry = e
	return true, d.streams(e, p.attrs)
}

// ntChange is an object of the upper directory.
type ntChange struct {
	last  string
	st    sys.Stat
	below string // how the layers below spell the name; "" if they have none of it
}

// judge returns what the directory has and which names of the layers below are gone.
func (d *ntDiffer) judge(p *ntPlace) (objects []ntChange, gone []string, err error) {
	names, err := p.Names()
	if err != nil {
		return nil, nil, err
	}
	known, removed := make(map[string]string), make(map[string]struct{})
	for _, last := range names {
		d.name = path.Join(p.name, last)
		if d.Mask != nil && d.Mask(strings.TrimPrefix(d.name, filesPart+"/")) {
			continue
		}
		st, err := p.Lstat(last)
		if err != nil {
			return nil, nil, err
		}
		is, err := d.isWhiteout(p.Dir, last, &st)
		switch {
		case err != nil:
			return nil, nil, err
		case is:
			removed[last] = struct{}{}
			continue
		case p.name == filesPart && isRecycleBin(last):
			continue
		}
		if other, ok := known[ntfs.Upcase(last)]; ok {
			return nil, nil, twoCases(other)
		}
		known[ntfs.Upcase(last)] = last
		objects = append(objects, ntChange{last: last, st: st})
	}
	for i := range objects {
		if err := d.meet(p, &objects[i], removed); err != nil {
			return nil, nil, err
		}
	}
	gone, err = d.gone(p, known, removed)
	return objects, gone, err
}

func twoCases(other string) error {
	return fmt.Errorf("%q differs from it in case alone, which Windows does not tell apart: %w", other, errdefs.ErrInvalidArgument)
}

// meet finds what the layers below have in the place of an object.
func (d *ntDiffer) meet(p *ntPlace, o *ntChange, removed map[string]struct{}) (err error) {
	d.name = path.Join(p.name, o.last)
	if o.below, err = p.below.spell(o.last); err != nil || o.below == "" || o.below == o.last || !p.merged {
		return err
	}
	if _, is := removed[o.below]; !is {
		return twoCases(o.below)
	}
	return nil
}

// gone returns the names of the layers below that no longer show, and that nothing takes the place of.
func (d *ntDiffer) gone(p *ntPlace, known map[string]string, removed map[string]struct{}) (gone []string, err error) {
	d.name = p.name
	if p.merged && len(removed) == 0 {
		return nil, nil
	}
	below, err := p.below.all()
	for _, last := range below {
		_, hidden := removed[last]
		if _, taken := known[ntfs.Upcase(last)]; !taken && (hidden || !p.merged) {
			gone = append(gone, last)
		}
	}
	return gone, err
}

// isWhiteout reports whether last is one, in either of overlayfs's two forms: the second is an empty file with an attribute,
// as containers make them that run overlayfs themselves (Linux 6.7).
func (d *ntDiffer) isWhiteout(dir *inroot.Dir, last string, st *sys.Stat) (bool, error) {
	if st.IsWhiteout() || !st.IsRegular() || st.Size > 0 {
		return st.IsWhiteout(), nil
	}
	attrs, err := dir.Xattrs(last)
	_, is := attrs[d.parents.marks+"whiteout"]
	return is, err
}

func (d *ntDiffer) object(p *ntPlace, o *ntChange) error {
	d.name = path.Join(p.name, o.last)
	switch o.st.Type() {
	case sys.ModeDir:
		return inDir(p.Dir, o.last, func(dir *inroot.Dir) error { return d.enter(p, o, dir) })
	case sys.ModeRegular:
		if first, known := d.links[idOf(&o.st)]; known && d.Links == KeepLinks {
			return d.hardlink(first)
		}
		return d.file(p, o)
	case sys.ModeSymlink:
		return d.symlink(p, o)
	}
	if err := d.unfit(fmt.Errorf("%s is nothing that Windows has: %w", manifestTypes[o.st.Type()], errdefs.ErrInvalidArgument)); err != nil {
		return err
	}
	return d.hide(p, o)
}

// hide removes what the layers below have in the place of an object that was left out.
func (d *ntDiffer) hide(p *ntPlace, o *ntChange) error {
	if o.below == "" {
		return nil
	}
	return d.whiteout(path.Join(p.name, o.below))
}

func (d *ntDiffer) whiteout(name string) error {
	return d.emit(&layer.Entry{Name: name, Kind: layer.Whiteout, NT: new(ntfs.Meta)}, nil)
}

// enter walks a directory in p.
func (d *ntDiffer) enter(p *ntPlace, o *ntChange, dir *inroot.Dir) (err error) {
	sub := &ntPlace{Dir: dir, name: d.name}
	if sub.attrs, err = dir.Self().Xattrs(); err != nil {
		return err
	}
	if o.below != "" {
		if sub.below, err = p.below.enter(o.below); err != nil {
			return err
		}
	}
	sub.merged = p.merged && o.below == o.last && sub.attrs[d.parents.marks+"opaque"] != "y"
	return errors.Join(d.dir(sub, p.entry.NT.SecurityDescriptor), sub.below.close())
}

func (d *ntDiffer) file(p *ntPlace, o *ntChange) (err error) {
	file, err := p.Open(o.last)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	st, err := sys.StatFD(int(file.Fd())) // its size now
	if err != nil {
		return err
	}
	attrs, err := inroot.Borrow(int(file.Fd())).Xattrs()
	if err != nil {
		return err
	}
	if err := checkMarks(d.parents.marks, attrs); err != nil {
		return err
	}
	if taken, err := d.hives.take(d, &st); err != nil || taken {
		return err
	}
	e := ntEntry(d.name, &st)
	if err := d.describe(e, attrs, p, o); err != nil {
		return err
	}
	fit, err := d.send(e, io.NewSectionReader(file, 0, st.Size))
	if err != nil || !fit {
		return err
	}
	if st.Nlink > 1 {
		d.links[idOf(&st)] = e
	}
	return d.streams(e, attrs)
}

// hardlink emits another name of a file, as Windows' exporter does: it tells no descriptor.
func (d *ntDiffer) hardlink(first *layer.Entry) error {
	_, err := d.send(&layer.Entry{
		Name: d.name, Kind: layer.Hardlink, Link: first.Name,
		ModTime: first.ModTime, AccessTime: first.AccessTime, ChangeTime: first.ChangeTime,
		NT: &ntfs.Meta{Attributes: first.NT.Attributes, CreationTime: first.NT.CreationTime},
	}, nil)
	return err
}

func (d *ntDiffer) symlink(p *ntPlace, o *ntChange) error {
	attrs, err := p.Xattrs(o.last)
	if err != nil {
		return err
	}
	e := ntEntry(d.name, &o.st)
	if err := d.describe(e, attrs, p, o); err != nil {
		return err
	}
	fit, err := d.send(e, nil)
	if err != nil {
		return err
	}
	if !fit {
		return d.hide(p, o)
	}
	return d.streams(e, attrs)
}

// streams emits the alternate streams of what was emitted last.
func (d *ntDiffer) streams(e *layer.Entry, attrs map[string]string) error {
	if len(e.NT.Streams) == 0 {
		return nil
	}
	return alternateStreams([]byte(attrs[d.parents.attr]), spillsOf(d.parents.roots...), func(s ntfs.Stream, content io.Reader) error {
		_, err := d.send(&layer.Entry{
			Name: e.Name, Kind: layer.Stream, Stream: s.Name, Size: s.Size,
			ModTime: e.ModTime, AccessTime: e.AccessTime, ChangeTime: e.ChangeTime, NT: new(ntfs.Meta),
		}, content)
		return err
	})
}

// send emits an entry if a Windows layer can hold it, which is reported.
func (d *ntDiffer) send(e *layer.Entry, content io.Reader) (bool, error) {
	if err := layer.CheckNT(e); err != nil {
		return false, d.unfit(err)
	}
	return true, d.emit(e, content)
}

// unfit says what becomes of the current object, which no Windows layer can hold.
func (d *ntDiffer) unfit(err error) error {
	err = &layer.EntryError{Op: "diff", Name: d.name, Err: err}
	if d.Unfit == RefuseUnfit {
		return err
	}
	if d.Warn != nil {
		d.Warn(err)
	}
	return nil
}
