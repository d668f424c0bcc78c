//go:build !linux

package sys

import (
	"context"
	"time"
)

// Watch tells when it is time to look again.
type Watch struct{}

// NewWatch returns a Watch that looks at intervals.
func NewWatch(string, WatchEvents) (*Watch, error) { return new(Watch), nil }

// Close does nothing.
func (*Watch) Close() error { return nil }

// Wait returns after a while, or with the context's cause.
func (*Watch) Wait(ctx context.Context) ([]string, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(50 * time.Millisecond):
		return nil, nil
	}
}

// IsLocked returns false.
func IsLocked(string) bool { return false }
