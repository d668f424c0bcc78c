package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
	"github.com/hostcompute/hcs/rootfs"
)

// hollow are directories of the system's that have nothing in them which somebody keeps.
var hollow = []string{"/dev", "/proc", "/sys"}

// OpenTree opens the system's files. Of a running or paused system they are what its processes see, mounts included. Those
// of one that does not run are mounted for this process alone, with the files and directories of the host's and the disk images
// that the system is to see; a tmpfs is an empty directory that cannot be written to. Until the tree is closed the system cannot be started or deleted, which wait for it. The caller
// closes the tree.
func (s *System) OpenTree(ctx context.Context) (*rootfs.Tree, error) {
	for {
		t, err := s.liveTree(ctx)
		if !errdefs.IsFailedPrecondition(err) {
			return t, s.wrap("open the files of", err)
		}
		t, err = s.idleTree(ctx)
		if !errors.Is(err, errBusy) { // else it runs by now
			return t, s.wrap("open the files of", err)
		}
	}
}

// liveTree has the shim open the root of the first process: it knows which process that is.
func (s *System) liveTree(ctx context.Context) (*rootfs.Tree, error) {
	m, err := s.call(ctx, wire.Message{Type: wire.OpenRoot})
	if err != nil {
		return nil, err
	}
	if m.Type == wire.StatusReply {
		return nil, fault(errdefs.ErrFailedPrecondition, "it has stopped")
	}
	if len(m.Files) != 1 {
		wire.CloseFiles(m.Files)
		return nil, fault(errdefs.ErrUnavailable, "its shim gives %d directories for one", len(m.Files))
	}
	t, err := rootfs.AdoptTree(m.Files[0], hollow...)
	if ids := s.record.IDs; err == nil && !ids.isHost() {
		t.MapIDs(ids.First, ids.Size)
	}
	return t, err
}

// idleTree mounts the root of a system that does not run.
func (s *System) idleTree(ctx context.Context) (_ *rootfs.Tree, err error) {
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	answers, err := s.answers()
	if err == nil && answers {
		err = errBusy
	}
	if err == nil {
		_, err = s.rest() // it may be deleted
	}
	if err == nil {
		err = s.service.cleanUp(&s.record) // of a shim that died
	}
	if err != nil {
		return nil, err
	}
	t, err := s.stage()
	if err != nil {
		return nil, err
	}
	t.OnClose(lock.Unlock)
	return t, nil
}

// stage mounts the system's root over the record's directory, which nobody looks for there.
func (s *System) stage() (*rootfs.Tree, error) {
	root, err := s.root()
	if err == nil {
		err = forgetVolatile(root)
	}
	if err != nil {
		return nil, err
	}
	spec := &s.record.Spec
	binds, err := spec.binds()
	if err != nil {
		return nil, err
	}
	t, err := rootfs.OpenStage(rootfs.Stage{Dir: root.Dir, Binds: binds, Overlay: sys.Overlay{
		Lower: root.Lower, Upper: root.Upper, Work: root.Work, Target: s.dir(), ReadOnly: spec.ReadOnly, UserXattr: root.UserXattr,
	}})
	if err != nil {
		return nil, fmt.Errorf("mount them: %w", err)
	}
	return t, nil
}

// binds are what is mounted in the tree of a system that does not run. In the
// place of a tmpfs there is an empty directory that takes nothing: it would be
// gone when the system starts.
func (s *Spec) binds() ([]rootfs.Bind, error) {
	var list []rootfs.Bind
	for _, m := range s.Mounts {
		b := rootfs.Bind{Source: m.Source, Target: m.target()}
		if m.ReadOnly {
			b.Access = sys.ReadOnly
		}
		if m.Type == "tmpfs" {
			b.Source = ""
		}
		list = append(list, b)
	}
	for i := range s.Disks {
		d, err := s.Disks[i].wire("")
		if err != nil {
			return nil, err
		}
		list = append(list, rootfs.Bind{Target: s.Disks[i].target(), Image: &sys.Image{
			Path: d.Image, Type: d.Type, Size: d.Size, ReadOnly: d.ReadOnly,
		}})
	}
	return list, nil
}

// OpenBase opens the files that the system was made with, to be read. The caller closes the tree.
func (s *System) OpenBase(context.Context) (*rootfs.Tree, error) {
	layers, err := s.service.layers(&s.record.Spec)
	if err != nil {
		return nil, s.wrap("open the layers of", err)
	}
	o := s.service.cfg.Layers.Overlay(nil, s.dir(), layers...)
	if dir := s.record.Spec.RootDir; dir != "" {
		o.Lower = []string{dir}
	}
	t, err := rootfs.OpenStage(rootfs.Stage{Overlay: o})
	return t, s.wrap("open the layers of", err)
}
