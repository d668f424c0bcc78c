package shim

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// relay stands between a process whose streams the shim holds and the clients
// that are attached to them: they come and go, the process does not notice.
type relay struct {
	in       *input     // nil: the process has an input of its own, or none
	outs     [2]*output // standard output and error; nil: the process has its own
	terminal bool
	master   *os.File // the terminal, once there is one

	parts  atomic.Int32   // outputs that go on, and the process
	copies sync.WaitGroup // the outputs
	gone   func()         // is called when nothing goes on any more
}

// streams are the standard streams in the order in which their descriptors
// come with a message.
var streams = [...]wire.SpawnFlags{wire.Stdin, wire.Stdout, wire.Stderr}

// take makes files of the descriptors that came with a message, and closes
// what nobody asked for.
func take(flags wire.SpawnFlags, fds []int) (clients [len(streams)]*os.File) {
	for _, fd := range fds {
		sys.MakePollable(fd) // else finish could not bound a write
	}
	list := files(fds)
	for i, s := range streams {
		if flags&s != 0 && len(list) > 0 {
			clients[i], list = list[0], list[1:]
		}
	}
	closeAll(list)
	return clients
}

// newRelay takes over the descriptors that came with the request and returns
// those that the process is to get instead, as its standard streams; the
// request's flags are made to fit.
func newRelay(r *wire.SpawnRequest, fds []int, log *logFile) (*relay, []*os.File, error) {
	l := &relay{terminal: r.Flags&wire.Terminal != 0, gone: func() {}}
	l.parts.Store(1)
	if r.Flags&wire.Logged == 0 {
		log = nil
	}
	clients := take(r.Flags, fds)
	held := r.Flags.Attachable()
	if l.terminal {
		r.Flags &^= wire.Stdin | wire.Stdout | wire.Stderr
		closeAll(clients[2:])
		l.in = newInput(nil, clients[0])
		l.addOutput(0, nil, log, held&wire.Stdout != 0 && log == nil, clients[1])
		return l, nil, nil
	}
	theirs, err := l.pipes(r, clients, held, log)
	if err != nil {
		closeAll(theirs)
		l.abandon()
		return nil, nil, err
	}
	l.start()
	return l, theirs, nil
}

// pipes makes a pipe for each stream that is held; what is not held is the
// client's own descriptor.
func (l *relay) pipes(r *wire.SpawnRequest, clients [len(streams)]*os.File, held wire.SpawnFlags, log *logFile) (theirs []*os.File, err error) {
	for i, s := range streams {
		if held&s == 0 {
			if clients[i] != nil {
				// As programs expect it. Fd does not do that: the file was not made non-blocking by package os.
				err = syscall.SetNonblock(int(clients[i].Fd()), false)
				theirs = append(theirs, clients[i])
			}
		} else if pr, pw, perr := os.Pipe(); perr != nil {
			err = perr
			closeAll(clients[i : i+1])
		} else if s == wire.Stdin {
			theirs, l.in = append(theirs, pr), newInput(pw, clients[i])
		} else {
			theirs = append(theirs, pw)
			l.addOutput(i-1, pr, log, log == nil, clients[i])
		}
		if err != nil {
			closeAll(clients[i+1:])
			return theirs, err
		}
	}
	r.Flags |= held
	return theirs, nil
}

func (l *relay) addOutput(i int, from *os.File, log *logFile, keeps bool, client *os.File) {
	o := &output{name: [...]string{"stdout", "stderr"}[i], from: from, log: log, keeps: keeps}
	o.room.L = &o.mu
	if client != nil {
		o.to, o.met = []*os.File{client}, true
	}
	l.outs[i] = o
	l.parts.Add(1)
}

// start starts copying.
func (l *relay) start() {
	if l.in != nil {
		l.in.begin()
	}
	for _, o := range l.outs {
		if o != nil {
			l.copies.Go(func() {
				o.copy(l.terminal)
				l.partEnded()
			})
		}
	}
}

// useTerminal starts copying from and to the terminal.
func (l *relay) useTerminal(master *os.File) {
	l.master, l.outs[0].from, l.in.to = master, master, master
	l.start()
}

// partEnded is told that an output, or the process, has ended.
func (l *relay) partEnded() {
	if l.parts.Add(-1) == 0 {
		l.close()
		l.gone()
	}
}

// abandon closes everything of a relay that copies nothing yet.
func (l *relay) abandon() {
	for _, o := range l.outs {
		if o != nil {
			closeAll([]*os.File{o.from})
			o.end()
		}
	}
	l.close()
}

// attach adds a client's descriptors, and returns the output that nobody had
// taken.
func (l *relay) attach(flags wire.SpawnFlags, fds []int) wire.Backlog {
	clients := take(flags, fds)
	switch {
	case clients[0] == nil:
	case l.in == nil:
		clients[0].Close()
	default:
		l.in.add(clients[0])
	}
	var kept [2][]byte
	for i, o := range l.outs {
		switch client := clients[i+1]; {
		case client == nil:
		case o == nil:
			client.Close()
		default:
			kept[i] = o.add(client)
		}
	}
	return wire.Backlog{Stdout: kept[0], Stderr: kept[1]}
}

// closeInput ends the process's input. A terminal has no such end.
func (l *relay) closeInput() {
	if l.in != nil && !l.terminal {
		l.in.end()
	}
}

// forget is told that nobody can attach any more.
func (l *relay) forget() {
	for _, o := range l.outs {
		if o != nil {
			o.giveUp()
		}
	}
}

// patience is how long a client that does not read, or a process elsewhere
// that was handed the output's other end, may hold up the end.
const patience = 10 * time.Second

// finish waits for the output that is still on its way, after the last
// process has ended, but not longer than for the patience; then it closes
// everything.
func (l *relay) finish(patience time.Duration) {
	deadline := time.Now().Add(patience)
	for _, o := range l.outs {
		if o != nil {
			o.giveUp()
			o.hurry(deadline)
		}
	}
	l.copies.Wait()
	for _, o := range l.outs {
		if o != nil {
			o.end() // of a terminal that never was
		}
	}
	l.close()
	l.gone()
}

func (l *relay) close() {
	if l.in != nil {
		l.in.close()
	}
	closeAll([]*os.File{l.master})
}

func closeAll(list []*os.File) {
	for _, f := range list {
		if f != nil {
			f.Close()
		}
	}
}
