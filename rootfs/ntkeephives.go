package rootfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// KeepHives copies the registry hives that the tree of a base layer has, and that may be written to there, to Hives/*_Base
// of its layer directory, where OpenHive and EmitChanges look for them as they were. Copies of before are replaced. After an
// error some may be.
func (t NTTree) KeepHives() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep registry hives of %s: %w", t.Files, err)
		}
	}()
	k := hiveKeeper{dir: t.Layer}
	if k.files, err = inroot.Open(t.Files); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.files.Close()) }()
	if k.layer, err = inroot.Open(t.Layer); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.layer.Close()) }()
	record, err := readNTRecord(k.layer)
	if err != nil {
		return err
	}
	k.attr = ntAttrName(record.UserXattr)
	for _, name := range HiveNames() {
		if err := k.keep(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

type hiveKeeper struct {
	dir   string // of the layer
	layer *inroot.Root
	files *inroot.Root
	attr  string // of Windows' metadata
}

func (k *hiveKeeper) keep(name HiveName) (err error) {
	from, err := findFile(k.files, strings.TrimPrefix(name.File(), filesDir+"/"))
	if err != nil || from == "" {
		return err
	}
	if err := k.makeDir(path.Dir(name.Base())); err != nil {
		return err
	}
	source, err := openContent(k.files, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	temp := name.Base() + ".new"
	if err := k.layer.RemoveAll(temp); err != nil {
		return err
	}
	file, err := k.layer.Create(temp, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, source)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, k.layer.Remove(temp))
	}
	return k.layer.Rename(temp, name.Base())
}

// makeDir makes the directory for hives unless the layer has brought it.
func (k *hiveKeeper) makeDir(name string) error {
	if _, err := k.layer.Lstat(name); !isMissing(err) {
		return err
	}
	top, err := k.files.OpenDir(".")
	if err != nil {
		return err
	}
	attrs, err := top.Self().Xattrs()
	e := ntEntry(name, top.Stat())
	if err := errors.Join(err, top.Close()); err != nil {
		return err
	}
	if err := parseNTMeta([]byte(attrs[k.attr]), e, spillsOf(k.layer)); err != nil {
		return err
	}
	e.NT = &ntfs.Meta{Attributes: ntfs.AttrDirectory, SecurityDescriptor: e.NT.SecurityDescriptor}
	value, err := appendNTMeta(nil, e, func(b []byte) ([sha256.Size]byte, error) {
		return spillTo(filepath.Join(k.dir, ntSpill), func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	})
	if err != nil {
		return err
	}
	e.Kind, e.Xattrs = layer.Dir, map[string]string{k.attr: string(value)}
	dir, err := k.layer.MkdirAll(name, 0o755)
	if err != nil {
		return err
	}
	return finishAdded(dir.Self(), e, 0o755)
}
