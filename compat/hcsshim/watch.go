package hcsshim

import (
	"context"
	"sync"
	"time"

	compute "github.com/hostcompute/hcs/container"
)

// watchWhileOpen is watch until the handle is closed.
func (c *container) watchWhileOpen() {
	if ctx, leave, err := c.enter(); err == nil {
		defer leave()
		c.watch(ctx)
	}
}

// lookAgain is how long a handle leaves it to its own Start to be next, and after how long it asks again what it was not told.
const lookAgain = 100 * time.Millisecond

// watch waits for the container's end, whoever starts and ends it. One that runs is asked; of one that does not the service's
// events tell when it does.
func (c *container) watch(ctx context.Context) {
	var changed <-chan struct{}
	for ctx.Err() == nil {
		_, err := c.system.Wait(ctx)
		if ctx.Err() != nil {
			return
		}
		over, why, err := c.isOver(ctx, err)
		if over {
			c.end(why)
			return
		}
		var later <-chan time.Time
		if err != nil || changed == nil {
			later = time.After(lookAgain)
		}
		select {
		case <-c.began:
		case <-changed:
		case <-ctx.Done():
		case <-later:
			if changed == nil {
				var stop func()
				changed, stop = changes.follow(c.service, c.system.ID())
				defer stop()
			}
		}
	}
}

// changes are those that handles of containers wait for which do not run.
var changes follower

// A follower follows the events of a service for many, as long as there is somebody.
type follower struct {
	mu      sync.Mutex
	waiting map[chan struct{}]string // ids of systems
	stop    context.CancelFunc       // of who follows, if somebody does
}

// follow returns a channel that takes one when something has happened to the system, from now on until it is stopped.
func (f *follower) follow(s *compute.Service, id string) (_ <-chan struct{}, stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f.waiting, f.stop = make(map[chan struct{}]string), cancel
		events := s.Events(ctx, "")
		go func() {
			for ctx.Err() == nil {
				for e, err := range events {
					f.tell(e, err)
				}
				// An end that was not asked for: those who wait look for themselves, as often as before.
				sleep(ctx, lookAgain)
				events = s.Events(ctx, "")
			}
		}()
	}
	told := make(chan struct{}, 1)
	f.waiting[told] = id
	return told, func() { f.leave(told) }
}

// leave ends what follow began.
func (f *follower) leave(told chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, told)
	if len(f.waiting) == 0 {
		f.stop()
		f.stop = nil
	}
}

// tell passes an event on. One that is missing, and an error, may be anybody's.
func (f *follower) tell(e compute.Event, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for told, id := range f.waiting {
		if err != nil || e.Kind == compute.EventGap || id == e.ID {
			select {
			case told <- struct{}{}:
			default:
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
