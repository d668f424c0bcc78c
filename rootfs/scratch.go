package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

const (
	upperDir = "upper"
	workDir  = "work"
)

// Scratch is a scratch layer: what a container writes goes there.
type Scratch struct {
	store  *Store
	id     string
	dir    string
	layers []digest.Digest
	nt     bool // they are a Windows image's
}

// scratchRecord is what the store keeps about a scratch layer.
type scratchRecord struct {
	Layers []digest.Digest `json:"layers,omitempty"` // base first
	NT     bool            `json:"nt,omitempty"`     // they are a Windows image's: all of them, which are a chain
}

// ID returns the scratch layer's name in its store.
func (x *Scratch) ID() string { return x.id }

// Path returns the scratch layer's directory.
func (x *Scratch) Path() string { return x.dir }

// Upper returns the directory that takes what is written.
func (x *Scratch) Upper() string { return filepath.Join(x.dir, upperDir) }

// Work returns overlayfs's working directory.
func (x *Scratch) Work() string { return filepath.Join(x.dir, workDir) }

// Layers returns the diffIDs of the layers that the scratch layer was made for, base first.
func (x *Scratch) Layers() []digest.Digest { return x.layers }

// NT returns what was written on top of layers of a Windows image. The error is of class errdefs.ErrFailedPrecondition if the
// scratch layer stands on others.
func (x *Scratch) NT() (NTScratch, error) {
	n := NTScratch{Upper: x.Upper()}
	if !x.nt {
		return n, fmt.Errorf("scratch layer %s is on no layers of a Windows image: %w", x.id, errdefs.ErrFailedPrecondition)
	}
	top, err := x.store.LayerNT(ChainID(x.layers))
	if err != nil {
		return n, err
	}
	below, err := x.store.below(x.layers)
	n.Parents = append([]string{top.dir}, below...)
	return n, err
}

// CreateScratch makes an empty scratch layer on top of the layers, base first, which cannot be removed before it. Its root
// directory looks as theirs does. Layers of a Windows image are all of its from the base up. The error is of class errdefs.ErrAlreadyExists if the id is taken.
func (s *Store) CreateScratch(ctx context.Context, id string, layers ...*Layer) (*Scratch, error) {
	x, err := s.createScratch(ctx, id, layers)
	if err != nil {
		return nil, fmt.Errorf("create scratch layer %s: %w", id, err)
	}
	return x, nil
}

func (s *Store) createScratch(ctx context.Context, id string, layers []*Layer) (x *Scratch, err error) {
	lock, err := s.scratches.Lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if _, err := s.scratches.Get(id); !errors.Is(err, errdefs.ErrNotFound) {
		return nil, errors.Join(err, errdefs.ErrAlreadyExists)
	}
	x = &Scratch{store: s, id: id, dir: s.scratches.Dir(id)}
	for _, l := range layers {
		x.layers = append(x.layers, l.diffID)
		if x.nt = l.encoding == layer.NT; x.nt && l.id != ChainID(x.layers) {
			return nil, fmt.Errorf("layer %s is of a Windows image, and does not stand on those before it: %w", l.id, errdefs.ErrInvalidArgument)
		}
	}
	if err := x.make(ctx, layers); err != nil {
		return nil, errors.Join(err, x.clear())
	}
	return x, nil
}

// make makes the directories and then the record, from which on the scratch layer exists. Meanwhile no layer goes away.
func (x *Scratch) make(ctx context.Context, layers []*Layer) error {
	if err := x.clear(); err != nil { // what a killed process left
		return err
	}
	lock, err := x.store.locks.LockAllShared(ctx)
	if err != nil {
		return err
	}
	return errors.Join(x.makeOn(layers), lock.Unlock())
}

func (x *Scratch) makeOn(layers []*Layer) error {
	for _, l := range layers {
		if _, err := os.Stat(l.dir); err != nil {
			return fmt.Errorf("find layer %s: %w: %w", l.diffID, err, errdefs.ErrNotFound)
		}
	}
	for _, dir := range []string{x.dir, x.Upper(), x.Work()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := x.copyRoot(layers); err != nil {
		return err
	}
	return x.store.scratches.Put(x.id, scratchRecord{Layers: x.layers, NT: x.nt})
}

// copyRoot makes the upper directory, which is the container's root to look at, like the root of the topmost layer that
// says what it looks like.
func (x *Scratch) copyRoot(layers []*Layer) error {
	root, err := inroot.Open(x.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	for i := len(layers) - 1; i >= 0; i-- {
		if layers[i].record.Root || i == 0 || x.nt { // whose layers say so all
			return copyDirMetadata(layers[i].Path(), root)
		}
	}
	return root.Chmod(upperDir, impliedMode)
}

func copyDirMetadata(from string, to *inroot.Root) error {
	source, err := inroot.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // read only
	dir, err := source.OpenDir(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // read only
	upper, err := to.OpenDir(upperDir)
	if err != nil {
		return err
	}
	return errors.Join(copyMetadata(dir, upper.Self()), upper.Close())
}

func copyMetadata(from *inroot.Dir, to *inroot.File) error {
	st := from.Stat()
	if st.UID != uint32(os.Geteuid()) || st.GID != uint32(os.Getegid()) {
		if err := to.Chown(st.UID, st.GID); err != nil {
			return err
		}
	}
	if err := to.Chmod(st.Mode & sys.ModePerm); err != nil {
		return err
	}
	attrs, err := from.Self().Xattrs()
	if err != nil {
		return err
	}
	for attr, value := range attrs {
		if isHostXattr(attr) {
			continue
		}
		if err := to.SetXattr(attr, value); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", attr, err)
		}
	}
	return to.SetTimes(st.ATime, st.MTime)
}

// OpenScratch returns a scratch layer. The error is of class errdefs.ErrNotFound if there is none of that id.
func (s *Store) OpenScratch(id string) (*Scratch, error) {
	record, err := s.scratches.Get(id)
	if err != nil {
		return nil, fmt.Errorf("open scratch layer: %w", err)
	}
	return s.scratch(id, record), nil
}

// Scratches returns all scratch layers by id. One that is damaged does not hide the others: it is in the error.
func (s *Store) Scratches() ([]*Scratch, error) {
	objects, err := s.scratches.List()
	var all []*Scratch
	for _, o := range objects {
		all = append(all, s.scratch(o.ID, o.Record))
	}
	if err != nil {
		return all, fmt.Errorf("list scratch layers: %w", err)
	}
	return all, nil
}

func (s *Store) scratch(id string, record scratchRecord) *Scratch {
	return &Scratch{store: s, id: id, dir: s.scratches.Dir(id), layers: record.Layers, nt: record.NT}
}

// Remove removes the scratch layer and what was written into it. It must not be mounted. Removing it again is no error.
func (x *Scratch) Remove() error {
	// Nobody holds this lock for long, so there is nothing to cancel.
	lock, err := x.store.scratches.Lock(context.Background(), x.id)
	if err == nil {
		err = errors.Join(x.clear(), lock.Unlock())
	}
	if err != nil {
		return fmt.Errorf("remove scratch layer %s: %w", x.id, err)
	}
	return nil
}

// clear removes the directories, and the record last: as long as it is there, the scratch layer can be removed by its id.
func (x *Scratch) clear() error {
	root, err := inroot.Open(x.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = errors.Join(root.RemoveAll(upperDir), root.RemoveAll(workDir), root.Close())
	if err != nil {
		return err
	}
	if err := x.store.scratches.Delete(x.id); !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

// pruneScratches removes scratch layers that never got their record.
func (s *Store) pruneScratches(ctx context.Context, report *PruneReport) error {
	orphans, err := s.scratches.Prune()
	failed := []error{err}
	for _, id := range orphans {
		if ctx.Err() != nil {
			return errors.Join(append(failed, context.Cause(ctx))...)
		}
		removed, err := s.pruneScratch(id)
		if removed {
			report.Scratches = append(report.Scratches, id)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func (s *Store) pruneScratch(id string) (removed bool, err error) {
	lock, err := s.scratches.TryLock(id)
	if errors.Is(err, errdefs.ErrUnavailable) {
		return false, nil // being made right now
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if _, err := s.scratches.Get(id); !errors.Is(err, errdefs.ErrNotFound) {
		return false, err // made meanwhile
	}
	if err := s.scratch(id, scratchRecord{}).clear(); err != nil {
		return false, err
	}
	return true, nil
}

// Overlay says how to mount the layers, base first, with the scratch layer on top of them, on target. A nil scratch layer
// makes a read-only mount. The caller mounts it with sys.MountOverlay.
func (s *Store) Overlay(scratch *Scratch, target string, layers ...*Layer) sys.Overlay {
	o := sys.Overlay{Target: target, UserXattr: s.cfg.UserXattr}
	for i := len(layers) - 1; i >= 0; i-- {
		o.Lower = append(o.Lower, layers[i].Path())
		if layers[i].record.Opaque {
			break // it hides those below
		}
	}
	if scratch == nil && len(o.Lower) == 1 && layers[len(layers)-1].record.Whiteouts > 0 {
		// A single directory would be mounted as it is, whiteouts and all.
		o.Lower = append(o.Lower, filepath.Join(s.dir, emptyDir))
	}
	if scratch != nil {
		o.Upper, o.Work = scratch.Upper(), scratch.Work()
	}
	return o
}
