package container

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// A shim holds a file of its system's id open for writing, and locked, as long
// as it lives. The kernel lets go of both when the shim is killed, and tells
// who watches the directory.

func (s *Service) aliveDir() string { return filepath.Join(s.cfg.Run, "shims") }

func (s *Service) alive(id string) string { return filepath.Join(s.aliveDir(), id) }

// watchShims has systems whose shims die noted as lost, until the context is
// done.
func (s *Service) watchShims(ctx context.Context) error {
	w, err := sys.NewWatch(s.aliveDir(), sys.WatchReleases)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()           // only reads
	if err := s.noteAllLost(ctx); err != nil { // those whose death nobody has noticed
		return err
	}
	for {
		ids, err := w.Wait(ctx)
		if err == nil && len(ids) == 0 {
			err = s.noteAllLost(ctx)
		}
		for _, id := range ids {
			s.awaitRelease(id)
			err = errors.Join(err, s.noteLost(ctx, id))
		}
		if err != nil {
			return err
		}
	}
}

func (s *Service) noteAllLost(ctx context.Context) error {
	objects, _ := s.records.List() // damaged records are not lost systems
	for _, o := range objects {
		if err := s.noteLost(ctx, o.ID); err != nil {
			return err
		}
	}
	return nil
}

// awaitRelease waits until the system's file is not locked: a shim that was
// killed keeps the lock for a moment longer than it takes to tell so.
func (s *Service) awaitRelease(id string) {
	const patience = time.Second
	for deadline := time.Now().Add(patience); sys.IsLocked(s.alive(id)) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// noteLost is noteLost of the system with the id, unless somebody else is about
// to start or to remove it, who looks himself.
func (s *Service) noteLost(ctx context.Context, id string) error {
	if !s.mayBeLost(id) {
		return nil
	}
	r, err := s.records.Get(id)
	if err != nil {
		return nil // removed meanwhile, or not to be read
	}
	lock, err := s.records.Lock(ctx, id)
	if err != nil {
		return err
	}
	system := &System{service: s, record: r}
	system.noteLost()
	return lock.Unlock()
}

// mayBeLost looks without a lock.
func (s *Service) mayBeLost(id string) bool {
	if state.CheckID("container", id) != nil || sys.IsLocked(s.alive(id)) {
		return false
	}
	st, err := readStatus(filepath.Join(s.records.Dir(id), "status.json"))
	return err == nil && st.State != wire.Stopped && st.State != wire.Lost
}

func readStatus(file string) (wire.Status, error) {
	var st wire.Status
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	return st, err
}

// look is rest for those who may be the first to see that the system is lost.
func (s *System) look() (Status, error) {
	st, err := s.rest()
	if err != nil || st.State != Lost {
		return st, err
	}
	if lock, err := s.service.records.TryLock(s.record.ID); err == nil {
		s.noteLost()
		if err := lock.Unlock(); err != nil {
			return st, s.wrap("inspect", err)
		}
	}
	return st, nil
}

// noteLost tells, once for each time, that the system's shim died. The record's
// lock is held. It is told first and then noted; so whoever is killed between
// leaves it to the next to see that it is told.
func (s *System) noteLost() {
	st, err := readStatus(s.statusFile())
	if err != nil || st.State == wire.Stopped || st.State == wire.Lost || sys.IsLocked(s.service.alive(s.record.ID)) {
		return
	}
	const reason = "its shim died"
	if !s.isToldLost(unix(st.Started)) {
		s.service.tellWhy(wire.EventLost, &s.record, reason)
	}
	st.State, st.Reason, st.ExitCode, st.Processes = wire.Lost, reason, 137, nil
	if err := s.leaveStatus(&st); err != nil {
		s.service.cfg.Logger.Error("note that a container is lost", "container", s.record.ID, "error", err)
	}
}

// isToldLost looks for the event.
func (s *System) isToldLost(since time.Time) bool {
	after, err := CursorAt(since).seq(s.service.eventsDir())
	told := false
	if err == nil {
		err = s.service.readEvents(after, func(e Event) bool {
			told = e.Kind == EventLost && e.ID == s.record.ID
			return !told
		})
	}
	return told && err == nil
}

// leaveStatus replaces what a shim left.
func (s *System) leaveStatus(st *wire.Status) error {
	text, err := json.Marshal(st)
	if err != nil {
		return err
	}
	temp := s.statusFile() + ".lost"
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, s.statusFile())
}
