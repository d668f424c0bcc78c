package container

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/wire"
)

// DefaultStopTimeout is the time that systems have to end which say nothing of
// it: docker's.
const DefaultStopTimeout = 10 * time.Second

// maxStopTimeout, in seconds, is some sixty-eight years, what docker's clients
// can ask for.
const maxStopTimeout = 1<<31 - 1

// StopTime returns how long a system has to end when it is asked to, for the
// context of Shutdown; a negative time is without end.
func (s *Spec) StopTime() time.Duration {
	if s.StopTimeout == nil {
		return DefaultStopTimeout
	}
	return time.Duration(*s.StopTimeout) * time.Second
}

// Shutdown asks the system to end: its main process with the system's stop
// signal, or, where there is none, every process. When the context ends before
// it has, the system is terminated. It has no new processes meanwhile. A system
// that does not run is shut down already.
func (s *System) Shutdown(ctx context.Context) error {
	return s.ShutdownWith(ctx, s.stopSignal())
}

// ShutdownWith is Shutdown with another signal.
func (s *System) ShutdownWith(ctx context.Context, sig syscall.Signal) error {
	err := s.shutdown(ctx, sig)
	if err == nil {
		_, err = s.Wait(ctx)
	}
	if err == nil {
		return nil
	}
	return s.Terminate(context.WithoutCancel(ctx))
}

// BeginShutdown is Shutdown, but does not wait for the end: Wait does. A
// system whose processes do not listen goes on. The error is of class
// ErrFailedPrecondition if it does not run, or is paused.
func (s *System) BeginShutdown(ctx context.Context) error {
	return s.wrap("shut down", s.shutdown(ctx, s.stopSignal()))
}

func (s *System) stopSignal() syscall.Signal {
	if sig := s.record.Spec.StopSignal; sig != 0 {
		return syscall.Signal(sig)
	}
	return signals["TERM"]
}

// Terminate ends the system at once. It returns when nothing of it runs any
// more and all that starting it made is gone; a system that does not run is
// one already.
func (s *System) Terminate(ctx context.Context) error {
	_, err := s.call(ctx, wire.Message{Type: wire.Terminate})
	if errdefs.IsFailedPrecondition(err) {
		err = s.cleanUpIfLost(ctx)
	}
	if errdefs.IsNotFound(err) && s.record.Spec.Ephemeral {
		err = nil
	}
	return s.wrap("terminate", errors.Join(err, s.detachIfOver(ctx)))
}

// BeginTerminate is Terminate, but does not wait for the end: Wait does. The
// error is of class ErrFailedPrecondition if the system does not run.
func (s *System) BeginTerminate(ctx context.Context) error {
	return s.wrap("terminate", s.shutdown(ctx, signals["KILL"]))
}

func (s *System) shutdown(ctx context.Context, sig syscall.Signal) error {
	_, err := s.call(ctx, wire.Message{Type: wire.Shutdown, Body: wire.SignalRequest{Signal: uint32(sig)}.Encode()})
	return err
}

// isUp reports whether the system runs. One that is about to stop is waited
// for.
func (s *System) isUp(ctx context.Context) (bool, error) {
	if answers, err := s.answers(); err != nil || !answers {
		return false, err
	}
	st, err := s.Status(ctx)
	if err == nil && st.State == Stopping {
		st, err = s.Wait(ctx)
	}
	return st.State.IsUp(), err
}
