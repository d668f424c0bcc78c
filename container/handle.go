package container

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
)

// A handle to a HandleBound system is a share in a file beside its record,
// which the kernel gives up when its program ends, however it ends. The shim
// waits until nobody has one.

func (s *System) handleFile() string { return filepath.Join(s.dir(), "handles") }

// takeHandle makes this System a handle, if its spec asks for that. It is none
// where the system is about to end as it had none left.
func (s *System) takeHandle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.record.Spec.HandleBound || s.handle != nil {
		return nil
	}
	h, err := sys.HoldFile(s.handleFile())
	if errors.Is(err, sys.ErrUnheld) {
		return nil
	}
	s.handle = h
	return err
}

// handlePoll is how often a system that is about to start looks whether the
// shim of its last life has ended.
const handlePoll = time.Millisecond

// awaitHandle is takeHandle for who is about to start the system.
func (s *System) awaitHandle(ctx context.Context) error {
	for {
		err := s.takeHandle()
		if err != nil || !s.record.Spec.HandleBound || s.isHandle() {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(handlePoll):
		}
	}
}

func (s *System) isHandle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handle != nil
}

// dropHandle ends this System's being a handle.
func (s *System) dropHandle() error {
	s.mu.Lock()
	h := s.handle
	s.handle = nil
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.Release()
}
