//go:build !linux

package state

import (
	"context"
	"time"
)

// poll looks at all objects in turn, where the system has no notification this package knows. Every look reports the
// objects that exist as put, which Watch allows.
type poll struct{}

const pollEvery = time.Second

func newNotifier(string) (notifier, error) { return poll{}, nil }

func (poll) wait(ctx context.Context) (dirty, error) {
	select {
	case <-ctx.Done():
		return dirty{}, context.Cause(ctx)
	case <-time.After(pollEvery):
		return dirty{all: true}, nil
	}
}

func (poll) Close() error { return nil }
