package shim

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// input is a process's input, which any number of clients write to. It ends
// when one of them says so, not when one of them goes.
type input struct {
	to *os.File // nil until the terminal is there

	mu      sync.Mutex
	sources map[*os.File]bool
	waiting []*os.File // sources that came before the terminal
	ending  bool
	feeds   sync.WaitGroup
}

// newInput makes an input of our end of a pipe, or of a terminal that is to
// come, with a first client or none.
func newInput(to, client *os.File) *input {
	in := &input{to: to, sources: make(map[*os.File]bool)}
	if client != nil {
		in.waiting = append(in.waiting, client)
	}
	return in
}

// begin starts copying.
func (in *input) begin() {
	in.mu.Lock()
	list := in.waiting
	in.waiting = nil
	in.mu.Unlock()
	for _, f := range list {
		in.add(f)
	}
}

// add adds a client.
func (in *input) add(client *os.File) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ending {
		client.Close()
		return
	}
	in.sources[client] = true
	in.feeds.Go(func() { in.feed(client) })
}

// feed copies until the client's end, or until the process takes no more.
func (in *input) feed(client *os.File) {
	defer in.remove(client)
	buf := make([]byte, 8<<10)
	for {
		n, err := client.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			in.drain(client, buf)
			return
		}
		if n > 0 {
			_, werr := in.to.Write(buf[:n])
			err = errors.Join(err, werr)
		}
		if err != nil {
			return
		}
	}
}

// drain copies what the client had written before it said that this is all.
func (in *input) drain(client *os.File, buf []byte) {
	raw, err := client.SyscallConn()
	if err != nil || client.SetReadDeadline(time.Time{}) != nil {
		return
	}
	for {
		n := 0
		rerr := raw.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), buf)
			return true
		})
		if rerr != nil || err != nil || n <= 0 {
			return
		}
		if _, err := in.to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (in *input) remove(client *os.File) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.sources, client)
	client.Close()
}

// end ends the input, after what its clients have written so far.
func (in *input) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ending {
		return
	}
	in.ending = true
	for f := range in.sources {
		_ = f.SetReadDeadline(time.Now()) // each then reads what is there, and no more
	}
	go func() { // a process that does not read holds this up until it ends
		in.feeds.Wait()
		in.to.Close()
	}()
}

// close closes everything at once: nobody reads any more.
func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ending = true
	closeAll(append(in.waiting, in.to))
	for f := range in.sources {
		f.Close()
	}
}
