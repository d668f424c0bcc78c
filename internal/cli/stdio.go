package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/hostcompute/hcs/container"
)

// stdio says which of our streams a process gets.
type stdio struct {
	interactive bool // standard input too
	detached    bool // none at all
	apart       bool // signals are for us, and end the connection
	detachKeys  []byte
}

// errDetached is the cause of a context that the detach keys have ended.
var errDetached = errors.New("detached")

// hold has the shim keep those streams that a client may come back to: a terminal's, and input that nobody has yet, of a command
// that was made to have some. What an exec at a terminal has is kept so that one can leave it.
func (o stdio) hold(spec *container.ProcessSpec) {
	isMain := spec.Role == container.Main
	switch {
	case isMain:
		isPassed := o.interactive && !o.detached
		spec.Pipes.Stdin = spec.Terminal || spec.Pipes.Stdin && !isPassed
	case spec.Terminal && o.interactive && !o.detached:
		spec.Pipes = container.Pipes{Stdin: true, Stdout: true}
	}
}

// check refuses what cannot be: a terminal's line discipline in the container
// is of use only with one here that is raw.
func (o stdio) check(a *app, terminal bool) error {
	if o.interactive && terminal && !o.detached && !term.IsTerminal(int(a.in.Fd())) {
		return usage("the input device is not a TTY")
	}
	return nil
}

// runProcess starts a process with our streams and returns its exit status,
// as an exitStatus, when it has ended. Signals that we get it gets. A detached
// one it only starts.
func (a *app) runProcess(ctx context.Context, s *container.System, spec container.ProcessSpec, o stdio) error {
	end := a.tracer.span("run process", text("container.id", s.ID()), text("process.executable.name", path.Base(spec.Args[0])))
	return end(a.carryProcess(ctx, s, spec, o))
}

func (a *app) carryProcess(ctx context.Context, s *container.System, spec container.ProcessSpec, o stdio) error {
	o.hold(&spec)
	if o.detached {
		_, err := s.CreateProcess(ctx, &spec)
		return asNotStarted(err)
	}
	c, err := a.join(ctx, &spec, o)
	if err != nil {
		return err
	}
	defer c.end()
	p, err := s.CreateProcess(ctx, &spec)
	if err != nil {
		return asNotStarted(err)
	}
	c.out.broken(func() { _ = p.Signal(c.on, brokenPipe) })
	return ended(c.wait(ctx, p))
}

// connection is of our streams with those of a process.
type connection struct {
	*app
	stdio
	terminal *terminal
	out      *pipeWriters
	on       context.Context         // until it is left
	leave    context.CancelCauseFunc // it
}

// join gives the process our streams.
func (a *app) join(ctx context.Context, spec *container.ProcessSpec, o stdio) (*connection, error) {
	a.signals.hold() // a new size of the terminal too, from before it is asked for its size
	t, err := a.openTerminal(spec, o)
	if err != nil {
		return nil, err
	}
	c := &connection{app: a, stdio: o, terminal: t}
	c.on, c.leave = context.WithCancelCause(context.WithoutCancel(ctx))
	c.out = a.connect(spec, o, c.detach)
	return c, nil
}

func (c *connection) detach() { c.leave(errDetached) }

func (c *connection) end() {
	c.terminal.restore()
	c.leave(nil)
}

// wait passes signals on until the process has ended, or is left.
func (c *connection) wait(ctx context.Context, p *container.Process) (container.ExitStatus, error) {
	defer c.signals.divert(ctx, func(sig syscall.Signal) { c.take(p, sig) })()
	st, err := p.Wait(c.on)
	if c.terminal.state != nil && errors.Is(err, errDetached) {
		c.terminal.restore()
		fmt.Fprintln(c.err) // the cursor is where the process has put it
	}
	return st, err
}

// take has a signal of ours go to the process, unless it ends the connection.
func (c *connection) take(p *container.Process, sig syscall.Signal) {
	switch {
	case sig == windowChanged:
		c.terminal.resize(c.on, p)
	case c.apart:
		c.leave(interrupted(sig))
	default:
		_ = p.Signal(c.on, sig) // one that has ended has no use for it
	}
}

// ended is what comes of a process's end: its exit status, or nothing where it was left running.
func ended(st container.ExitStatus, err error) error {
	switch {
	case errors.Is(err, errDetached):
		return nil
	case err != nil && !errors.Is(err, syscall.EPIPE):
		return err
	case st.Code != 0:
		return exitStatus(st.Code)
	}
	return nil
}

func asNotStarted(err error) error {
	if err == nil {
		return nil
	}
	return notStarted{err}
}

// connect gives the process our streams. Of input from a terminal the detach keys call detach.
func (a *app) connect(spec *container.ProcessSpec, o stdio, detach func()) *pipeWriters {
	if o.interactive {
		spec.Stdin = a.input(o, spec.Terminal, detach)
	}
	w := new(pipeWriters)
	spec.Stdout = w.writer(a.out)
	if !spec.Terminal {
		spec.Stderr = w.writer(a.err)
	}
	// Now a write into a broken pipe returns an error and does not kill us: who
	// has to learn of it is the process.
	signal.Notify(make(chan os.Signal, 1), brokenPipe)
	return w
}

func (a *app) input(o stdio, terminal bool, detach func()) io.Reader {
	if !terminal || len(o.detachKeys) == 0 {
		return a.in
	}
	return &keyReader{from: a.in, keys: o.detachKeys, detach: detach}
}

// pipeWriters pass what is written on, and the news that nobody reads it.
type pipeWriters struct {
	mu     sync.Mutex
	isGone bool
	tell   func()
}

type pipeWriter struct {
	to  io.Writer
	all *pipeWriters
}

func (p *pipeWriters) writer(to io.Writer) io.Writer { return &pipeWriter{to: to, all: p} }

func (w *pipeWriter) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	if err != nil { // a broken pipe, or a full disk: nobody gets what follows
		w.all.gone()
	}
	return n, err
}

func (p *pipeWriters) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isGone = true
	if p.tell != nil {
		p.tell()
	}
}

// broken says what to do when a reader is gone, which it may be already.
func (p *pipeWriters) broken(tell func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell = tell
	if p.isGone {
		tell()
	}
}

// terminal is ours, while it is the other end of one in a container.
type terminal struct {
	fd    int
	used  bool
	state *term.State // before it was made raw; nil if it was not
}

// openTerminal prepares our terminal, if there is one, for a process that is
// to have one. Without our input it stays as it is: Ctrl-C is a signal then,
// which is passed on.
func (a *app) openTerminal(spec *container.ProcessSpec, o stdio) (*terminal, error) {
	t := &terminal{fd: int(a.in.Fd()), used: spec.Terminal}
	if !spec.Terminal {
		return t, nil
	}
	spec.Rows, spec.Cols = t.size()
	if !o.interactive {
		return t, nil
	}
	state, err := term.MakeRaw(t.fd)
	if err != nil {
		return nil, fmt.Errorf("make the terminal raw: %w", err)
	}
	t.state = state
	return t, nil
}

func (t *terminal) restore() {
	if t.state != nil {
		_ = term.Restore(t.fd, t.state) // if it is gone nothing needs to be restored
		t.state = nil
	}
}

// size returns the terminal's size, that of standard output if the input is
// none, or zeros.
func (t *terminal) size() (rows, cols uint16) {
	for _, fd := range []int{t.fd, int(os.Stdout.Fd())} {
		if w, h, err := term.GetSize(fd); err == nil {
			return uint16(h), uint16(w)
		}
	}
	return 0, 0
}

func (t *terminal) resize(ctx context.Context, p *container.Process) {
	if rows, cols := t.size(); t.used && rows > 0 {
		_ = p.Resize(ctx, rows, cols) // it may have ended
	}
}
