package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
)

// What a base layer gets. Names, sizes and the content of layout are those of hcsshim's internal/wclayer/cim/process.go and
// computestorage/helpers.go.
const (
	hivesDir      = "Hives"
	blankBase     = "blank-base.vhdx" // an empty disk with an NTFS volume
	blankScratch  = "blank.vhdx"      // a differencing disk on it, which scratch layers get a copy of
	layoutFile    = "layout"
	layoutContent = "vhd-with-hives\n"
	blankSize     = 20 << 30
	blankBlock    = 1 << 20
)

// ProcessBaseLayer makes a base layer of the directory dir, which has a layer's files in Files: it adds what the layers and
// scratch layers above need of it.
//
//   - Hives/*_Base, the registry hives of HiveNames, are further names of those in Files/Windows/System32/config, which must be
//     there. An empty file is a hive without keys.
//   - blank-base.vhdx is a disk of 20 GiB with an empty NTFS volume, which takes 75 MiB, and blank.vhdx a differencing disk on
//     it. The volume is made by mkntfs of ntfs-3g.
//   - layout says that the hives are there. It comes last, but for a layer's record.
//
// Files that no layer brought become those of one: they get Windows' metadata, as layer.WindowsTree makes it up, and the layer
// has a stream, which what is put into the directory later is not in. Names that Windows does not have, and what it has no
// form for, are then errors of class errdefs.ErrInvalidArgument.
//
// All of it appears or nothing; what a killed call left, the next one makes good. Called again it does nothing, but what is
// missing is made again. Any number of calls may run at once. The error is of class errdefs.ErrNotFound if a hive is missing,
// and of class errdefs.ErrInvalidArgument if it is none; it names the file.
func ProcessBaseLayer(ctx context.Context, dir string) error {
	if err := processBaseLayer(ctx, dir); err != nil {
		return fmt.Errorf("process base layer %s: %w", dir, err)
	}
	return nil
}

func processBaseLayer(ctx context.Context, dir string) (err error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	b := &baseLayer{root: root}
	record, err := readNTRecord(root)
	plain := errors.Is(err, fs.ErrNotExist)
	if err != nil && !plain {
		return err
	}
	if !plain {
		b.attr = ntAttrName(record.UserXattr)
	}
	if err := b.checkHives(); err != nil {
		return err
	}
	a := additions{dir: dir, work: "base-layer", names: b.adds(plain), prepare: b.makeHivesDir}
	return a.add(ctx, func(tree string) error {
		if plain {
			var err error
			if b.attr, err = adoptPlain(ctx, dir, root, tree); err != nil {
				return err
			}
		}
		return b.fill(ctx, tree)
	})
}

// adds returns the names of what a base layer gets; plain is one that no layer brought.
func (b *baseLayer) adds(plain bool) (names []string) {
	for _, name := range HiveNames() {
		names = append(names, name.Base())
	}
	names = append(names, blankBase, blankScratch)
	if !plain {
		return append(names, layoutFile)
	}
	return append(names, ntSpill, ntEntries, layoutFile, ntRecord)
}

// baseLayer makes a directory a base layer.
type baseLayer struct {
	root *inroot.Root
	attr string // where Windows' metadata is; empty if files have none
}

// checkHives opens every hive.
func (b *baseLayer) checkHives() error {
	for _, name := range HiveNames() {
		found, err := findFile(b.root, name.File())
		if err == nil && found == "" {
			err = fmt.Errorf("find registry hive %s: %w", name.File(), errdefs.ErrNotFound)
		}
		if err != nil {
			return err
		}
		hive, err := openWholeHive(b.root, found, name.File())
		if err == nil {
			err = hive.Close()
		}
		if err != nil {
			return fmt.Errorf("open registry hive %s: %w", name, err)
		}
	}
	return nil
}

// fill makes in the directory tree all that the layer lacks. It may be the layer's own.
func (b *baseLayer) fill(ctx context.Context, tree string) (err error) {
	into, err := inroot.Open(tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, into.Close()) }()
	if err := b.makeHivesDir(into); err != nil {
		return err
	}
	if err := keepTimes(into, hivesDir, func() error { return b.linkHives(into) }); err != nil {
		return err
	}
	if err := makeBlankDisks(ctx, tree, blankBase, blankScratch, blankSize); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tree, layoutFile), []byte(layoutContent), 0o644) //nolint:gosec // no secret
}

func (b *baseLayer) linkHives(into *inroot.Root) error {
	for _, name := range HiveNames() {
		found, err := findFile(b.root, name.File())
		if err == nil {
			err = linkAcross(b.root, found, into, name.Base())
		}
		if err != nil {
			return fmt.Errorf("link %s: %w", name.Base(), err)
		}
	}
	return nil
}

// makeHivesDir makes the directory for hives in a layer directory unless it is there, with the times of the system's hive.
func (b *baseLayer) makeHivesDir(into *inroot.Root) error {
	if _, err := into.Lstat(hivesDir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	found, err := findFile(b.root, SystemHive.File())
	if err != nil {
		return err
	}
	st, err := b.root.Lstat(found)
	if err != nil {
		return err
	}
	e := &layer.Entry{
		Name: hivesDir, Kind: layer.Dir, NT: &ntfs.Meta{Attributes: ntfs.AttrDirectory},
		ModTime: st.MTime, AccessTime: st.ATime, ChangeTime: st.MTime,
	}
	if b.attr != "" {
		value, err := appendNTMeta(nil, e, nil) // too little to be spilled
		if err != nil {
			return err
		}
		e.Xattrs = map[string]string{b.attr: string(value)}
	}
	dir, err := into.MkdirAll(hivesDir, 0o755)
	if err != nil {
		return err
	}
	return finishAdded(dir.Self(), e, 0o755)
}

// makeBlankDisks makes an empty disk of size bytes with an NTFS volume, and a differencing one on it.
func makeBlankDisks(ctx context.Context, dir, base, scratch string, size int64) error {
	base, scratch = filepath.Join(dir, base), filepath.Join(dir, scratch)
	o := disk.Options{Format: disk.DynamicVHDX, Size: size, BlockSize: blankBlock}
	if err := disk.CreateNTFS(ctx, base, "", o, nil); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w: it comes with ntfs-3g: %w", err, errdefs.ErrNotImplemented)
		}
		return err
	}
	d, err := disk.CreateChild(scratch, base, disk.Options{BlockSize: blankBlock}, disk.FileOptions{})
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// additions are files that a layer's directory gets together: they are made in a private directory in it and then renamed.
type additions struct {
	dir     string
	work    string                         // what the private directory is named after
	names   []string                       // the last is there once all are
	prepare func(layer *inroot.Root) error // makes the directories that names are in
}

// add calls fill with a directory to make the files in, unless they are all there.
func (a *additions) add(ctx context.Context, fill func(tree string) error) (err error) {
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return err
	}
	w, err := newWorkplace(ctx, filepath.Join(dir, a.work))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if missing, err := a.missing(w.parent); err != nil || len(missing) == 0 {
		return err
	}
	_, err = w.fill(TreeOptions{}, func(*inroot.Root) (TreeStats, error) {
		err := fill(filepath.Join(w.dir, treeDir))
		if err == nil {
			err = inDirectory(w.dir, sys.SyncFS)
		}
		return TreeStats{}, err
	})
	if err != nil {
		return err
	}
	return a.publish(w)
}

func (a *additions) missing(root *inroot.Root) (names []string, err error) {
	for _, name := range a.names {
		_, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			names = append(names, name)
		} else if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// publish gives the files their places. If one does not get it, those that were not there before go.
func (a *additions) publish(w *workplace) (err error) {
	fresh, err := a.missing(w.parent)
	if err != nil {
		return err
	}
	if a.prepare != nil {
		if _, missing := w.parent.Lstat(hivesDir); errors.Is(missing, fs.ErrNotExist) {
			fresh = append(fresh, hivesDir)
		}
		err = a.prepare(w.parent)
	}
	for _, name := range a.names {
		if err != nil {
			break
		}
		err = keepTimes(w.parent, path.Dir(name), func() error { return w.parent.Rename(w.name+"/"+treeDir+"/"+name, name) })
	}
	if err == nil {
		err = inDirectory(w.dir, sys.SyncFS)
	}
	if err != nil {
		for _, name := range fresh {
			err = errors.Join(err, w.parent.RemoveAll(name))
		}
	}
	return err
}

// ConvertToBaseLayer makes a base layer of a directory that has files in Files, and maybe those of a utility VM in
// UtilityVM/Files, that no layer brought: registry hives that are missing are made, without keys, and then the layer and its
// utility VM are processed, whose boot configuration is looked at first. An imported layer must have the hives: as what was
// not in its stream they would be in no image.
func ConvertToBaseLayer(ctx context.Context, dir string) error {
	if err := convertToBaseLayer(ctx, dir); err != nil {
		return fmt.Errorf("convert %s to base layer: %w", dir, err)
	}
	return nil
}

func convertToBaseLayer(ctx context.Context, dir string) (err error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	switch st, err := root.Lstat("Files"); {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir():
		return fmt.Errorf("it has no directory Files: %w", errdefs.ErrNotFound)
	case err != nil:
		return err
	}
	vm, err := hasUtilityVM(root)
	if err == nil && vm {
		err = checkUtilityVM(dir) // before the work that would be for nothing
	}
	if err != nil {
		return err
	}
	made, err := makeMissingHives(root)
	if err == nil {
		err = ProcessBaseLayer(ctx, dir)
	}
	if err != nil {
		for _, name := range made {
			err = errors.Join(err, root.Remove(name))
		}
		return err
	}
	if !vm {
		return nil
	}
	return ProcessUtilityVM(ctx, filepath.Join(dir, utilityVM))
}

// checkUtilityVM looks whether the utility VM of the layer in dir can be processed.
func checkUtilityVM(dir string) error {
	root, err := inroot.Open(filepath.Join(dir, utilityVM))
	if err == nil {
		err = errors.Join(checkBootStore(root), root.Close())
	}
	if err != nil {
		return fmt.Errorf("look at utility VM: %w", err)
	}
	return nil
}

// makeMissingHives makes the hives that a directory lacks, and returns their names, after an error too.
func makeMissingHives(root *inroot.Root) (made []string, err error) {
	for _, name := range HiveNames() {
		found, err := findFile(root, name.File())
		if err != nil || found != "" {
			if err != nil {
				return made, err
			}
			continue
		}
		if _, err := root.Lstat(ntRecord); !errors.Is(err, fs.ErrNotExist) {
			return made, errors.Join(err, fmt.Errorf("the imported layer has no registry hive %s: %w", name.File(), errdefs.ErrNotFound))
		}
		spelled, err := newNTNames([]*inroot.Root{root}).spell(name.File())
		if err != nil {
			return made, err
		}
		if err := makeHive(root, spelled, name); err != nil {
			return made, fmt.Errorf("make registry hive %s: %w", name, err)
		}
		made = append(made, spelled)
	}
	return made, nil
}

func makeHive(root *inroot.Root, name string, hive HiveName) error {
	tree, err := regf.Minimal(string(hive), 0)
	if err != nil {
		return err
	}
	dir, err := root.MkdirAll(path.Dir(name), 0o755)
	if err != nil {
		return err
	}
	file, err := dir.Create(path.Base(name), 0o644)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	_, err = tree.WriteTo(file)
	return errors.Join(err, file.Close(), dir.Close())
}
