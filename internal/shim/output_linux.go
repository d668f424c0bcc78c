package shim

import (
	"os"
	"slices"
	"sync"
	"time"
)

// maxKept bounds the output that is kept for the next client.
const maxKept = 32 << 10

// output is one stream of a process's output on its way to the log and to all
// clients that are attached. Each of them gets all of it from when it came, and
// each that is slow slows the process down, as the reader of a pipe does. What
// comes while there is none is kept for the next: before the first one the
// process waits when the buffer is full, later it loses the oldest.
type output struct {
	name  string
	from  *os.File
	log   *logFile // nil: none
	keeps bool     // output for the next client

	mu      sync.Mutex // of all below
	room    sync.Cond  // something has changed
	to      []*os.File // clients; never changed in place
	kept    []byte
	met     bool // a client has been there, or will not come
	ended   bool
	noLater time.Time // clients have to have read by then; zero is any time
}

// copy reads until the last writer is gone. The terminal, which is the input
// too, stays open.
func (o *output) copy(terminal bool) {
	defer o.end()
	buf := make([]byte, 32<<10)
	for {
		n, err := o.from.Read(buf)
		if n > 0 {
			o.deliver(buf[:n])
		}
		if err == nil {
			continue
		}
		if !terminal {
			o.from.Close()
		}
		return
	}
}

func (o *output) deliver(p []byte) {
	if o.log != nil {
		o.log.write(o.name, p)
	}
	for taken := false; !taken; {
		for _, f := range o.clients() {
			if _, err := f.Write(p); err != nil {
				o.remove(f)
				continue
			}
			taken = true
		}
		taken = taken || o.keep(p)
	}
}

func (o *output) clients() []*os.File {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.to
}

// remove drops a client that is gone, or that did not read in time.
func (o *output) remove(f *os.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = slices.DeleteFunc(slices.Clone(o.to), func(c *os.File) bool { return c == f })
	f.Close()
}

// keep keeps output that no client has taken. It reports false if one has come
// meanwhile.
func (o *output) keep(p []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.keeps {
		return true
	}
	for !o.met && len(o.kept)+len(p) > maxKept {
		o.room.Wait()
	}
	if len(o.to) > 0 {
		return false
	}
	o.kept = append(o.kept, p...)
	o.kept = slices.Delete(o.kept, 0, max(0, len(o.kept)-maxKept))
	return true
}

// add adds a client and returns what was kept for it.
func (o *output) add(client *os.File) (kept []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept, o.kept = o.kept, nil
	if o.ended {
		client.Close()
		return kept
	}
	_ = client.SetWriteDeadline(o.noLater) // not for files, which never block
	o.to, o.met = append(slices.Clone(o.to), client), true
	o.room.Broadcast()
	return kept
}

// giveUp is told that no client will come.
func (o *output) giveUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.met = true
	o.room.Broadcast()
}

// hurry bounds how long the rest may take.
func (o *output) hurry(deadline time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.noLater = deadline
	for _, f := range o.to {
		_ = f.SetWriteDeadline(deadline)
	}
	if o.from != nil {
		_ = o.from.SetReadDeadline(deadline)
	}
}

// end tells the clients that there is no more.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	closeAll(o.to)
	o.to, o.ended = nil, true
}
