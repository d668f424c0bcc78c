package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// modify changes the running system. Steps that were done are undone when one
// fails; the last puts the record in its place that says what the system is
// now. Should the shim die on the way, so does the system, and the old record
// is right.
func (s *shim) modify(c *wire.Conn, m wire.Message) *wire.Failure {
	var ch wire.Change
	if err := json.Unmarshal(m.Body, &ch); err != nil {
		return &wire.Failure{Class: wire.Invalid, Text: "malformed request"}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if f := s.mayChange(&ch); f != nil {
		return f
	}
	var done undos
	for _, step := range []func(*wire.Change, *undos) error{s.changeLimits, s.changeTree, s.commit} {
		if err := step(&ch, &done); err != nil {
			return asFailure(errors.Join(err, done.undo()))
		}
	}
	done.forget()
	s.events.tell(wire.Event{Kind: wire.EventModified})
	s.reply(c, wire.Message{Type: wire.OK})
	return nil
}

func (s *shim) mayChange(ch *wire.Change) *wire.Failure {
	is, err := os.ReadFile(ch.Record.Path)
	if err != nil {
		return &wire.Failure{Text: err.Error()}
	}
	if !bytes.Equal(is, ch.Record.Is) {
		return &wire.Failure{Class: wire.Conflict, Text: "it was changed meanwhile"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping() {
		return tooLate()
	}
	return s.refuses(wire.Modify)
}

// undos are what takes back what was done, and what lets go of what that needs.
type undos struct {
	back   []func() error
	closes []func() error
}

func (u *undos) add(back func() error)    { u.back = append(u.back, back) }
func (u *undos) keep(closes func() error) { u.closes = append(u.closes, closes) }

// undo takes back what was done, last first.
func (u *undos) undo() error {
	var errs []error
	for i := len(u.back) - 1; i >= 0; i-- {
		if err := u.back[i](); err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", err))
		}
	}
	u.forget()
	return errors.Join(errs...)
}

func (u *undos) forget() {
	for _, f := range u.closes {
		_ = f() // nothing is written through it
	}
	u.back, u.closes = nil, nil
}

func (s *shim) changeLimits(ch *wire.Change, done *undos) error {
	if ch.Limits == nil {
		return nil
	}
	from, to := sys.CgroupLimits(ch.Limits.From), sys.CgroupLimits(ch.Limits.To)
	if from.Pids == 0 && to.Pids > 0 {
		s.countProcesses()
		s.mu.Lock()
		s.awaitStarts() // of what the agent was asked for before
		s.mu.Unlock()
	}
	if err := s.cgroup.Update(from, to); err != nil {
		return err
	}
	done.add(func() error { return s.cgroup.Update(to, from) })
	if to.Pids > 0 { // only now: what is held to a limit does not multiply for ever
		s.countRunning()
	}
	return nil
}

// countRunning has the processes counted that there were before the limit, with
// those that came later.
func (s *shim) countRunning() {
	if err := s.cgroup.CountRunning(s.first.number()); err != nil { // each of the two groups is held to the limit
		note("count processes", err)
	}
}

func (s *shim) commit(ch *wire.Change, _ *undos) error {
	if s.stopping() {
		return tooLate()
	}
	return os.Rename(ch.Record.New, ch.Record.Path)
}
