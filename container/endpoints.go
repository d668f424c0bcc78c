package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/state"
)

// Endpoints brings network endpoints, which somebody else makes and knows, into
// systems and takes them out again. Systems are named by their ids. Calls for
// one endpoint come one after the other, whichever programs make them.
type Endpoints interface {
	// Attach has the endpoint be in the network namespace of a system that starts
	// or runs; the caller closes it. If it fails, Detach is called.
	Attach(ctx context.Context, system, endpoint string, namespace *os.File) error
	// Detach ends what Attach has begun. The system may run or not; mostly it has
	// ended, and what was in its namespace went with it. What there is nothing of
	// to end is no error: it is called again where nobody knows whether it was
	// done.
	Detach(ctx context.Context, system, endpoint string) error
}

// An endpoint that is attached, or may be, has a link with its name to its
// system's id. It is made before and removed after; so whoever comes next, and
// has the means, finds what is to be ended for those who were killed.

func (s *Service) endpointsDir() string { return filepath.Join(s.cfg.Root, "endpoints") }

func (s *Service) endpointLink(endpoint string) string {
	return filepath.Join(s.endpointsDir(), endpoint)
}

func (s *Spec) checkEndpoints() error {
	for i, e := range s.Endpoints {
		switch {
		case state.CheckID("endpoint", endpointLock(e)) != nil:
			return fmt.Errorf("endpoint %q: use letters, digits, and \"_.-\"", e)
		case slices.Contains(s.Endpoints[:i], e):
			return fmt.Errorf("endpoint %s: given twice", e)
		case s.Network == NetworkHost:
			return fmt.Errorf("endpoint %s: the system is in the host's network", e)
		}
	}
	return nil
}

// mayAttach reports what keeps systems from having the endpoints.
func (s *Service) mayAttach(endpoints []string) error {
	if len(endpoints) == 0 || s.cfg.Endpoints != nil {
		return nil
	}
	return fault(errdefs.ErrNotImplemented, "attach endpoint %s: this program has nothing that makes networks", endpoints[0])
}

// endpointLock is the name of the lock that keeps an endpoint's calls apart.
func endpointLock(endpoint string) string { return endpoint + ".endpoint" }

// onEndpoint calls f while nobody else is at work on the endpoint, with the id
// of the system that has it, or had and nobody has ended that, or nothing.
func (s *Service) onEndpoint(ctx context.Context, endpoint string, f func(owner string) error) (err error) {
	lock, err := s.records.Lock(ctx, endpointLock(endpoint))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	owner, err := os.Readlink(s.endpointLink(endpoint))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f(owner)
}

// attach brings the endpoint into the namespace, unless another system that
// runs has it.
func (s *System) attach(ctx context.Context, endpoint string, namespace *os.File) error {
	hook, id := s.service.cfg.Endpoints, s.record.ID
	err := s.service.onEndpoint(ctx, endpoint, func(owner string) error {
		if owner != "" {
			if err := s.service.takeEndpoint(ctx, owner, id, endpoint); err != nil {
				return err
			}
		}
		if err := errors.Join(os.MkdirAll(s.service.endpointsDir(), 0o700), os.Symlink(id, s.service.endpointLink(endpoint))); err != nil {
			return err
		}
		err := hook.Attach(ctx, id, endpoint, namespace)
		if err != nil {
			err = errors.Join(err, s.service.endEndpoint(context.WithoutCancel(ctx), id, endpoint))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("attach endpoint %s: %w", endpoint, err)
	}
	return nil
}

// takeEndpoint takes the endpoint from a system that has ended and nobody has
// noticed.
func (s *Service) takeEndpoint(ctx context.Context, owner, taker, endpoint string) error {
	if owner != taker {
		answers, err := (&System{service: s, record: Record{ID: owner}}).answers()
		if err != nil {
			return err
		}
		if answers {
			return fault(errdefs.ErrFailedPrecondition, "container %s has it", ShortID(owner))
		}
	}
	return s.endEndpoint(ctx, owner, endpoint)
}

// endEndpoint has the endpoint be nobody's. Its lock is held.
func (s *Service) endEndpoint(ctx context.Context, owner, endpoint string) error {
	if err := s.cfg.Endpoints.Detach(ctx, owner, endpoint); err != nil {
		return fmt.Errorf("detach endpoint %s: %w", endpoint, err)
	}
	return os.Remove(s.endpointLink(endpoint))
}

// endpointsOf lists the endpoints that are, or may be, attached to the system.
// A program without the means to end that sees none.
func (s *Service) endpointsOf(id string) ([]string, error) {
	all, err := s.endpoints()
	return all[id], err
}

// endpoints lists the endpoints that are attached by the ids of their systems.
func (s *Service) endpoints() (map[string][]string, error) {
	if s.cfg.Endpoints == nil {
		return nil, nil
	}
	entries, err := os.ReadDir(s.endpointsDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	all := make(map[string][]string)
	for _, e := range entries {
		if id, err := os.Readlink(s.endpointLink(e.Name())); err == nil {
			all[id] = append(all[id], e.Name())
		}
	}
	return all, err
}

// detach takes all endpoints but those to keep from a system, whose lock is
// held.
func (s *Service) detach(ctx context.Context, id string, keep []string) error {
	list, err := s.endpointsOf(id)
	errs := []error{err}
	for _, endpoint := range list {
		if slices.Contains(keep, endpoint) {
			continue
		}
		errs = append(errs, s.onEndpoint(ctx, endpoint, func(owner string) error {
			if owner != id {
				return nil // by now
			}
			return s.endEndpoint(ctx, id, endpoint)
		}))
	}
	return errors.Join(errs...)
}

// detachAll takes those endpoints from the system.
func (s *System) detachAll(ctx context.Context, endpoints []string) error {
	var errs []error
	for _, endpoint := range endpoints {
		errs = append(errs, s.service.onEndpoint(ctx, endpoint, func(string) error {
			return s.service.endEndpoint(ctx, s.record.ID, endpoint)
		}))
	}
	return errors.Join(errs...)
}

// detachIfOver is detach for a system that may run, or be about to.
func (s *System) detachIfOver(ctx context.Context) (err error) {
	list, err := s.service.endpointsOf(s.record.ID)
	if err != nil || len(list) == 0 {
		return err
	}
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if answers, err := s.answers(); err != nil || answers {
		return err
	}
	return s.service.detach(ctx, s.record.ID, nil)
}

// pruneEndpoints takes from systems what they do not have any more, or never
// came to have.
func (s *Service) pruneEndpoints(ctx context.Context, p *Pruned) error {
	all, err := s.endpoints()
	errs := []error{err}
	for id, list := range all {
		if state.CheckID("container", id) != nil {
			continue // nobody here has made it
		}
		lock, err := s.records.TryLock(id)
		if err != nil {
			continue // it is being started or changed
		}
		errs = append(errs, s.pruneEndpointsOf(ctx, id), lock.Unlock())
		for _, endpoint := range list {
			if _, err := os.Lstat(s.endpointLink(endpoint)); errors.Is(err, fs.ErrNotExist) {
				p.Leftovers = append(p.Leftovers, s.endpointLink(endpoint))
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Service) pruneEndpointsOf(ctx context.Context, id string) error {
	system := &System{service: s, record: Record{ID: id}}
	answers, err := system.answers()
	if err != nil {
		return err
	}
	var keep []string
	if answers {
		r, err := s.records.Get(id)
		if err != nil {
			return nil //nolint:nilerr // what a shim of a damaged record has is let alone
		}
		keep = r.Spec.Endpoints
	}
	return s.detach(ctx, id, keep)
}

// exchangeEndpoints returns the list without those to remove and with those to
// add.
func exchangeEndpoints(list, remove, add []string) ([]string, error) {
	list = slices.Clone(list)
	for _, e := range remove {
		i := slices.Index(list, e)
		if i < 0 {
			return nil, fault(errdefs.ErrNotFound, "remove endpoint %s: it has none of that id", e)
		}
		list = slices.Delete(list, i, i+1)
	}
	for _, e := range add {
		if slices.Contains(list, e) {
			return nil, fault(errdefs.ErrAlreadyExists, "add endpoint %s: it has it already", e)
		}
		list = append(list, e)
	}
	return list, nil
}
