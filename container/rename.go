package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/wire"
)

// Rename gives the system another name, which must be free. Its hostname stays. A system that is to go when it stops cannot be
// renamed while it runs: what goes then is settled. Should the machine stop meanwhile, both names lead to the system. Name and
// Record of Systems that are open, this one too, stay as they were.
func (s *System) Rename(ctx context.Context, name string) (err error) {
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return s.wrap("rename", err)
	}
	err = s.rename(name)
	return s.wrap("rename", errors.Join(err, lock.Unlock()))
}

func (s *System) rename(name string) error {
	now, err := s.service.records.Get(s.record.ID)
	if err != nil {
		return err
	}
	answers, err := s.answers()
	if err == nil && answers && now.Spec.Ephemeral {
		err = fault(errdefs.ErrFailedPrecondition, "it runs, and goes by the name that it has")
	}
	if err != nil {
		return err
	}
	before := now.Name()
	now.Spec.Name = name
	now.Revision++
	if name == "" {
		err = errors.New("no name given")
	} else {
		err = now.Spec.checkName()
	}
	if err != nil {
		return fault(errdefs.ErrInvalidArgument, "%w", err)
	}
	if now.Name() == before {
		return nil
	}
	if err := s.service.claimName(&now); err != nil {
		return err
	}
	if err := s.service.putRecord(&now); err != nil {
		return errors.Join(err, s.service.dropName(name, now.ID))
	}
	s.service.tell(wire.EventModified, &now)
	return s.service.dropName(before, now.ID)
}

// dropName removes a name that leads to the id.
func (s *Service) dropName(name, id string) error {
	link := filepath.Join(s.namesDir(), name)
	if owner, err := os.Readlink(link); err != nil || owner != id {
		return nil
	}
	if err := os.Remove(link); err != nil {
		return fmt.Errorf("drop the name %s: %w", name, err)
	}
	return nil
}
