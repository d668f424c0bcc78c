package rootfs

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
)

// ntHiveDeltas are the changes of registry hives that a walk came to.
type ntHiveDeltas struct {
	told   map[HiveName]bool // of which the files are no entries
	deltas []*ntHiveDelta
}

type ntHiveDelta struct {
	name    string
	data    []byte
	written time.Time
}

// hiveOf returns the hive that a file of a layer is or, if log is set, keeps a log of.
func hiveOf(name string) (hive HiveName, log, ok bool) {
	for _, hive := range HiveNames() {
		switch file := hive.File(); {
		case ntfs.EqualFold(name, file):
			return hive, false, true
		case slices.ContainsFunc([]string{".LOG", ".LOG1", ".LOG2"}, func(s string) bool { return ntfs.EqualFold(name, file+s) }):
			return hive, true, true
		}
	}
	return "", false, false
}

// take makes the delta of a hive that was changed, and reports whether the current file, a hive or its log, is thereby told.
// It is not if the layers below have no such hive, or one of the two is no hive: then the file is like any other.
func (h *ntHiveDeltas) take(d *ntDiffer, st *sys.Stat) (bool, error) {
	name, log, ok := hiveOf(d.name)
	if !ok || log || h.told[name] {
		return ok && h.told[name], nil
	}
	delta, err := d.hiveDelta(name)
	if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if h.told == nil {
		h.told = make(map[HiveName]bool)
	}
	h.told[name] = true
	if delta != nil {
		h.deltas = append(h.deltas, &ntHiveDelta{name.Delta(), delta, st.MTime})
	}
	return true, nil
}

// hiveDelta returns what the current file, a hive, changes in that of the layers below, and nil if nothing.
func (d *ntDiffer) hiveDelta(name HiveName) (delta []byte, err error) {
	lower, err := OpenHive(d.Parents, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lower.Close()) }()
	file := strings.TrimPrefix(d.name, filesPart+"/")
	upper, err := openWholeHive(d.upper, file, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, upper.Close()) }()
	tree, err := regf.Diff(lower.Hive, upper.Hive)
	if err != nil {
		return nil, badHive(file, err)
	}
	if tree.Same() {
		return nil, nil
	}
	if delta, err = tree.Bytes(); err != nil {
		return nil, badHive(file, err)
	}
	return delta, nil
}

// emit emits the directory Hives, which a layer must have, and the deltas. They have no metadata but the time of the last
// write, as Windows' own have none. The directory has the time of the last delta or, without any, of Files.
func (h *ntHiveDeltas) emit(d *ntDiffer, files *layer.Entry) error {
	dir := *files
	dir.Name, dir.NT = string(layer.HivesPart), new(ntfs.Meta)
	*dir.NT = *files.NT
	below, err := d.parents.dir(dir.Name)
	if err == nil && below != nil {
		var l *layer.Entry
		if l, err = below.entry(dir.Name); l != nil {
			dir.NT = l.NT
		}
		err = errors.Join(err, below.close())
	}
	if err != nil {
		return err
	}
	for i, x := range h.deltas {
		if i == 0 || x.written.After(dir.ModTime) {
			dir.ModTime, dir.AccessTime, dir.ChangeTime = x.written, x.written, x.written
		}
	}
	fitTimes(&dir)
	if err := d.emit(&dir, nil); err != nil {
		return err
	}
	slices.SortFunc(h.deltas, func(a, b *ntHiveDelta) int { return strings.Compare(a.name, b.name) })
	for _, x := range h.deltas {
		d.name = path.Clean(x.name)
		e := &layer.Entry{
			Name: x.name, Size: int64(len(x.data)), ModTime: x.written, AccessTime: x.written, ChangeTime: x.written,
			NT: &ntfs.Meta{Attributes: ntfs.AttrArchive},
		}
		fitTimes(e)
		if err := d.emit(e, bytes.NewReader(x.data)); err != nil {
			return err
		}
	}
	return nil
}
