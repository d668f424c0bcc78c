package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
)

// What a Volume's directory holds. docs/formats/layer-directory.md tells more.
const (
	volumeFile  = "volume.json"
	volumeData  = "data"     // upper and work, of a volume without limit
	volumeImage = "data.xfs" // the same in a file system of its own
	volumeMount = "volume"   // where either is mounted while the volume is active
	volumeRoot  = "root"     // where the stacked tree is mounted while it is prepared
	volumeLocks = ".state"
)

// Errors of a Volume's methods that come at the wrong moment. They are of class errdefs.ErrFailedPrecondition.
var (
	// ErrNotActive says that the volume is not active.
	ErrNotActive = fmt.Errorf("the layer is not active: %w", errdefs.ErrFailedPrecondition)
	// ErrNotPrepared says that the volume is active and no tree is stacked on it.
	ErrNotPrepared = fmt.Errorf("the layer is not prepared: %w", errdefs.ErrFailedPrecondition)
	// ErrPrepared says that a tree is stacked on the volume.
	ErrPrepared = fmt.Errorf("the layer is prepared: %w", errdefs.ErrFailedPrecondition)
)

// Volume is a scratch layer that is named by its directory and put to use in two steps, as the Host Compute System does it:
// Activate makes reachable what it holds, Prepare stacks it on the layers below. What was done is known by the mounts: it
// holds for all processes, survives them, and is gone when the machine starts. Any number of processes may use one at once.
type Volume struct {
	dir string
}

// volumeRecord is the content of volume.json, which is there once the volume is complete.
type volumeRecord struct {
	Version int    `json:"version"`
	Size    uint64 `json:"size,omitempty"` // bytes of the image; 0 is without limit
}

// VolumeState says what a volume is ready for.
type VolumeState struct {
	Active   bool
	Prepared bool
	Size     uint64 // the limit in bytes, 0 if there is none
}

// CreateVolume makes an empty volume in dir, which may exist and be empty otherwise. If there is one, the error is of class
// errdefs.ErrAlreadyExists.
func CreateVolume(ctx context.Context, dir string) (*Volume, error) {
	v, err := newVolume(dir)
	if err == nil {
		err = os.MkdirAll(v.dir, 0o700)
	}
	if err == nil {
		err = v.lockedAnew(ctx, v.create)
	}
	if err != nil {
		return nil, fmt.Errorf("create volume %s: %w", dir, err)
	}
	return v, nil
}

// OpenVolume returns the volume in dir. The error is of class errdefs.ErrNotFound if there is none, and of class
// errdefs.ErrDataLoss if its record is damaged.
func OpenVolume(dir string) (*Volume, error) {
	v, err := newVolume(dir)
	if err == nil {
		_, err = v.record()
	}
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", dir, err)
	}
	return v, nil
}

func newVolume(dir string) (*Volume, error) {
	dir, err := filepath.Abs(dir)
	return &Volume{dir: dir}, err
}

func (v *Volume) path(name string) string { return filepath.Join(v.dir, name) }

// Root is where the stacked tree is while the volume is prepared. Before, it is an empty directory.
func (v *Volume) Root() string { return v.path(volumeRoot) }

// Upper is what was written into the stacked tree, as overlayfs keeps it. It is there while the volume is active.
func (v *Volume) Upper() string { return filepath.Join(v.path(volumeMount), upperDir) }

// locked runs f while nobody else changes the volume, which must exist: locking makes a directory in it.
func (v *Volume) locked(ctx context.Context, f func() error) error {
	if _, err := v.record(); err != nil {
		return err
	}
	err := v.lockedAnew(ctx, f)
	if _, rerr := v.record(); errdefs.IsNotFound(rerr) { // it was removed between the look and the lock, which made directories
		for _, dir := range []string{filepath.Join(v.path(volumeLocks), lockDir), v.path(volumeLocks), v.dir} {
			_ = os.Remove(dir) // unless there is something of another's by now
		}
	}
	return err
}

func (v *Volume) lockedAnew(ctx context.Context, f func() error) error {
	locks, err := state.Open[struct{}](state.Config{Dir: v.path(volumeLocks), Kind: "volume", Durability: state.Volatile})
	if err != nil {
		return err
	}
	lock, err := locks.Lock(ctx, volumeMount)
	if err != nil {
		return err
	}
	return errors.Join(f(), lock.Unlock())
}

func (v *Volume) record() (r volumeRecord, err error) {
	data, err := os.ReadFile(v.path(volumeFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	case err != nil:
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Version != 1 {
		return r, fmt.Errorf("%s is damaged: %w", volumeFile, errors.Join(errdefs.ErrDataLoss, err))
	}
	return r, nil
}

// put replaces the record.
func (v *Volume) put(r volumeRecord) error {
	r.Version = 1
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	temp := v.path("." + volumeFile)
	if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := syncFile(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, v.path(volumeFile)); err != nil {
		return err
	}
	return inDirectory(v.dir, sys.SyncFD)
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (v *Volume) create() error {
	if _, err := v.record(); !errors.Is(err, errdefs.ErrNotFound) {
		return errors.Join(err, errdefs.ErrAlreadyExists)
	}
	for _, name := range []string{volumeData, volumeMount, volumeRoot} {
		if err := os.MkdirAll(v.path(name), 0o700); err != nil {
			return err
		}
	}
	return v.put(volumeRecord{})
}

// State says what the volume is ready for.
func (v *Volume) State() (s VolumeState, err error) {
	r, err := v.record()
	if err == nil {
		s.Size = r.Size
		s.Active, err = sys.IsMountPoint(v.path(volumeMount))
	}
	if err == nil {
		s.Prepared, err = sys.IsMountPoint(v.path(volumeRoot))
	}
	if err != nil {
		return s, fmt.Errorf("look at volume %s: %w", v.dir, err)
	}
	return s, nil
}

// Activate makes reachable what the volume holds. If it is so already, there is nothing to do.
func (v *Volume) Activate(ctx context.Context) error {
	if err := v.locked(ctx, v.activate); err != nil {
		return fmt.Errorf("activate volume %s: %w", v.dir, err)
	}
	return nil
}

func (v *Volume) activate() error {
	s, err := v.State()
	if err != nil {
		return err
	}
	if !s.Active {
		if err := v.mount(s.Size); err != nil {
			return err
		}
	}
	for _, name := range []string{upperDir, workDir} {
		if err := os.MkdirAll(filepath.Join(v.path(volumeMount), name), 0o700); err != nil {
			return errors.Join(err, sys.Unmount(v.path(volumeMount)))
		}
	}
	return nil
}

func (v *Volume) mount(size uint64) error {
	target := v.path(volumeMount)
	if size == 0 {
		return sys.MountBind(v.path(volumeData), target)
	}
	if err := sys.MountImage(v.path(volumeImage), "xfs", target); err != nil {
		return err
	}
	if err := sys.GrowXFS(target); err != nil { // what Grow may not have come to
		return errors.Join(err, sys.Unmount(target))
	}
	return nil
}

// Prepare stacks the volume on the trees of the layers below, topmost first, as Root. If it is so already, there is nothing
// to do. The error is ErrNotActive if the volume is not active.
func (v *Volume) Prepare(ctx context.Context, lower []string) error {
	if err := v.locked(ctx, func() error { return v.prepare(lower, false) }); err != nil {
		return fmt.Errorf("prepare volume %s: %w", v.dir, err)
	}
	return nil
}

func (v *Volume) prepare(lower []string, user UserXattrs) error {
	s, err := v.State()
	switch {
	case err != nil:
		return err
	case !s.Active:
		return ErrNotActive
	case s.Prepared:
		return nil
	case len(lower) == 0:
		return fmt.Errorf("there is no layer below: %w", errdefs.ErrInvalidArgument)
	}
	resolved, err := resolvedPaths(lower)
	if err != nil {
		return err
	}
	if err := v.copyRoot(resolved[0]); err != nil {
		return fmt.Errorf("make its root look like that of %s: %w", resolved[0], err)
	}
	return sys.MountOverlay(sys.Overlay{
		Lower: resolved, Upper: v.Upper(), Work: filepath.Join(v.path(volumeMount), workDir), Target: v.Root(),
		UserXattr: bool(user),
	})
}

// copyRoot makes the upper directory, which is the root to look at, like that of the layer below while it is empty.
func (v *Volume) copyRoot(lower string) error {
	names, err := os.ReadDir(v.Upper())
	if err != nil || len(names) > 0 {
		return err
	}
	root, err := inroot.Open(v.path(volumeMount))
	if err != nil {
		return err
	}
	return errors.Join(copyDirMetadata(lower, root), root.Close())
}

// Unprepare takes the stacked tree away. Nobody may use it: otherwise the error is of class errdefs.ErrUnavailable. It is
// ErrNotActive or ErrNotPrepared if there is none.
func (v *Volume) Unprepare(ctx context.Context) error {
	if err := v.locked(ctx, v.unprepare); err != nil {
		return fmt.Errorf("unprepare volume %s: %w", v.dir, err)
	}
	return nil
}

func (v *Volume) unprepare() error {
	s, err := v.State()
	switch {
	case err != nil:
		return err
	case !s.Active && !s.Prepared:
		return ErrNotActive
	case !s.Prepared:
		return ErrNotPrepared
	}
	return sys.UnmountIdle(v.Root())
}

// Deactivate undoes Activate. If the volume is not active, there is nothing to do. The error is ErrPrepared if a tree is
// stacked on it, and of class errdefs.ErrUnavailable if somebody uses it.
func (v *Volume) Deactivate(ctx context.Context) error {
	if err := v.locked(ctx, v.deactivate); err != nil {
		return fmt.Errorf("deactivate volume %s: %w", v.dir, err)
	}
	return nil
}

func (v *Volume) deactivate() error {
	s, err := v.State()
	if err != nil || !s.Active {
		return err
	}
	if s.Prepared {
		return ErrPrepared
	}
	return sys.UnmountIdle(v.path(volumeMount))
}

// minVolume is the least that mkfs.xfs accepts, and a little.
const minVolume = 320 << 20

// Grow gives the volume room for size bytes at least; it may be in use. One without limit gets it so, and must then be empty
// and not active. A volume does not shrink: less than it has is no error and changes nothing.
func (v *Volume) Grow(ctx context.Context, size uint64) error {
	if err := v.locked(ctx, func() error { return v.grow(ctx, max(size, minVolume)) }); err != nil {
		return fmt.Errorf("grow volume %s to %d bytes: %w", v.dir, size, err)
	}
	return nil
}

func (v *Volume) grow(ctx context.Context, size uint64) error {
	const most = 1 << 60
	s, err := v.State()
	switch {
	case err != nil:
		return err
	case size > most:
		return fmt.Errorf("that is more than a file can hold: %w", errdefs.ErrOutOfRange)
	case size <= s.Size:
		return nil
	case s.Size == 0:
		return v.makeImage(ctx, s, size)
	}
	if err := os.Truncate(v.path(volumeImage), int64(size)); err != nil {
		return err
	}
	if s.Active {
		if err := sys.GrowXFS(v.path(volumeMount)); err != nil {
			return err
		}
	}
	return v.put(volumeRecord{Size: size})
}

// makeImage gives a volume its limit.
func (v *Volume) makeImage(ctx context.Context, s VolumeState, size uint64) error {
	if s.Active {
		return fmt.Errorf("the layer is active and has no limit yet: %w", errdefs.ErrFailedPrecondition)
	}
	if err := v.checkEmpty(); err != nil {
		return err
	}
	temp := v.path("." + volumeImage)
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(temp, int64(size)); err != nil { //nolint:gosec // judged by grow
		return errors.Join(err, os.Remove(temp))
	}
	if err := makeXFS(ctx, temp); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, v.path(volumeImage)); err != nil {
		return err
	}
	return v.put(volumeRecord{Size: size})
}

func makeXFS(ctx context.Context, name string) error {
	out, err := sys.Program(ctx, "mkfs.xfs", "-q", name).CombinedOutput()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("make a file system with mkfs.xfs, which is of xfsprogs: %w", err)
	if why := strings.Fields(string(out)); len(why) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.Join(why, " "))
	}
	return err
}

// checkEmpty returns an error if something was written into a volume without limit.
func (v *Volume) checkEmpty() error {
	names, err := os.ReadDir(filepath.Join(v.path(volumeData), upperDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("the layer has no limit and is not empty: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// CheckUnused returns an error of class errdefs.ErrUnavailable if the layer in dir, a volume or a tree in Files, is mounted.
func CheckUnused(dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	for _, name := range []string{volumeRoot, volumeMount} {
		mounted, err := sys.IsMountPoint(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, errdefs.ErrNotImplemented) {
			return err
		}
		if mounted {
			return fmt.Errorf("layer %s is active: %w", dir, errdefs.ErrUnavailable)
		}
	}
	lower, err := sys.OverlayLowers()
	if err != nil && !errors.Is(err, errdefs.ErrNotImplemented) {
		return err
	}
	if slices.Contains(lower, filepath.Join(dir, "Files")) {
		return fmt.Errorf("layer %s is below one that is mounted: %w", dir, errdefs.ErrUnavailable)
	}
	return nil
}

// RemoveUnused removes the layer in dir, a volume or any other, and the directory. If it is in use, that is an error of class
// errdefs.ErrUnavailable, and nothing is removed.
func RemoveUnused(ctx context.Context, dir string) error {
	remove := func() error {
		if err := CheckUnused(dir); err != nil {
			return err
		}
		// Without its record nobody activates a volume any more.
		if err := os.Remove(filepath.Join(dir, volumeFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.RemoveAll(dir)
	}
	v, err := OpenVolume(dir)
	switch {
	case err == nil:
		err = v.locked(ctx, remove)
	case errdefs.IsNotFound(err) || errdefs.IsDataLoss(err):
		err = (&Volume{dir: dir}).lockedBriefly(ctx, remove)
	}
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", dir, err)
	}
	return nil
}
