package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// UnpackOptions say how an image is unpacked. The zero value is right for
// root.
type UnpackOptions struct {
	Mappings Mappings
	// KeepDirlinks keeps a symbolic link to a directory where a layer has a
	// directory of that name.
	KeepDirlinks bool
	// Limits bound what each layer may cost.
	Limits layer.Limits
	// Writers is how many goroutines write files; 0 lets the program choose.
	Writers int
	// Progress, if not nil, is told when another part of a layer was read.
	Progress func(layer int, entries int64)
	// Strict and Warn are those of [Reading], for images for Windows.
	Strict bool
	Warn   func(layer int, w layer.Warning)
}

func (o UnpackOptions) tree() rootfs.TreeOptions {
	m := o.Mappings.WithDefaults()
	return rootfs.TreeOptions{
		UIDs: idMaps(m.UIDs), GIDs: idMaps(m.GIDs), Rootless: m.Rootless,
		KeepDirlinks: o.KeepDirlinks, Limits: o.Limits, Writers: o.Writers, Progress: o.Progress,
	}
}

func idMaps(list []specs.LinuxIDMapping) []rootfs.IDMap {
	var maps []rootfs.IDMap
	for _, m := range list {
		maps = append(maps, rootfs.IDMap{Container: m.ContainerID, Host: m.HostID, Size: m.Size})
	}
	return maps
}

// changeOptions are for trees that were unpacked with the mappings.
func (m Mappings) changeOptions() rootfs.ChangeOptions {
	m = m.WithDefaults()
	return rootfs.ChangeOptions{UIDs: idMaps(m.UIDs), GIDs: idMaps(m.GIDs), Rootless: m.Rootless}
}

// Unpack makes a bundle of an image of src. The bundle's directory, of mode
// 0700, may exist, but not config.json or rootfs in it: the error is then of
// class ErrAlreadyExists. The bundle is made in a private directory beside its
// place, or inside of it if it is there, and appears when it is complete; what
// a killed call left there the next one for the bundle removes.
//
// An image for Windows is unpacked as one layer: rootfs is what drive C: holds,
// with Windows' metadata in extended attributes, and beside it are Hives, with
// the registry's hives as they are when nothing has changed, and UtilityVM. The
// metadata needs root's rights, or else Mappings.Rootless, which ordinary users
// have without asking. Other mappings have nothing to map, and are of class
// ErrInvalidArgument.
func Unpack(ctx context.Context, src image.Source, img *image.Image, dir string, o UnpackOptions) error {
	if err := unpack(ctx, src, img, dir, o); err != nil {
		return fmt.Errorf("unpack image to bundle %s: %w", dir, err)
	}
	return nil
}

func unpack(ctx context.Context, src image.Source, img *image.Image, dir string, o UnpackOptions) error {
	if isWindows(img) {
		return unpackNT(ctx, src, img, dir, o)
	}
	o.Mappings = o.Mappings.WithDefaults()
	return stage(ctx, dir, func(stage string) error {
		err := writeFile(filepath.Join(stage, mtreeName(img.Descriptor)), func(w io.Writer) error {
			tree := o.tree()
			tree.Mtree = w
			_, err := rootfs.UnpackTree(ctx, filepath.Join(stage, RootfsName), blobs(src, img), tree)
			return err
		})
		if err != nil {
			return err
		}
		return writeBundle(stage, stage, img, Meta{Version: MetaVersion, From: From{Walk: walkOf(img)}, Map: o.Mappings})
	})
}

// walkOf is the way to an image's manifest, as umoci.json wants it.
func walkOf(img *image.Image) []v1.Descriptor {
	if len(img.Path) > 0 {
		return img.Path
	}
	return []v1.Descriptor{img.Descriptor}
}

func blobs(src image.Source, img *image.Image) []rootfs.LayerBlob {
	var list []rootfs.LayerBlob
	for i, d := range img.Manifest.Layers {
		list = append(list, rootfs.LayerBlob{
			DiffID: img.DiffIDs()[i], Digest: d.Digest, Size: d.Size,
			Open: func(ctx context.Context) (io.ReadCloser, error) { return src.Blob(ctx, d) },
		})
	}
	return list
}

// writeBundle writes to a private directory what is to stand beside dir's
// rootfs.
func writeBundle(private, dir string, img *image.Image, meta Meta) error {
	spec, err := RuntimeSpec(img.Config, SpecOptions{Rootfs: filepath.Join(dir, RootfsName), Mappings: meta.Map})
	if err != nil {
		return err
	}
	return errors.Join(meta.write(private), writeFile(filepath.Join(private, ConfigName), func(w io.Writer) error {
		return WriteSpec(w, spec)
	}))
}

// Names of the private directories in which bundles are made. Locks in the
// first keep two calls for one bundle apart; it goes with the last.
const (
	stagePrefix = ".hcs-bundle-"
	stageName   = "bundle"
)

// stage calls make with an empty private directory, and then moves what is in
// it to dir.
func stage(ctx context.Context, dir string, fill func(stage string) error) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := checkFree(dir); err != nil {
		return err
	}
	place := filepath.Join(filepath.Dir(dir), stagePrefix+filepath.Base(dir))
	if _, err := os.Stat(dir); err == nil {
		// It may be a mount, a link, somebody's working directory, or all that
		// the user may write to: nothing can be put in its place.
		place = filepath.Join(dir, stagePrefix+"of")
	}
	lock, err := lockStage(ctx, place)
	if err != nil {
		return err
	}
	work := filepath.Join(place, stageName)
	defer func() { err = errors.Join(err, os.RemoveAll(work), lock.Unlock(), removeStage(place)) }()
	if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o700), checkFree(dir)); err != nil {
		return err
	}
	if err := fill(work); err != nil {
		return err
	}
	return publish(work, dir)
}

// lockStage makes the directory and locks what is made in it.
func lockStage(ctx context.Context, place string) (*state.Lock, error) {
	const tries = 100
	for try := 1; ; try++ {
		lock, err := tryLockStage(ctx, place)
		// The one before may have removed the directory since it was made, or
		// since os.MkdirAll found it there.
		if !isMissing(err) && !errors.Is(err, fs.ErrExist) || try == tries {
			return lock, err
		}
	}
}

func tryLockStage(ctx context.Context, place string) (*state.Lock, error) {
	locks, err := state.Open[struct{}](state.Config{Dir: place, Kind: "bundle", Durability: state.Volatile})
	if err != nil {
		return nil, err
	}
	return locks.Lock(ctx, stageName)
}

// removeStage removes the directory unless somebody else is there by now, who
// then removes it.
func removeStage(place string) error {
	entries, err := os.ReadDir(place)
	if err != nil && !isMissing(err) {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			_ = os.Remove(filepath.Join(place, e.Name())) // if it is empty
		}
	}
	_ = os.Remove(place)
	return nil
}

// checkFree returns an error if there is a bundle in dir.
func checkFree(dir string) error {
	for _, name := range []string{ConfigName, RootfsName} {
		_, err := os.Lstat(filepath.Join(dir, name))
		switch {
		case err == nil:
			return exists("%s already exists in %s", name, dir)
		case !isMissing(err):
			return err
		}
	}
	return nil
}

// publish moves a bundle to its place: as a whole, if nothing is there, or
// part by part, config.json last.
func publish(work, dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return os.Rename(work, dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	parts, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range parts {
		if p.Name() != ConfigName {
			names = append(names, p.Name())
		}
	}
	for _, name := range append(names, ConfigName) {
		if err := movePart(filepath.Join(work, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// movePart renames a part of a bundle. Only root moves a directory that its
// mode protects, as an image may have it: its entry ".." changes.
func movePart(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	st, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.Chmod(from, st.Mode()|0o700); err != nil {
		return err
	}
	return errors.Join(os.Rename(from, to), os.Chmod(to, st.Mode()))
}
