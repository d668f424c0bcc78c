package shim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/hostcompute/hcs/internal/wire"
)

// noteStarting leaves on disk, before anybody is told that the system runs,
// that there is a shim: whoever finds that it is dead finds that the system is
// lost. A start that fails takes it back.
func (s *shim) noteStarting() {
	s.mu.Lock()
	starting := s.status
	s.mu.Unlock()
	starting.Started = time.Now().UnixNano() // as good as it will be known, should this be the last word
	err := s.before.keep()
	if err == nil {
		err = replaceFile(s.spec.Status, encodeStatus(&starting))
	}
	if err != nil {
		note("keep the status", err)
	}
}

// leftStatus is the status file as the last shim has left it.
type leftStatus struct {
	path   string
	text   []byte // nil if there was none
	isKept bool
}

func (l *leftStatus) keep() error {
	text, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.text, l.isKept = text, true
	return nil
}

// restore puts back what was kept, if anything has been.
func (l *leftStatus) restore() error {
	switch {
	case !l.isKept:
		return nil
	case l.text != nil:
		return replaceFile(l.path, l.text)
	}
	if err := os.Remove(l.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keepStatus writes the status for those who come after the shim. While it
// lives they ask it: one that is not on disk yet does no harm.
func (s *shim) keepStatus() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writeStatus(); err != nil {
		note("keep the status", err)
	}
}

// writeStatus replaces the status file. s.mu is held.
func (s *shim) writeStatus() error { return replaceFile(s.spec.Status, s.encodeStatus()) }

func (s *shim) encodeStatus() []byte { return encodeStatus(&s.status) }

func encodeStatus(st *wire.Status) []byte {
	b, err := json.Marshal(st)
	if err != nil {
		panic(err) // a struct of numbers and strings
	}
	return b
}

// replaceFile is not synced: should the machine stop, so has the system, and
// what is found then says that it is lost.
func replaceFile(path string, text []byte) error {
	temp := path + ".new"
	err := os.WriteFile(temp, text, 0o600)
	if err == nil {
		return os.Rename(temp, path)
	}
	_ = os.Remove(temp)
	if oerr := overwrite(path, text); oerr != nil {
		return errors.Join(err, oerr)
	}
	return nil
}

// overwrite writes a file in its place: what is left on a full disk.
func overwrite(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	return errors.Join(err, f.Truncate(int64(len(text))), f.Close())
}
