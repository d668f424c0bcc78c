package cli

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestHeldSignals come before there is a process that takes them: they do not
// end this one, and the process gets them in their order.
func TestHeldSignals(t *testing.T) {
	var s signals
	ctx := s.catch(t.Context())
	s.hold()
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, windowChanged} {
		if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(testenv.Patience); !s.isHeld(sig); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%v has not come", sig)
			}
		}
	}
	got := make(chan syscall.Signal, 10)
	restore := s.divert(ctx, func(sig syscall.Signal) { got <- sig })
	defer restore()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	for _, want := range []syscall.Signal{syscall.SIGUSR1, windowChanged, syscall.SIGUSR2} {
		select {
		case sig := <-got:
			if sig != want {
				t.Errorf("got %v, want %v", sig, want)
			}
		case <-time.After(testenv.Patience):
			t.Fatalf("%v is lost", want)
		}
	}
	if err := context.Cause(ctx); err != nil {
		t.Errorf("the command is to end: %v", err)
	}
}

func (s *signals) isHeld(sig syscall.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.held, sig)
}
