package shim

import (
	"errors"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// oomPauses are how long after the kernel began to look for something to kill
// it may have done so: it says nothing then.
var oomPauses = [...]time.Duration{0, 2 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond}

// watchOOM tells of processes that the kernel kills for lack of memory, as long
// as the group is there.
func (s *shim) watchOOM() {
	w, err := s.cgroup.WatchOOM()
	if err != nil {
		if !errors.Is(err, sys.ErrNoCgroup) && !s.stopping() {
			note("watch for lack of memory", err)
		}
		return
	}
	go func() {
		<-s.first.ended
		_ = w.Close()
	}()
	for w.Wait() == nil {
		for _, pause := range oomPauses {
			time.Sleep(pause)
			if s.noteOOM() {
				break
			}
		}
	}
}

// noteOOM tells if the kernel has killed since it was last asked.
func (s *shim) noteOOM() bool {
	kills := s.cgroup.OOMKills()
	for {
		seen := s.oomKills.Load()
		if kills <= seen {
			return false
		}
		if s.oomKills.CompareAndSwap(seen, kills) {
			s.events.tell(wire.Event{Kind: wire.EventOOM})
			return true
		}
	}
}
