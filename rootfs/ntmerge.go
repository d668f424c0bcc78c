package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// mergeHives gives a new layer whole hives: those of its parents, changed by its deltas. As with Windows' own layers
// (hcsshim's internal/wclayer/cim/process.go), a hive that the layer has no delta of stays with its parents. So does one that
// no parent has: there is nothing to merge with.
func (s *ntSource) mergeHives(ctx context.Context) error {
	if len(s.parents) == 0 {
		return nil
	}
	for _, name := range HiveNames() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.mergeHive(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *ntSource) mergeHive(name HiveName) (err error) {
	found, err := findFile(s.root, name.Delta())
	if err != nil || found == "" {
		return err
	}
	stack := hiveStack{name: name, roots: s.parents, dirs: s.dirs}
	below, err := stack.open()
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open registry hive %s of parents: %w", name, err)
	}
	defer func() { err = errors.Join(err, below.Close()) }()
	data, err := mergeDelta(s.root, name, below.Hive)
	if err != nil || data == nil {
		return err
	}
	st, err := s.root.Lstat(found)
	if err != nil {
		return err
	}
	file, err := s.names.spell(name.File())
	if err != nil {
		return err
	}
	e := &layer.Entry{
		Name: file, Kind: layer.File, NT: &ntfs.Meta{Attributes: ntfs.AttrArchive},
		ModTime: st.MTime, AccessTime: st.ATime, ChangeTime: st.MTime,
	}
	if err := s.metaOfParent(e); err != nil {
		return err
	}
	e.Name = name.Base()
	if err := s.addFile(e, data); err != nil {
		return err
	}
	return s.showHive(e.Name, file)
}

// metaOfParent gives an entry what Windows keeps of the nearest parent's file of its name, times aside.
func (s *ntSource) metaOfParent(e *layer.Entry) error {
	for _, root := range s.parents {
		from, gone, err := ntInfo(root, e.Name)
		if isMissing(err) { // the file, or a record of its metadata
			continue
		}
		if err == nil && !gone && from.Kind == e.Kind {
			e.NT = from.NT
		}
		return err
	}
	return nil
}

// showHive gives a whole hive a second name, where a system has it: a scratch layer on this layer is to change what all layers
// made of the hive. What the layer itself brings or removes there stays.
func (s *ntSource) showHive(base, file string) error {
	made, err := s.makeDirs(path.Dir(file))
	if err != nil || !made {
		return err
	}
	if _, err := s.root.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return keepTimes(s.root, path.Dir(file), func() error { return s.root.Link(base, file) })
}

// makeDirs makes a directory and those above it, which look as the parents' do. It is not made where the layer hides what
// parents have.
func (s *ntSource) makeDirs(name string) (bool, error) {
	if name == "." {
		return true, nil
	}
	if made, err := s.makeDirs(path.Dir(name)); err != nil || !made {
		return made, err
	}
	st, err := s.root.Lstat(name)
	switch {
	case err == nil && !st.IsDir():
		return false, nil
	case err == nil:
		opaque, err := isOpaque(s.root, name)
		return !opaque, err
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	e := &layer.Entry{Name: name, Kind: layer.Dir, NT: &ntfs.Meta{Attributes: ntfs.AttrDirectory}}
	if err := s.inherit(e); err != nil {
		return false, err
	}
	return true, keepTimes(s.root, path.Dir(name), func() error {
		dir, err := s.root.MkdirAll(name, 0o755)
		if err != nil {
			return err
		}
		return finishAdded(dir.Self(), e, 0o755)
	})
}

// addFile adds to the tree a file that the layer's stream does not have. The directory keeps its times.
func (s *ntSource) addFile(e *layer.Entry, content []byte) error {
	if err := s.describe(e); err != nil {
		return err
	}
	return keepTimes(s.root, path.Dir(e.Name), func() error {
		file, err := s.root.Create(e.Name, 0o644)
		if err != nil {
			return err
		}
		if _, err := file.Write(content); err != nil {
			return errors.Join(err, file.Close())
		}
		return finishAdded(file, e, 0o644)
	})
}

// finishAdded gives a new object its metadata and closes it.
func finishAdded(file *inroot.File, e *layer.Entry, mode uint32) error {
	err := file.Chmod(mode)
	for attr, value := range e.Xattrs {
		err = errors.Join(err, file.SetXattr(attr, value))
	}
	if err == nil {
		err = file.SetTimes(times(e))
	}
	return errors.Join(err, file.Close())
}

// keepTimes does something in a directory, which has its times again afterwards.
func keepTimes(root *inroot.Root, name string, do func() error) error {
	dir, err := root.OpenDir(name)
	if err != nil {
		return err
	}
	before := dir.Stat()
	err = do()
	if err == nil {
		err = dir.Self().SetTimes(before.ATime, before.MTime)
	}
	return errors.Join(err, dir.Close())
}
