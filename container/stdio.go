package container

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/wire"
)

// Pipes says which streams of a process are kept open for all who ask for them.
// They pass the shim, which costs a copy; a process that has none gives its
// streams to its creator directly. A terminal has one output, Stdout.
//
// Output goes to everybody who has the stream open. What is written while
// nobody has is kept for the next who opens it: before the first one the
// process waits when 32 KiB and the pipe are full; later, so that nobody's
// death stops it, the oldest is lost. A Main process's output is in the log and
// not kept. Input ends by Process.CloseStdin, not when those who write to it go.
//
// A process with output in Pipes that its creator has not asked for in Stdout or
// Stderr is remembered until its creator has called OpenStdio or Close, which
// costs a connection as long.
type Pipes struct {
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

func (p Pipes) flags() (f wire.SpawnFlags) {
	for _, s := range []struct {
		want bool
		flag wire.SpawnFlags
	}{{p.Stdin, wire.HoldStdin}, {p.Stdout, wire.HoldStdout}, {p.Stderr, wire.HoldStderr}} {
		if s.want {
			f |= s.flag
		}
	}
	return f
}

// Stdio are ends of a process's streams, each to be closed by who has it. One
// that the process does not have is nil.
type Stdio struct {
	Stdin  io.WriteCloser // closing it does not end the process's input
	Stdout io.ReadCloser
	Stderr io.ReadCloser
}

// Close closes those that there are and are not closed yet.
func (s *Stdio) Close() error {
	var list []io.Closer
	if s.Stdin != nil {
		list = append(list, s.Stdin)
	}
	for _, r := range []io.ReadCloser{s.Stdout, s.Stderr} {
		if r != nil {
			list = append(list, r)
		}
	}
	var errs []error
	for _, c := range list {
		if err := c.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// RememberedProcesses is how many processes that have ended a running system
// can still be asked about.
const RememberedProcesses = wire.Remembered

// OpenProcess finds a process that was created in the running system, by this
// program or another, by its number there: one that runs, or one of the
// RememberedProcesses that ended last. The error is of class ErrNotFound if
// there is none, and of class ErrFailedPrecondition if the system does not run.
func (s *System) OpenProcess(ctx context.Context, pid int) (*Process, error) {
	p, err := s.openProcess(ctx, pid)
	if err != nil {
		return nil, s.wrap("open a process in", err)
	}
	return p, nil
}

func (s *System) openProcess(ctx context.Context, pid int) (*Process, error) {
	missing := fault(errdefs.ErrNotFound, "there is no process %d", pid)
	if pid <= 0 || int64(pid) > 1<<32-1 {
		return nil, missing
	}
	m, c, err := s.exchange(ctx, wire.Message{Type: wire.Open, Body: wire.OpenRequest{Pid: uint32(pid)}.Encode()})
	if err != nil {
		if c != nil { // the shim has answered
			s.release(c)
			if errdefs.IsNotFound(err) {
				err = missing
			}
		}
		return nil, err
	}
	var found wire.OpenReply
	if err := found.Decode(m.Body); err != nil {
		c.Close()
		return nil, err
	}
	p := &Process{system: s, conn: c, seq: m.Seq, pid: pid, flags: found.Flags, done: make(chan struct{})}
	if found.Ended && found.Flags&wire.Main == 0 {
		p.await(c) // how it ended is on its way
	} else {
		go p.await(c)
	}
	return p, nil
}

// OpenStdio opens the streams that the process was created with as Pipes, and
// the output of a Main process: what nobody has read yet, and what comes. The
// error is of class ErrFailedPrecondition if the streams are its creator's
// alone, and of class ErrNotFound if the process is not remembered any more:
// the first time for who created it, it is, unless Close was called.
func (p *Process) OpenStdio(ctx context.Context) (*Stdio, error) {
	s, err := p.openStdio(ctx)
	if err != nil {
		return nil, p.system.wrap("open the streams of a process in", err)
	}
	return s, nil
}

func (p *Process) openStdio(ctx context.Context) (*Stdio, error) {
	list := p.flags.Attachable()
	if list == 0 {
		if p.flags&(wire.Stdin|wire.Stdout|wire.Stderr|wire.Terminal) != 0 {
			return nil, fault(errdefs.ErrFailedPrecondition, "they are with its creator alone")
		}
		return new(Stdio), nil
	}
	ends := &pipes{}
	var errs []error
	for _, s := range []struct {
		flag wire.SpawnFlags
		ours **os.File
	}{{wire.Stdin, &ends.stdin}, {wire.Stdout, &ends.stdout}, {wire.Stderr, &ends.stderr}} {
		if list&s.flag != 0 {
			errs = append(errs, ends.open(s.flag, s.ours))
		}
	}
	err := errors.Join(errs...)
	var backlog wire.Backlog
	if err == nil {
		backlog, err = p.attach(ctx, ends)
	}
	ends.closeTheirs()
	if err != nil {
		return nil, errors.Join(err, ends.close())
	}
	p.givePlace()
	return newStdio(ends, backlog), nil
}

// attach hands the far ends to the shim.
func (p *Process) attach(ctx context.Context, ends *pipes) (wire.Backlog, error) {
	m, err := p.system.call(ctx, wire.Message{
		Type: wire.Attach, Seq: p.seq, Body: wire.AttachRequest{Flags: ends.flags}.Encode(), Files: ends.theirFDs(),
	})
	var l wire.Backlog
	if err == nil {
		err = l.Decode(m.Body)
	}
	return l, err
}

func newStdio(ends *pipes, backlog wire.Backlog) *Stdio {
	s := new(Stdio)
	if ends.stdin != nil {
		s.Stdin = ends.stdin
	}
	if ends.stdout != nil {
		s.Stdout = &backlogReader{ends.stdout, backlog.Stdout}
	}
	if ends.stderr != nil {
		s.Stderr = &backlogReader{ends.stderr, backlog.Stderr}
	}
	return s
}

// backlogReader reads what came before the file's content first.
type backlogReader struct {
	*os.File
	backlog []byte
}

func (r *backlogReader) Read(p []byte) (int, error) {
	if len(r.backlog) == 0 {
		return r.File.Read(p)
	}
	n := copy(p, r.backlog)
	r.backlog = r.backlog[n:]
	return n, nil
}

// WriteTo is not the file's own, which does not know of the backlog.
func (r *backlogReader) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(r.backlog)
	r.backlog = r.backlog[n:]
	if err != nil {
		return int64(n), err
	}
	m, err := io.Copy(w, r.File)
	return int64(n) + m, err
}

// CloseStdin ends the process's standard input, after what was written to it,
// and whatever ProcessSpec.Stdin still holds. It ends for all who write to it.
// A terminal has no such end: a program there reads Ctrl-D. The error is of
// class ErrFailedPrecondition if the input is its creator's alone.
func (p *Process) CloseStdin(ctx context.Context) error {
	if err := p.closeStdin(ctx); err != nil {
		return p.system.wrap("close the input of a process in", err)
	}
	return nil
}

func (p *Process) closeStdin(ctx context.Context) error {
	if p.flags&wire.Terminal != 0 {
		return nil
	}
	if p.stdin != nil {
		if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	switch {
	case p.flags&wire.HoldStdin != 0:
	case p.stdin == nil && p.flags&wire.Stdin != 0:
		return fault(errdefs.ErrFailedPrecondition, "it is with its creator alone")
	default:
		return nil
	}
	_, err := p.system.call(ctx, wire.Message{Type: wire.CloseInput, Seq: p.seq})
	select {
	case <-p.done: // ended, and needs no input
		return nil
	default:
	}
	if errdefs.IsNotFound(err) {
		return nil // ended and forgotten
	}
	return err
}
