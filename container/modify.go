package container

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/userns"
	"github.com/hostcompute/hcs/internal/wire"
)

// Change is what is to be different about a system. What it says nothing of
// stays. Targets are those of the Spec.
type Change struct {
	Resources ResourcesChange

	AddMounts     []Mount
	RemoveMounts  []string // targets
	AddDevices    []Device
	RemoveDevices []string // targets
	AddDisks      []Disk
	RemoveDisks   []string // targets

	AddEndpoints    []string // ids, as in Spec.Endpoints
	RemoveEndpoints []string
}

// ResourcesChange are new limits; nil leaves one as it is, and zero is
// unlimited, as in Resources.
type ResourcesChange struct {
	Memory     *int64
	MemorySwap *int64
	CPUs       *float64
	CPUWeight  *int64
	CPUSet     *string
	Pids       *int64
	IOPS       *int64
	Bandwidth  *int64
}

// Modify changes a system, whether it runs or not, and has its next starts do
// the same: all of the change, or nothing if there is an error. Whoever is
// killed meanwhile, the record says what the system is. If the context ends
// meanwhile, the change may have been made or not.
//
// What is mounted goes at once; processes that have files open there keep them
// until they close them. Directories and files that were made to be mounted on
// stay. A limit of memory below what is in use and cannot be dropped is
// refused, with class ErrFailedPrecondition. What is to be added is refused
// with class ErrAlreadyExists if there is something at its target, and
// ErrNotFound if the host has no such source; what is to be removed with class
// ErrNotFound if there is none, and with class ErrFailedPrecondition if the
// system has moved it to another place.
func (s *System) Modify(ctx context.Context, ch Change) error {
	const attempts = 5 // where programs that were killed have left a shim at work
	var err error
	for range attempts {
		if err = s.modify(ctx, &ch); !errdefs.IsConflict(err) {
			break
		}
	}
	return s.wrap("modify", err)
}

func (s *System) modify(ctx context.Context, ch *Change) (err error) {
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	var was, is Record
	store := s.service.store(&s.record)
	staged, err := store.Stage(s.record.ID, func(r *Record) error {
		was = *r
		r.Revision++
		err := s.service.revise(&r.Spec, ch)
		is = *r
		return err
	})
	if errdefs.IsNotFound(err) && was.ID == "" {
		return noSuch(s.Name())
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Drop(staged)) }()
	attached, err := s.attachNew(ctx, &was, &is)
	if err != nil {
		return err
	}
	if err := s.putInForce(ctx, &was, &is, staged); err != nil {
		return errors.Join(err, s.detachAll(context.WithoutCancel(ctx), attached))
	}
	s.modified.Store(&is)
	return errors.Join(store.Settle(s.record.ID), s.service.detach(ctx, s.record.ID, is.Spec.Endpoints))
}

// putInForce has the shim make the change and put the new record in its place,
// or does the latter where none runs.
func (s *System) putInForce(ctx context.Context, was, is *Record, staged state.Staged) error {
	answers, err := s.answers()
	if err != nil {
		return err
	}
	if !answers {
		s.noteLost()
		if err := os.Rename(staged.New, staged.Path); err != nil {
			return err
		}
		s.service.tell(wire.EventModified, is)
		return nil
	}
	ch, err := s.wireChange(was, is)
	if err != nil {
		return err
	}
	ch.Record = wire.Replacement(staged)
	return s.sendChange(ctx, ch)
}

// store returns the records of the system's kind.
func (s *Service) store(r *Record) *state.Store[Record] {
	if r.Spec.Ephemeral {
		return s.ephemeral
	}
	return s.records
}

// revise makes the change to a spec.
func (s *Service) revise(spec *Spec, ch *Change) error {
	ch.Resources.apply(&spec.Resources)
	var err error
	if spec.Mounts, err = exchange(spec.Mounts, ch.RemoveMounts, ch.AddMounts, (*Mount).target, "mount"); err != nil {
		return err
	}
	if spec.Devices, err = exchange(spec.Devices, ch.RemoveDevices, ch.AddDevices, (*Device).target, "device"); err != nil {
		return err
	}
	if spec.Disks, err = exchange(spec.Disks, ch.RemoveDisks, ch.AddDisks, (*Disk).target, "disk"); err != nil {
		return err
	}
	if spec.Endpoints, err = exchangeEndpoints(spec.Endpoints, ch.RemoveEndpoints, ch.AddEndpoints); err != nil {
		return err
	}
	if err := spec.validate(); err != nil {
		return err
	}
	added := Spec{Mounts: ch.AddMounts, Devices: ch.AddDevices, Disks: ch.AddDisks}
	return errors.Join(s.mayHave(spec), s.mayAttach(ch.AddEndpoints), added.checkSources())
}

func (c *ResourcesChange) apply(r *Resources) {
	change(&r.Memory, c.Memory)
	change(&r.MemorySwap, c.MemorySwap)
	change(&r.CPUs, c.CPUs)
	change(&r.CPUWeight, c.CPUWeight)
	change(&r.CPUSet, c.CPUSet)
	change(&r.Pids, c.Pids)
	change(&r.IOPS, c.IOPS)
	change(&r.Bandwidth, c.Bandwidth)
}

func change[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// exchange returns the list without those at the targets to remove and with
// those to add.
func exchange[T any](list []T, remove []string, add []T, target func(*T) string, what string) ([]T, error) {
	list = slices.Clone(list)
	find := func(at string) int {
		return slices.IndexFunc(list, func(e T) bool { return target(&e) == path.Clean(at) })
	}
	for _, at := range remove {
		i := find(at)
		if i < 0 {
			return nil, fault(errdefs.ErrNotFound, "remove the %s at %s: there is none", what, at)
		}
		list = slices.Delete(list, i, i+1)
	}
	for i := range add {
		if at := target(&add[i]); find(at) >= 0 {
			return nil, fault(errdefs.ErrAlreadyExists, "add a %s at %s: there is one", what, at)
		}
		list = append(list, add[i])
	}
	return list, nil
}

func (m *Mount) isLimited() bool { return m.IOPS > 0 || m.Bandwidth > 0 }

func (m *Mount) target() string { return path.Clean(m.Target) }

// targets are those of the mounts that Modify can take away. In a user
// namespace devices are mounted, too.
func (r *Record) targets() []string {
	s := &r.Spec
	var list []string
	for i := range s.Mounts {
		list = append(list, s.Mounts[i].target())
	}
	for i := range s.Disks {
		list = append(list, s.Disks[i].target())
	}
	for i := range s.Devices {
		if !userns.IsInitial() || !r.IDs.isHost() {
			list = append(list, s.Devices[i].target())
		}
	}
	return list
}
