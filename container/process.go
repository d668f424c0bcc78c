package container

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// ProcessSpec says which process to create in a system.
type ProcessSpec struct {
	// Args is the program and its arguments. A program without a slash is looked
	// up in the PATH of Env, in the system.
	Args []string `json:"args"`
	// Path is the program if that is not Args[0], which is then no more than what
	// the program is told that it is called. It is looked up in the same way.
	Path string   `json:"path,omitempty"`
	Env  []string `json:"env,omitempty"` // "KEY=value"; PATH, HOME and HOSTNAME are added if they are missing
	Dir  string   `json:"dir,omitempty"` // working directory; empty is /
	// User is "user", "uid", "user:group" or "uid:gid", by the system's own
	// /etc/passwd and /etc/group. Empty is root.
	User string `json:"user,omitempty"`
	// Groups are supplementary groups besides those that the user has: names of the
	// system's own /etc/group, or ids. The error is of class ErrInvalidArgument if
	// there is no such name, or if the system's user namespace has not the id or,
	// made with one id by an ordinary user, no groups to give.
	Groups []string `json:"groups,omitempty"`
	// Terminal gives the process a terminal of its own; Stdout then gets all its
	// output, and Stderr is not used.
	Terminal   bool   `json:"terminal,omitempty"`
	Rows, Cols uint16 `json:"-"` // first size of the terminal

	// Role says what the process is to the system.
	Role Role `json:"-"`

	// Stdin is copied to the process until its end; the process then reads end of
	// file. Stdout and Stderr take its output; if they are the same, at most one
	// goroutine at a time calls Write. What is nil is /dev/null. The copying from Stdin may outlast the process by one Read.
	Stdin  io.Reader `json:"-"`
	Stdout io.Writer `json:"-"`
	Stderr io.Writer `json:"-"`

	// Pipes are the streams that OpenStdio gives, to this program and others, any
	// number of times, also after the process has ended. They may be combined with
	// Stdin, Stdout and Stderr, whose bytes then go the same way.
	Pipes Pipes `json:"pipes,omitzero"`

	// OutputGrace bounds how long Wait waits, after the end of an Additional
	// process, for output that others still hold open: what it has started in the
	// background. 0 waits until they close it.
	OutputGrace time.Duration `json:"-"`
}

// Role says what a process is to its system.
type Role uint8

const (
	// Additional processes come and go. Their output is for their creator.
	Additional Role = iota
	// Main is the process whose end is the end of the system; there is at most
	// one. Its output also goes to the system's log, whether its creator lives or
	// not. Its working directory is made if it is missing.
	Main
)

// ExitStatus says how a process ended.
type ExitStatus struct {
	Code    int            // its own, or 128 plus the signal's number
	Signal  syscall.Signal // that killed it, or 0
	User    time.Duration  // CPU time it took
	System  time.Duration
	Started time.Time
	Ended   time.Time
	// OOMKilled says that the kernel killed it for lack of memory. The kernel
	// counts such kills, but does not name the process: one that dies of a SIGKILL
	// from inside the system at the same moment is taken for another.
	OOMKilled bool
}

// Process is a process that was created in a system. Its methods may be called
// at once.
type Process struct {
	system *System
	seq    uint32
	pid    int
	flags  wire.SpawnFlags
	master *os.File // the terminal, where the shim does not hold it

	mu    sync.Mutex
	conn  *wire.Conn // to be told of the end, and what the place is kept by; nil when it is of no more use, or by Close
	place place
	idle  bool // nobody reads from the connection

	output    sync.WaitGroup // copies that Wait waits for
	allCopied chan struct{}  // closed when they are done
	sources   []*os.File     // our ends, copied from
	stdin     *os.File       // our end
	copied    []error        // of output
	grace     time.Duration

	done   chan struct{} // closed when status and err are set
	status ExitStatus
	err    error
}

// Pid returns the process's number in the system.
func (p *Process) Pid() int { return p.pid }

// Done returns a channel that is closed when the process has ended; then Wait
// waits at most for output. It is closed also when nobody will tell any more.
func (p *Process) Done() <-chan struct{} { return p.done }

// CreateProcess starts a process in the running system.
func (s *System) CreateProcess(ctx context.Context, spec *ProcessSpec) (*Process, error) {
	p, err := s.createProcess(ctx, spec)
	if err != nil {
		return nil, s.wrap("create a process in", err)
	}
	return p, nil
}

func (s *System) createProcess(ctx context.Context, spec *ProcessSpec) (*Process, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	pipes, err := openPipes(spec)
	if err != nil {
		return nil, err
	}
	r := spec.request(pipes)
	r.Limits = s.record.Spec.processLimits()
	m := wire.Message{Type: wire.Spawn, Body: r.Encode(), Files: pipes.theirFDs()}
	reply, c, err := s.exchange(ctx, m)
	switch {
	case err == nil && reply.Type == wire.Began:
		return s.began(c, reply, r.Flags, spec, pipes), nil
	case err == nil:
		wire.CloseFiles(reply.Files)
		err = errors.Join(wire.ErrMalformed, c.Close())
	case c != nil:
		s.release(c)
	case errdefs.IsNotFound(err): // the system, which is not to be taken for a program
		err = fault(errdefs.ErrUnavailable, "%s", err.Error())
	}
	return nil, errors.Join(err, pipes.close())
}

// check refuses what no kernel starts, and variables that no program finds.
func (p *ProcessSpec) check() error {
	if len(p.Args) == 0 {
		return fault(errdefs.ErrInvalidArgument, "no program given")
	}
	for _, text := range slices.Concat(p.Args, p.Env, p.Groups, []string{p.Dir, p.User}) {
		if strings.ContainsRune(text, 0) {
			return fault(errdefs.ErrInvalidArgument, "%.40q has a zero byte", text)
		}
	}
	if slices.Contains(p.Groups, "") {
		return fault(errdefs.ErrInvalidArgument, "group %q: give a name or an id", "")
	}
	for _, v := range p.Env {
		if strings.Index(v, "=") < 1 {
			return fault(errdefs.ErrInvalidArgument, "environment variable %q is malformed: it is not KEY=VALUE", v)
		}
	}
	return nil
}

func (p *ProcessSpec) request(pipes *pipes) *wire.SpawnRequest {
	r := &wire.SpawnRequest{
		Args: p.Args, Path: p.Path, Env: p.Env, Dir: p.Dir, User: p.User, Groups: p.Groups, Rows: p.Rows, Cols: p.Cols,
		Flags: pipes.flags,
	}
	if p.Terminal {
		r.Flags |= wire.Terminal
	}
	if p.Role == Main {
		r.Flags |= wire.Main | wire.Logged | wire.MakeDir
	}
	r.Flags |= p.Pipes.flags()
	return r
}

// began makes the Process of a reply and starts the copying.
func (s *System) began(c *wire.Conn, m wire.Message, flags wire.SpawnFlags, spec *ProcessSpec, pipes *pipes) *Process {
	var b wire.Spawned
	_ = b.Decode(m.Body) // checked by the shim
	p := &Process{
		system: s, conn: c, seq: m.Seq, pid: int(b.Pid), flags: flags, done: make(chan struct{}),
	}
	if p.flags.WantsPlace() {
		p.place = kept
	}
	pipes.closeTheirs()
	if len(m.Files) == 1 {
		p.master = sys.NewTerminal(m.Files[0])
		pipes.useTerminal(p.master, spec)
	}
	if spec.Role == Additional {
		p.grace = spec.OutputGrace
	}
	p.copyStreams(spec, pipes)
	go p.await(c)
	return p
}

// copyStreams starts what carries bytes between our ends of the pipes and the
// caller's streams.
func (p *Process) copyStreams(spec *ProcessSpec, pipes *pipes) {
	if p.stdin = pipes.stdin; p.stdin != nil {
		go func() {
			_, _ = io.Copy(p.stdin, spec.Stdin)
			if p.stdin != p.master {
				p.stdin.Close()
			}
			if p.flags&wire.HoldStdin != 0 {
				_ = p.CloseStdin(context.Background()) // else it has ended, or so has the system
			}
		}()
	}
	p.copied = make([]error, 2)
	for i, c := range []struct {
		from *os.File
		to   io.Writer
	}{{pipes.stdout, spec.Stdout}, {pipes.stderr, spec.Stderr}} {
		if c.from == nil {
			continue
		}
		if c.to == nil {
			c.to = io.Discard
		}
		p.sources = append(p.sources, c.from)
		p.output.Go(func() { p.copied[i] = p.copyOutput(c.to, c.from) })
	}
	p.allCopied = make(chan struct{})
	if len(p.sources) == 0 {
		close(p.allCopied)
		return
	}
	go func() {
		p.output.Wait()
		close(p.allCopied)
	}()
}

func (p *Process) copyOutput(to io.Writer, from *os.File) error {
	_, err := io.Copy(to, from)
	if errors.Is(err, syscall.EIO) && from == p.master || errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil // how a terminal ends; and how Wait gives up
	}
	if err != nil { // the process must not block because we cannot write
		_, _ = io.Copy(io.Discard, from)
	}
	return errors.Join(err, from.Close())
}

// await receives the process's end.
func (p *Process) await(c *wire.Conn) {
	defer close(p.done)
	m, err := c.Reply()
	var x wire.Exit
	if err == nil {
		wire.CloseFiles(m.Files)
		if m.Type == wire.Ended {
			err = x.Decode(m.Body)
		} else {
			err = wire.ErrMalformed
		}
	}
	switch {
	case err == nil:
		p.status = exitStatus(x)
	case p.isClosed():
		p.err = p.system.wrap("wait for a process in", fault(errdefs.ErrFailedPrecondition, "it was let go of"))
	default:
		p.err = p.lost(err)
	}
	if p.err == nil && p.flags&wire.Main != 0 {
		_, _ = c.Receive() // the shim's end: all is taken down
	}
	p.finish(c)
}

func (p *Process) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn == nil
}

// place says whether the shim remembers a process for its creator, and does so
// as long as the connection is not closed.
type place uint8

const (
	none  place = iota
	kept        // until OpenStdio, or Close
	given       // up: it is of no use any more
)

// finish gives the connection back, unless Close has it, or it is what keeps
// the creator's place.
func (p *Process) finish(c *wire.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return
	}
	isOver := p.err != nil || p.flags&wire.Main != 0
	if p.place == kept && !isOver {
		p.idle = true
		return
	}
	p.conn = nil
	if isOver || p.place == given {
		c.Close()
		return
	}
	p.system.release(c)
}

// givePlace is called when the streams are opened: the creator needs no place
// for that any more.
func (p *Process) givePlace() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.place == kept {
		p.place = given
	}
	if p.idle && p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// Close lets go of the process, which goes on: its streams here are closed, and
// a Wait that has nothing to return yet fails, with class
// ErrFailedPrecondition. What is known of its end stays known, and streams that
// were to be opened later may be forgotten.
func (p *Process) Close() error {
	p.mu.Lock()
	c := p.conn
	p.conn = nil
	p.mu.Unlock()
	var err error
	if c != nil {
		err = c.Close()
	}
	for _, f := range append(p.sources, p.stdin) {
		if f != nil {
			f.Close() // closed already where all is copied
		}
	}
	return err
}

func exitStatus(x wire.Exit) ExitStatus {
	return ExitStatus{
		Code: x.Code(), Signal: syscall.Signal(x.Signal()),
		User: micros(x.UserUS), System: micros(x.SysUS), Started: unix(x.Started), Ended: unix(x.Ended), OOMKilled: x.OOM,
	}
}

// micros makes a duration of what may be any number, as an agent told it.
func micros(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
}

// lost says why nobody tells how the process ended.
func (p *Process) lost(err error) error {
	if st, serr := p.system.rest(); isClosed(err) && serr == nil && st.Reason != "" {
		err = errors.New(st.Reason)
	}
	return p.system.wrap("wait for a process in", fault(errdefs.ErrUnavailable, "how it ended is lost: %w", err))
}

// Wait returns how the process ended, when it has and all its output is
// copied. For a Main process it also waits until the system is taken down. It
// may be called any number of times.
func (p *Process) Wait(ctx context.Context) (ExitStatus, error) {
	select {
	case <-p.done: // also if the context has ended, too
	default:
		select {
		case <-p.done:
		case <-ctx.Done():
			return ExitStatus{}, context.Cause(ctx)
		}
	}
	if p.err != nil {
		return ExitStatus{}, p.err
	}
	if err := p.awaitOutput(ctx); err != nil {
		return ExitStatus{}, err
	}
	if err := errors.Join(p.copied...); err != nil {
		return p.status, p.system.wrap("copy the output of a process in", err)
	}
	return p.status, nil
}

// awaitOutput returns when all output is copied, or, after the grace, without
// what others may still write.
func (p *Process) awaitOutput(ctx context.Context) error {
	if p.allCopied == nil { // opened: its output is its creator's
		return nil
	}
	var over <-chan time.Time
	if p.grace > 0 {
		over = time.After(p.grace)
	}
	select {
	case <-p.allCopied:
		return nil
	default:
	}
	select {
	case <-p.allCopied:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-over:
	}
	for _, f := range p.sources {
		_ = f.SetReadDeadline(time.Now()) // closed already where all is copied
	}
	<-p.allCopied
	return nil
}

// Signal sends a signal to the process. One that has ended needs none.
func (p *Process) Signal(ctx context.Context, sig syscall.Signal) error {
	body := wire.SignalRequest{Signal: uint32(sig)}.Encode()
	_, err := p.system.call(ctx, wire.Message{Type: wire.Signal, Seq: p.seq, Body: body})
	select {
	case <-p.done:
		return nil
	default:
	}
	if errdefs.IsNotFound(err) {
		return nil // ended and forgotten
	}
	return p.system.wrap("signal a process in", err)
}

// Resize sets the size of the process's terminal.
func (p *Process) Resize(ctx context.Context, rows, cols uint16) error {
	if p.master != nil {
		return p.system.wrap("resize a terminal in", sys.SetWindowSize(p.master, rows, cols))
	}
	body := wire.ResizeRequest{Rows: rows, Cols: cols}.Encode()
	_, err := p.system.call(ctx, wire.Message{Type: wire.Resize, Seq: p.seq, Body: body})
	return p.system.wrap("resize a terminal in", err)
}

// pipes are the two ends of a process's standard streams.
type pipes struct {
	flags                 wire.SpawnFlags
	stdin, stdout, stderr *os.File // ours
	theirs                []*os.File
}

// openPipes makes a pipe for every stream that the spec has; for a terminal
// of the shim's, one each way; for a terminal of our own, none.
func openPipes(spec *ProcessSpec) (*pipes, error) {
	p := new(pipes)
	if spec.Terminal && spec.Role != Main && spec.Pipes == (Pipes{}) {
		return p, nil
	}
	var errs []error
	if spec.Stdin != nil {
		errs = append(errs, p.open(wire.Stdin, &p.stdin))
	}
	if spec.Stdout != nil {
		errs = append(errs, p.open(wire.Stdout, &p.stdout))
	}
	switch {
	case spec.Stderr == nil || spec.Terminal:
	case same(spec.Stdout, spec.Stderr) && p.stdout != nil: // one pipe keeps the order, and the writer from two goroutines
		p.flags |= wire.Stderr
		p.theirs = append(p.theirs, p.theirs[len(p.theirs)-1])
	default:
		errs = append(errs, p.open(wire.Stderr, &p.stderr))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// same reports whether both are the same writer; some values cannot be
// compared, and are not.
func same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

func (p *pipes) open(flag wire.SpawnFlags, ours **os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.flags |= flag
	if flag == wire.Stdin {
		r, w = w, r
	}
	*ours, p.theirs = r, append(p.theirs, w)
	return nil
}

func (p *pipes) theirFDs() []int {
	list := make([]int, len(p.theirs))
	for i, f := range p.theirs {
		list[i] = int(f.Fd()) // and makes it block, as programs expect
	}
	return list
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		f.Close()
	}
	p.theirs = nil
}

// useTerminal has one terminal carry all streams. Somebody has to read it,
// wanted or not: else the process blocks when it is full.
func (p *pipes) useTerminal(master *os.File, spec *ProcessSpec) {
	p.stdout = master
	if spec.Stdin != nil {
		p.stdin = master
	}
}

func (p *pipes) close() error {
	p.closeTheirs()
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
	return nil
}
