package shim

import (
	"encoding/json"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/journal"
	"github.com/hostcompute/hcs/internal/wire"
)

// events tells what happens, in the order in which it did. Nobody waits for
// that to be written: neither a disk that is full or slow nor another writer
// that stopped on its way holds up the container.
type events struct {
	spec   *wire.Spec
	alive  *os.File
	writer *journal.Writer

	mu     sync.Mutex
	queue  []wire.Event
	lost   int  // for which the queue had no room
	busy   bool // events were taken off the queue and are being written
	closed bool
	more   *sync.Cond
	idle   *sync.Cond    // the queue is empty and not busy
	done   chan struct{} // closed when all is written after close
}

// maxQueue bounds the events that wait to be written.
const maxQueue = 4096

// newEvents says that the shim is alive, from now until it is not.
func newEvents(spec *wire.Spec) (*events, error) {
	alive, err := os.OpenFile(spec.Events.Alive, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(alive.Fd()), syscall.LOCK_EX); err != nil { // those who look have it for a moment
		return nil, errors.Join(&os.PathError{Op: "lock", Path: alive.Name(), Err: err}, alive.Close())
	}
	e := &events{spec: spec, alive: alive, writer: journal.NewWriter(spec.Events.Dir), done: make(chan struct{})}
	e.more, e.idle = sync.NewCond(&e.mu), sync.NewCond(&e.mu)
	go e.write()
	return e, nil
}

// tell adds the event, of now unless it has a time.
func (e *events) tell(ev wire.Event) {
	if ev.Time == 0 {
		ev.Time = time.Now().UnixNano()
	}
	ev.ID, ev.Name, ev.Image = e.spec.ID, e.spec.Events.Name, e.spec.Events.Image
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) >= maxQueue {
		e.lost++
		return
	}
	e.queue = append(e.queue, ev)
	e.more.Signal()
}

// write writes what is in the queue, until it is closed and empty.
func (e *events) write() {
	defer close(e.done)
	said := false
	for {
		list, lost := e.take()
		if lost > 0 {
			e.writer.Lose(lost)
		}
		if list == nil {
			return
		}
		for i := range list {
			if err := e.append(&list[i]); err != nil && !said {
				note("tell what happens", err)
				said = true // once: it is not to fill the disk, if it is not full
			}
		}
	}
}

func (e *events) append(ev *wire.Event) error {
	text, err := json.Marshal(ev)
	if err == nil {
		_, err = e.writer.Append(text)
	}
	return err
}

// take waits for events and takes them off the queue; none come after the end.
func (e *events) take() (list []wire.Event, lost int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.busy = false; len(e.queue) == 0 && !e.closed; {
		e.idle.Broadcast()
		e.more.Wait()
	}
	e.busy = true
	list, lost = e.queue, e.lost
	e.queue, e.lost = nil, 0
	return list, lost
}

// settle waits until all that was told is written, though not for long: who
// follows events from now on is not to be told of what a client knows already.
func (e *events) settle() {
	late := false
	timer := time.AfterFunc(settleTime, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		late = true
		e.idle.Broadcast()
	})
	defer timer.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for (e.busy || len(e.queue) > 0) && !late && !e.closed {
		e.idle.Wait()
	}
}

// settleTime bounds how long a client waits for the journal.
const settleTime = time.Second

// close waits until all is written, though not for ever, and lets the shim be
// not alive any more.
func (e *events) close() error {
	e.mu.Lock()
	e.closed = true
	e.more.Signal()
	e.mu.Unlock()
	select {
	case <-e.done:
	case <-time.After(patience):
	}
	return e.alive.Close()
}
