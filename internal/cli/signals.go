package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals hands the signals that this process gets to whom they are for: to
// a process in a container while one is attached, else they end the command.
type signals struct {
	ch     chan os.Signal
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	taker func(syscall.Signal)
	held  []syscall.Signal // until there is a taker
}

// interrupted is the cause of a context that a signal has ended.
type interrupted syscall.Signal

func (i interrupted) Error() string { return "interrupted: " + syscall.Signal(i).String() }

// catch returns a context that ends when a signal says so: for commands that
// have something to clean up. Others just die of it, as is the custom, and
// start sooner.
func (s *signals) catch(ctx context.Context) context.Context {
	ctx, s.cancel = context.WithCancelCause(ctx)
	s.listen(endSignals)
	return ctx
}

func (s *signals) listen(list []os.Signal) {
	if s.ch == nil {
		s.ch = make(chan os.Signal, 16)
		go func() {
			for sig := range s.ch {
				if n, ok := sig.(syscall.Signal); ok {
					s.take(n)
				}
			}
		}()
	}
	signal.Notify(s.ch, list...)
}

func (s *signals) take(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.taker != nil:
		s.taker(sig)
	case isEnd(sig) && s.cancel != nil:
		s.cancel(interrupted(sig))
	default:
		s.held = append(s.held, sig)
	}
}

func isEnd(sig syscall.Signal) bool {
	for _, e := range endSignals {
		if e == sig {
			return true
		}
	}
	return false
}

// hold keeps the signals that are for a process from before it begins, for the
// taker: who sees what the process writes may send them at once.
func (s *signals) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listen(passedSignals)
}

// divert hands all signals, for which hold listens, to taker, one at a time, until restore is called.
// Those that came since hold, and one that has ended the context before it could
// be diverted, are handed over first.
func (s *signals) divert(ctx context.Context, taker func(syscall.Signal)) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if early, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		taker(syscall.Signal(early))
	}
	for _, sig := range s.held {
		taker(sig)
	}
	s.taker, s.held = taker, nil
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taker = nil
	}
}
