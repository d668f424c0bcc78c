package shim

import (
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// relay stands between a Logged process and the client that asked for it:
// output goes to the log whether or not the client is still there.
type relay struct {
	log    *logFile
	stdin  *os.File // the client's, for a terminal
	stdout *os.File // the client's; nil if it wants none
	stderr *os.File
	master *os.File   // the terminal
	reads  []*os.File // our ends of the process's output
	copies sync.WaitGroup
}

// newRelay takes over the descriptors that came with the request and returns
// those that the process is to get instead, as its standard streams.
func newRelay(r *wire.SpawnRequest, fds []int, log *logFile) (*relay, []*os.File, error) {
	l := &relay{log: log}
	for _, fd := range fds {
		sys.MakePollable(fd) // else finish could not bound a write
	}
	theirs := files(fds)
	for _, stream := range []struct {
		flag wire.SpawnFlags
		file **os.File
	}{{wire.Stdin, &l.stdin}, {wire.Stdout, &l.stdout}, {wire.Stderr, &l.stderr}} {
		if r.Flags&stream.flag != 0 && len(theirs) > 0 {
			*stream.file, theirs = theirs[0], theirs[1:]
		}
	}
	closeAll(theirs)
	if r.Flags&wire.Terminal != 0 {
		r.Flags &^= wire.Stdin | wire.Stdout | wire.Stderr
		return l, nil, nil
	}
	return l.pipes(r)
}

// pipes makes the process's output pipes and starts copying. Its input is the
// client's own descriptor.
func (l *relay) pipes(r *wire.SpawnRequest) (*relay, []*os.File, error) {
	var theirs []*os.File
	if l.stdin != nil {
		// As programs expect it. Fd does not do that: the file was not made non-blocking by package os.
		if err := syscall.SetNonblock(int(l.stdin.Fd()), false); err != nil {
			l.close()
			return nil, nil, err
		}
		theirs, l.stdin = append(theirs, l.stdin), nil
	}
	var ours []*os.File
	for range 2 {
		pr, pw, err := os.Pipe()
		if err != nil {
			closeAll(append(theirs, ours...))
			l.close()
			return nil, nil, err
		}
		ours, theirs = append(ours, pr), append(theirs, pw)
	}
	r.Flags |= wire.Stdout | wire.Stderr
	l.reads = ours
	l.copies.Go(func() { l.copy(ours[0], "stdout", l.stdout) })
	l.copies.Go(func() { l.copy(ours[1], "stderr", l.stderr) })
	return l, theirs, nil
}

// attach starts copying from and to the terminal.
func (l *relay) attach(master *os.File) {
	l.master, l.reads = master, []*os.File{master}
	l.copies.Go(func() { l.copy(master, "stdout", l.stdout) })
	if l.stdin != nil {
		go func() { // ends with the client's end, or with the relay's
			_, _ = io.Copy(master, l.stdin)
		}()
	}
}

// copy reads until the last writer is gone. A client that is gone, or that
// the relay gave up on, is passed over.
func (l *relay) copy(from *os.File, stream string, to *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			l.log.write(stream, buf[:n])
			if to != nil {
				if _, err := to.Write(buf[:n]); err != nil {
					to = nil
				}
			}
		}
		if err != nil {
			if from != l.master {
				from.Close()
			}
			return
		}
	}
}

// patience is how long a client that does not read, or a process elsewhere
// that was handed the output's other end, may hold up the end.
const patience = 10 * time.Second

// finish waits for the output that is still on its way, after the last
// process has ended, and closes everything.
func (l *relay) finish() {
	for _, f := range []*os.File{l.stdout, l.stderr} {
		if f != nil {
			_ = f.SetWriteDeadline(time.Now().Add(patience)) // not for files, which never block
		}
	}
	for _, f := range l.reads {
		_ = f.SetReadDeadline(time.Now().Add(patience))
	}
	l.copies.Wait()
	l.close()
}

func (l *relay) close() {
	closeAll([]*os.File{l.stdin, l.stdout, l.stderr, l.master})
}

func closeAll(list []*os.File) {
	for _, f := range list {
		if f != nil {
			f.Close()
		}
	}
}
