package container

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/wire"
)

// attachShown brings the system's endpoints into the namespace that its shim
// shows, before it runs.
func (s *System) attachShown(ctx context.Context, fds []int) error {
	namespace, err := theNamespace(fds)
	if err != nil {
		return err
	}
	_, err = s.attachTo(ctx, namespace, s.record.Spec.Endpoints)
	return errors.Join(err, namespace.Close())
}

// theNamespace takes over the descriptor that came with a message.
func theNamespace(fds []int) (*os.File, error) {
	if len(fds) != 1 {
		wire.CloseFiles(fds)
		return nil, fault(errdefs.ErrUnavailable, "its shim gives %d network namespaces for one", len(fds))
	}
	return os.NewFile(uintptr(fds[0]), "network namespace"), nil
}

// attachTo attaches all of the endpoints or, if there is an error, none.
func (s *System) attachTo(ctx context.Context, namespace *os.File, endpoints []string) (done []string, _ error) {
	for _, endpoint := range endpoints {
		if err := s.attach(ctx, endpoint, namespace); err != nil {
			return nil, errors.Join(err, s.detachAll(context.WithoutCancel(ctx), done))
		}
		done = append(done, endpoint)
	}
	return done, nil
}

// attachNew attaches the endpoints that the new record has and the old one has
// not, if the system runs, and returns them. What somebody who was killed has
// left attached or half attached is detached before.
func (s *System) attachNew(ctx context.Context, was, is *Record) ([]string, error) {
	answers, err := s.answers()
	if err != nil || !answers {
		return nil, err
	}
	if err := s.service.detach(ctx, was.ID, was.Spec.Endpoints); err != nil {
		return nil, err
	}
	added := slices.DeleteFunc(slices.Clone(is.Spec.Endpoints), func(e string) bool { return slices.Contains(was.Spec.Endpoints, e) })
	if len(added) == 0 {
		return nil, nil
	}
	m, err := s.call(ctx, wire.Message{Type: wire.OpenNetwork})
	if err != nil {
		return nil, err
	}
	if m.Type == wire.StatusReply {
		return nil, fault(errdefs.ErrFailedPrecondition, "it has stopped")
	}
	namespace, err := theNamespace(m.Files)
	if err != nil {
		return nil, err
	}
	done, err := s.attachTo(ctx, namespace, added)
	return done, errors.Join(err, namespace.Close())
}
