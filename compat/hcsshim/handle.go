package hcsshim

import (
	"context"
	"sync"
)

// A handle is open until it is closed. What is called on it then does nothing, and what was going on ends.
type handle struct {
	mu     sync.Mutex
	closed bool
	last   int
	calls  map[int]context.CancelCauseFunc // that go on
}

// enter begins a call, which the returned function ends. Closing the handle ends the context with ErrHandleClose.
func (h *handle) enter() (_ context.Context, leave func(), _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, ErrAlreadyClosed
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	if h.calls == nil {
		h.calls = make(map[int]context.CancelCauseFunc)
	}
	h.last++
	call := h.last
	h.calls[call] = cancel
	return ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.calls, call)
		cancel(nil)
	}, nil
}

// do makes a call.
func (h *handle) do(f func(context.Context) error) error {
	ctx, leave, err := h.enter()
	if err != nil {
		return err
	}
	defer leave()
	return f(ctx)
}

// close ends all calls, and reports whether the handle was open.
func (h *handle) close() (wasOpen bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wasOpen = !h.closed
	h.closed = true
	for _, cancel := range h.calls {
		cancel(ErrHandleClose)
	}
	return wasOpen
}
