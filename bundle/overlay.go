package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/rootfs"
)

// An Overlay says of what a bundle's rootfs is mounted.
type Overlay struct {
	Store     string `json:"store"`                // the layer store with the layers and the scratch layer
	Scratch   string `json:"scratch"`              // the id of the scratch layer, which takes what is written
	UserXattr bool   `json:"user_xattr,omitempty"` // overlayfs's marks are in user.overlay.*
}

// Mount makes a bundle whose rootfs is an overlay mount of the image's layers,
// which are unpacked if the store does not have them. So the next bundle of
// the image costs no copying, and Repack looks only at what was written. The
// bundle must not be there yet; [Unmount] takes it away.
//
// The store is one that only mounted bundles use: a layer goes with the last
// bundle that has it. Of an image for Windows, rootfs is what drive C: holds, and
// the layers have the registry's hives as they were.
func Mount(ctx context.Context, src image.Source, img *image.Image, dir string, store rootfs.Config) error {
	if err := mount(ctx, src, img, dir, store); err != nil {
		return fmt.Errorf("mount image as bundle %s: %w", dir, err)
	}
	return nil
}

func mount(ctx context.Context, src image.Source, img *image.Image, dir string, place rootfs.Config) (err error) {
	if dir, err = realPlace(dir); err != nil {
		return err
	}
	over := &Overlay{Scratch: scratchID(dir), UserXattr: place.UserXattr}
	if over.Store, err = filepath.Abs(place.Dir); err != nil {
		return err
	}
	m := mounting{Overlay: over, place: place, src: src, img: img, dir: dir}
	return over.locked(ctx, exclusive, over.Scratch, func() error { return m.run(ctx) })
}

// mounting is what Mount does for one bundle.
type mounting struct {
	*Overlay
	place rootfs.Config
	src   image.Source
	img   *image.Image
	dir   string
	begun bool // there is something to undo
}

func (m *mounting) run(ctx context.Context) error {
	if err := checkFree(m.dir); err != nil {
		if meta, metaErr := ReadMeta(m.dir); metaErr == nil && meta.Overlay != nil {
			err = fmt.Errorf("%w: a bundle is mounted there, or was to be: unmount it first", err)
		}
		return err
	}
	err := m.locked(ctx, shared, layersLock, func() error { return m.stack(ctx) })
	if err == nil {
		err = replace(ctx, m.dir, []string{MetaName, ConfigName}, func(private string) error {
			return writeBundle(private, m.dir, m.img, m.meta())
		})
	}
	if err != nil && m.begun {
		err = errors.Join(err, m.undo(context.WithoutCancel(ctx), m.dir))
	}
	return err
}

func (m *mounting) meta() Meta {
	return Meta{Version: MetaVersion, From: From{Walk: walkOf(m.img)}, Overlay: m.Overlay}
}

// stack unpacks the layers and mounts them.
func (m *mounting) stack(ctx context.Context) error {
	store, err := rootfs.Open(m.place)
	if err != nil {
		return err
	}
	layers, err := unpackLayers(ctx, store, m.src, m.img)
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(m.dir, 0o700), os.Chmod(m.dir, 0o700)); err != nil {
		return err
	}
	// From here on Unmount knows what to undo, whenever this is killed.
	if err := replace(ctx, m.dir, []string{MetaName}, m.meta().write); err != nil {
		return err
	}
	m.begun = true
	return m.mount(ctx, store, layers, filepath.Join(m.dir, RootfsName))
}

// layersLock is held, shared, by those who unpack layers that no bundle has
// yet, and by who removes such.
const layersLock = "layers"

type lockMode bool

const (
	exclusive lockMode = false
	shared    lockMode = true
)

// locked calls f while nobody else mounts or unmounts the bundle, or does what
// else the lock is for.
func (o *Overlay) locked(ctx context.Context, mode lockMode, id string, f func() error) error {
	locks, err := state.Open[struct{}](state.Config{Dir: filepath.Join(o.Store, "mounts"), Kind: "bundle", Durability: state.Volatile})
	if err != nil {
		return err
	}
	take := locks.Lock
	if mode == shared {
		take = locks.LockShared
	}
	lock, err := take(ctx, id)
	if err != nil {
		return err
	}
	return errors.Join(f(), lock.Unlock())
}

// realPlace is where a bundle is, or is to be, whatever links lead there.
func realPlace(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	switch place, err := filepath.EvalSymlinks(dir); {
	case err == nil:
		return place, nil
	case !isMissing(err):
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if isMissing(err) {
		return dir, nil
	}
	return filepath.Join(parent, filepath.Base(dir)), err
}

// check returns an error unless it is the bundle in dir that the scratch layer
// was made for. What stands in a bundle may be anybody's: it must not name
// other bundles' layers, or containers'.
func (o *Overlay) check(dir string) error {
	place, err := realPlace(dir)
	if err != nil {
		return err
	}
	if o.Scratch != scratchID(place) {
		return &classed{errors.New("its scratch layer was made for a bundle elsewhere"), errdefs.ErrFailedPrecondition}
	}
	return nil
}

// scratchID is the name of a bundle's scratch layer: there is one for each
// directory.
func scratchID(dir string) string { return fmt.Sprintf("bundle-%x", sha256.Sum256([]byte(dir)))[:39] }

func (o *Overlay) open() (*rootfs.Store, error) {
	return rootfs.Open(rootfs.Config{Dir: o.Store, UserXattr: o.UserXattr})
}

func unpackLayers(ctx context.Context, store *rootfs.Store, src image.Source, img *image.Image) ([]*rootfs.Layer, error) {
	var layers []*rootfs.Layer
	ids := img.DiffIDs()
	for i, d := range img.Manifest.Layers {
		blob := func() (io.ReadCloser, error) { return src.Blob(ctx, d) }
		var l *rootfs.Layer
		var err error
		if isWindows(img) {
			l, err = store.UnpackNT(ctx, ids[:i+1], blob)
		} else {
			l, err = store.Unpack(ctx, ids[i], blob)
		}
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	if len(layers) == 0 {
		return nil, invalid("the image has no layers")
	}
	return layers, nil
}

func (o *Overlay) mount(ctx context.Context, store *rootfs.Store, layers []*rootfs.Layer, target string) error {
	scratch, err := store.CreateScratch(ctx, o.Scratch, layers...)
	if err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	return sys.MountOverlay(store.Overlay(scratch, target, layers...))
}

// Unmount takes a mounted bundle away, with all that was written into it and
// not repacked. The error is of class ErrFailedPrecondition if the bundle is
// no mounted one.
func Unmount(ctx context.Context, dir string) error {
	if err := unmount(ctx, dir); err != nil {
		return fmt.Errorf("unmount bundle %s: %w", dir, err)
	}
	return nil
}

func unmount(ctx context.Context, dir string) error {
	meta, err := readMounted(dir)
	if err != nil {
		return err
	}
	// The working directory may be in it, and lead nowhere then.
	place, err := realPlace(dir)
	if err != nil {
		return err
	}
	return meta.Overlay.locked(ctx, exclusive, meta.Overlay.Scratch, func() error {
		if _, err := readMounted(place); err != nil { // another call may have been first
			return err
		}
		return meta.Overlay.undo(ctx, place)
	})
}

// readMounted reads what stands in a mounted bundle.
func readMounted(dir string) (Meta, error) {
	meta, err := ReadMeta(dir)
	if err != nil {
		return meta, err
	}
	if meta.Overlay == nil {
		return meta, &classed{errors.New("it is not a mounted one"), errdefs.ErrFailedPrecondition}
	}
	return meta, meta.Overlay.check(dir)
}

// undo takes the bundle in dir away.
func (o *Overlay) undo(ctx context.Context, dir string) error {
	root := filepath.Join(dir, RootfsName)
	if err := sys.Unmount(root); err != nil {
		return err
	}
	// Were it still mounted this would fail, and nothing be lost.
	if err := os.Remove(root); err != nil && !isMissing(err) {
		return err
	}
	if err := o.locked(ctx, exclusive, layersLock, func() error { return o.remove(ctx) }); err != nil {
		return err
	}
	for _, name := range []string{ConfigName, MetaName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !isMissing(err) {
			return err
		}
	}
	replacing(dir).Sweep()
	_ = os.Remove(dir) // unless there is something else in it
	return nil
}

// remove removes the scratch layer, and the layers that no other bundle has.
func (o *Overlay) remove(ctx context.Context) error {
	store, err := o.open()
	if err != nil {
		return err
	}
	scratch, err := store.OpenScratch(o.Scratch)
	if err == nil {
		err = scratch.Remove()
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	_, err = store.Prune(ctx, func(digest.Digest) bool { return false })
	return err
}

// scratch is the layer that has what was written.
func (o *Overlay) scratch() (*rootfs.Scratch, error) {
	store, err := o.open()
	if err != nil {
		return nil, err
	}
	return store.OpenScratch(o.Scratch)
}

// upper is the directory that has what was written.
func (o *Overlay) upper() (string, error) {
	scratch, err := o.scratch()
	if err != nil {
		return "", err
	}
	return scratch.Upper(), nil
}

func (o *Overlay) changeOptions() rootfs.ChangeOptions {
	return rootfs.ChangeOptions{Format: rootfs.OverlayUpper, UserXattr: o.UserXattr}
}

// changes lists all that was written, and the root, which is there in any case.
func (o *Overlay) changes(ctx context.Context) ([]rootfs.Change, error) {
	upper, err := o.upper()
	if err != nil {
		return nil, err
	}
	var list []rootfs.Change
	err = filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil || d.Type()&fs.ModeSocket != 0 {
			return err
		}
		name, err := filepath.Rel(upper, p)
		list = append(list, rootfs.Change{Name: filepath.ToSlash(name), Kind: rootfs.Modified})
		return err
	})
	return list, err
}
