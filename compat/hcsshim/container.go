package hcsshim

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// Container is a handle of a container, which may run or not. There may be several, here and in other programs.
//
// Errors are *ContainerError. After Close every method returns one with ErrAlreadyClosed.
type Container interface {
	// Start starts the container: without a process, which CreateProcess adds.
	Start() error

	// Shutdown asks the container to end. The error is ErrVmcomputeOperationPending where it does, and then Wait tells when
	// it has; it is ErrVmcomputeAlreadyStopped where it has before.
	Shutdown() error

	// Terminate ends the container. Its errors are Shutdown's.
	Terminate() error

	// Wait waits until the container has ended and nothing of it is left. It may be called at once and any number of times.
	// Close ends it, with ErrHandleClose.
	Wait() error

	// WaitTimeout is Wait, and returns ErrTimeout if that takes longer.
	WaitTimeout(time.Duration) error

	// Pause stops all processes where they are.
	Pause() error

	// Resume lets them go on.
	Resume() error

	// HasPendingUpdates reports whether updates are to be installed at the container's end: there are none.
	HasPendingUpdates() (bool, error)

	// Statistics returns the counters of the running container.
	Statistics() (Statistics, error)

	// ProcessList returns the processes in the running container.
	ProcessList() ([]ProcessListItem, error)

	// MappedVirtualDisks returns the container's disk images, by the number of their controller.
	MappedVirtualDisks() (map[int]MappedVirtualDiskController, error)

	// CreateProcess starts a process in the running container.
	CreateProcess(c *ProcessConfig) (Process, error)

	// OpenProcess returns a process of the running container by its number there. The error is ErrElementNotFound if there is
	// none.
	OpenProcess(pid int) (Process, error)

	// Close lets go of the container, which goes on. Closing twice is no error.
	Close() error

	// Modify adds a resource to the running container, or removes it: a MappedDirectory, MappedPipe or MappedVirtualDisk, whose
	// Data are as in the configuration, or a Network endpoint, whose Data is its id.
	Modify(config *ResourceModificationRequestResponse) error
}

// container is the handle.
type container struct {
	handle
	id      string
	service *compute.Service
	system  *compute.System

	began  chan struct{} // takes one to say that the container may be in another state
	doomed atomic.Bool   // it was asked to end
	ended  chan struct{} // closed when the container has ended
	once   sync.Once     // of ended
	err    error         // what Wait returns then
}

// CreateContainer makes a container that does not run yet. The id is its name in the command hcs, and as there a letter or
// digit and then at most 127 of a-z A-Z 0-9 _ . -.
//
// Nothing is left of a container that has stopped.
func CreateContainer(id string, c *ContainerConfig) (Container, error) {
	if c == nil {
		return nil, systemFailure(coded(hcserror.InvalidParameter, "there is no configuration"), id, "CreateComputeSystem", "")
	}
	ctx, cancel := createLimit.within(context.Background())
	defer cancel()
	full, document, err := complete(c)
	if err == nil {
		var made *container
		if made, err = create(ctx, id, full); err == nil {
			return made, nil
		}
	}
	return nil, systemFailure(err, id, "CreateComputeSystem", string(document))
}

func create(ctx context.Context, id string, c *ContainerConfig) (*container, error) {
	if id == "" {
		return nil, coded(hcserror.InvalidParameter, "the id is empty")
	}
	spec, err := specOf(id, c)
	if err != nil {
		return nil, err
	}
	n := note{Config: *c}
	n.Config.Credentials = "" // which labels are no place for
	if n.Scratch, spec.RootDir, err = scratchOf(ctx, c); err != nil {
		return nil, err
	}
	// Else it stays until the layer is taken down, and the endpoints are detached.
	spec.Ephemeral = n.Scratch == nil && len(spec.Endpoints) == 0
	spec.RootVolume = n.Scratch.rootVolume()
	text, err := n.label()
	if err != nil {
		return nil, err
	}
	spec.Labels = map[string]string{noteLabel: text}
	s, err := service()
	if err == nil {
		err = makeWay(ctx, s, id)
	}
	if err != nil {
		return nil, err
	}
	system, err := s.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := mountFor(ctx, n.Scratch); err != nil {
		system.KeepRootVolume()
		return nil, errors.Join(err, system.Delete(context.WithoutCancel(ctx)), system.Close())
	}
	made := newContainer(s, id, system)
	if spec.Ephemeral {
		go made.watchWhileOpen()
	} else { // also when the handle is closed: somebody has to do that
		go made.watch(context.Background())
	}
	return made, nil
}

// mountFor mounts the scratch layer of a container, if there is one, while there is time.
func mountFor(ctx context.Context, s *scratch) error {
	if s == nil {
		return context.Cause(ctx)
	}
	err := s.mount(ctx)
	if err == nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), s.unmount(context.WithoutCancel(ctx)))
	}
	return err
}

// makeWay removes what nobody was there to remove when a container of that id stopped.
func makeWay(ctx context.Context, s *compute.Service, id string) error {
	system, err := find(ctx, s, id)
	if err != nil {
		return nil //nolint:nilerr // there is none, or one that Create will tell of
	}
	if _, err = look(ctx, system); errdefs.IsNotFound(err) {
		err = nil
	}
	return errors.Join(err, system.Close())
}

// find returns the container of an id.
func find(ctx context.Context, s *compute.Service, id string) (*compute.System, error) {
	system, err := s.Open(ctx, id)
	if errdefs.IsInvalidArgument(err) { // several ids begin like that
		err = &hcserror.Coded{Code: ErrComputeSystemDoesNotExist, Err: err}
	}
	if err != nil {
		return nil, err
	}
	if system.Name() != id && system.ID() != id {
		return nil, errors.Join(coded(ErrComputeSystemDoesNotExist, "no container has the id %q", id), system.Close())
	}
	return system, nil
}

// look returns what is known of a container. Of one that CreateContainer made there is nothing left when it has stopped: then
// the error is of class ErrNotFound.
func look(ctx context.Context, system *compute.System) (compute.Status, error) {
	st, err := system.Status(ctx)
	if err != nil || !isOver(st) || !isOurs(system) {
		return st, err
	}
	if err := retire(ctx, system); err != nil {
		return st, err
	}
	return st, errdefs.ErrNotFound
}

func isOver(st compute.Status) bool { return st.State == compute.Stopped || st.State == compute.Lost }

// OpenContainer returns a handle of the container of that id. The error is ErrComputeSystemDoesNotExist if there is none.
func OpenContainer(id string) (Container, error) {
	c, err := open(context.Background(), id)
	if errdefs.IsNotFound(err) {
		err = &hcserror.Coded{Code: ErrComputeSystemDoesNotExist, Err: err}
	}
	if err != nil {
		return nil, systemFailure(err, id, "OpenComputeSystem", "")
	}
	return c, nil
}

func open(ctx context.Context, id string) (*container, error) {
	s, err := service()
	if err != nil {
		return nil, err
	}
	system, err := find(ctx, s, id)
	if err != nil {
		return nil, err
	}
	if _, err := look(ctx, system); err != nil {
		return nil, errors.Join(err, system.Close())
	}
	c := newContainer(s, id, system)
	go c.watchWhileOpen()
	return c, nil
}

func newContainer(s *compute.Service, id string, system *compute.System) *container {
	return &container{id: id, service: s, system: system, began: make(chan struct{}, 1), ended: make(chan struct{})}
}

// isOver reports whether the container has ended, and why if that was nobody's wish. The error says that this cannot be known now; a
// failure to wait says nothing.
func (c *container) isOver(ctx context.Context, waited error) (over bool, why, _ error) {
	if errdefs.IsNotFound(waited) {
		return true, nil, nil
	}
	st, err := c.system.Status(ctx)
	switch {
	case errdefs.IsNotFound(err):
		return true, nil, nil
	case err != nil:
		return false, nil, err
	case st.State == compute.Created:
		return c.doomed.Load(), nil, nil
	}
	return isOver(st), whyOver(st), nil
}

// whyOver returns why a container has ended, if that was nobody's wish.
func whyOver(st compute.Status) error {
	if st.State == compute.Lost {
		return ErrUnexpectedProcessAbort
	}
	return nil
}

// end says that the container has ended, and why if that was nobody's wish.
func (c *container) end(why error) {
	c.once.Do(func() {
		c.err = why
		if isOurs(c.system) {
			c.err = errors.Join(why, retire(context.Background(), c.system))
		}
		close(c.ended)
	})
}

// hasEnded reports whether the handle knows of the container's end.
func (c *container) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// call makes a call on the container, whose error says how the container is if that is why it failed.
func (c *container) call(op string, f func(context.Context) error) error {
	return c.fail(op, c.do(func(ctx context.Context) error { return c.explain(ctx, f(ctx)) }))
}

// explain gives what may have failed because the container does not run any more the code of that, if so it is.
func (c *container) explain(ctx context.Context, err error) error {
	if !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) {
		return err
	}
	if code, ok := c.gone(ctx); ok {
		return &hcserror.Coded{Code: code, Err: err}
	}
	return err
}

// gone reports whether the container does not run any more, and the code of that. Nothing is left of one that has stopped, then.
func (c *container) gone(ctx context.Context) (syscall.Errno, bool) {
	if c.hasEnded() {
		return ErrVmcomputeAlreadyStopped, true
	}
	st, err := c.system.Status(ctx)
	switch {
	case errdefs.IsNotFound(err):
		return ErrComputeSystemDoesNotExist, true
	case err == nil && isOver(st):
		c.end(whyOver(st))
		return ErrVmcomputeAlreadyStopped, true
	}
	return 0, false
}

func (c *container) Start() error {
	return c.call("Start", func(ctx context.Context) error {
		ctx, cancel := startLimit.within(ctx)
		defer cancel()
		if err := c.expect(ctx, compute.Created); err != nil {
			return err
		}
		err := c.system.Start(ctx)
		if err == nil {
			c.lookNow()
		}
		return err
	})
}

// lookNow has watch see what state the container is in.
func (c *container) lookNow() {
	select {
	case c.began <- struct{}{}:
	default:
	}
}

// expect returns an error unless the container is in one of the states.
func (c *container) expect(ctx context.Context, states ...compute.State) error {
	if code, ok := c.gone(ctx); ok {
		return code
	}
	st, err := c.system.Status(ctx)
	if err == nil && !slices.Contains(states, st.State) {
		return coded(ErrVmcomputeOperationInvalidState, "it is %s", st.State)
	}
	return err
}

func (c *container) Shutdown() error {
	return c.call("Shutdown", func(ctx context.Context) error {
		if err := c.system.BeginShutdown(ctx); err != nil {
			return err
		}
		return c.doom()
	})
}

func (c *container) Terminate() error {
	return c.call("Terminate", func(ctx context.Context) error {
		err := c.system.BeginTerminate(ctx)
		for errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
			st, serr := c.system.Status(ctx)
			if serr != nil {
				return serr
			}
			if !st.State.IsUp() {
				err = c.abandon(context.WithoutCancel(ctx), st, err)
				break
			}
			err = c.system.BeginTerminate(ctx) // of a start that somebody began before he was killed
		}
		if err != nil {
			return err
		}
		return c.doom()
	})
}

// doom notes that the container is to end, and returns that this is pending. One that was about to start is as it was before
// then, and has to be removed.
func (c *container) doom() error {
	c.doomed.Store(true)
	c.lookNow()
	return ErrVmcomputeOperationPending
}

// abandon removes a container that has never run, or whose shim died. Any other does not run, for the reason given.
func (c *container) abandon(ctx context.Context, st compute.Status, reason error) error {
	switch {
	case st.State == compute.Created:
		c.end(nil)
		return nil
	case st.State == compute.Lost:
		reason = errors.Join(c.system.Terminate(ctx), reason)
		c.end(ErrUnexpectedProcessAbort)
	}
	return reason
}

func (c *container) Wait() error {
	return c.fail("Wait", c.do(c.await))
}

func (c *container) WaitTimeout(timeout time.Duration) error {
	return c.fail("WaitTimeout", c.do(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return c.await(ctx)
	}))
}

// await returns what Wait does, or why the context ended.
func (c *container) await(ctx context.Context) error {
	if c.hasEnded() {
		return c.err
	}
	select {
	case <-c.ended:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *container) Pause() error {
	return c.call("Pause", func(ctx context.Context) error {
		ctx, cancel := pauseLimit.within(ctx)
		defer cancel()
		return c.system.Pause(ctx)
	})
}

func (c *container) Resume() error {
	return c.call("Resume", func(ctx context.Context) error {
		ctx, cancel := resumeLimit.within(ctx)
		defer cancel()
		return c.system.Resume(ctx)
	})
}

func (c *container) HasPendingUpdates() (bool, error) {
	return false, c.call("HasPendingUpdates", func(context.Context) error { return nil })
}

func (c *container) Close() error {
	if !c.close() {
		return nil
	}
	return c.fail("Close", c.system.Close())
}
