package hcsshim

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// Process is a handle of a process in a container, which runs or has ended. There may be several, here and in other programs.
//
// Errors are *ProcessError. After Close every method but Pid returns one with ErrAlreadyClosed.
type Process interface {
	// Pid returns the process's number in the container.
	Pid() int

	// Kill ends the process and does not wait for that. The error is ErrElementNotFound if it has ended.
	Kill() error

	// Wait waits until the process has ended. It may be called at once and any number of times. Close ends it, with
	// ErrHandleClose.
	Wait() error

	// WaitTimeout is Wait, and returns ErrTimeout if that takes longer.
	WaitTimeout(time.Duration) error

	// ExitCode returns the exit code of a process that has ended, 128 plus the signal's number if a signal ended it. The error
	// is ErrInvalidProcessState while it runs.
	ExitCode() (int, error)

	// ResizeConsole sets the size of the process's terminal.
	ResizeConsole(width, height uint16) error

	// Stdio returns the process's streams, nil for each that it was created without, to be closed by the caller. What the
	// process has written can still be read when it has ended. Each call returns ends of their own.
	Stdio() (io.WriteCloser, io.ReadCloser, io.ReadCloser, error)

	// CloseStdin ends the process's input.
	CloseStdin() error

	// Close lets go of the process, which goes on. Closing twice is no error.
	Close() error
}

// process is the handle.
type process struct {
	handle
	container *container
	proc      *compute.Process
	pid       int
	console   bool // it may have a terminal
	isOpened  bool // by OpenProcess: it brings no streams

	stdin   *inlet // whose closing is the input's end; nil if it is not
	streams sync.Mutex
	first   *compute.Stdio // of a process that this handle created, until Stdio gives it away
}

// spec returns what the process is to be.
func (c *ProcessConfig) spec() (*compute.ProcessSpec, error) {
	switch {
	case c.CreateInUtilityVm:
		return nil, coded(ErrNotSupported, "CreateInUtilityVm: there is no utility VM")
	case c.OCISpecification != nil:
		return nil, coded(ErrNotSupported, "OCISpecification: not supported, use the other fields")
	}
	args := c.CommandArgs
	if len(args) == 0 {
		args = splitCommandLine(c.CommandLine)
	}
	if len(args) == 0 && c.ApplicationName != "" {
		args = []string{c.ApplicationName}
	}
	if len(args) == 0 {
		return nil, coded(hcserror.InvalidParameter, "there is neither CommandLine, CommandArgs nor ApplicationName")
	}
	s := &compute.ProcessSpec{
		Args: args, Path: c.ApplicationName, Env: c.environment(), Dir: c.WorkingDirectory, User: c.User, Terminal: c.EmulateConsole,
		Pipes: compute.Pipes{Stdin: c.CreateStdInPipe, Stdout: c.CreateStdOutPipe, Stderr: c.CreateStdErrPipe && !c.EmulateConsole},
	}
	if c.EmulateConsole {
		s.Rows, s.Cols = uint16(min(c.ConsoleSize[0], math.MaxUint16)), uint16(min(c.ConsoleSize[1], math.MaxUint16))
	}
	return s, nil
}

// environment returns the variables in the order of their names, and what programs with a console expect. What all do, a PATH
// say, the container itself gives those that have none.
func (c *ProcessConfig) environment() []string {
	all := make(map[string]string)
	if c.EmulateConsole {
		all["TERM"] = "xterm"
	}
	maps.Copy(all, c.Environment)
	var list []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, name+"="+all[name])
	}
	return list
}

func (c *container) CreateProcess(config *ProcessConfig) (Process, error) {
	var p *process
	err := c.call("CreateProcess", func(ctx context.Context) (err error) {
		p, err = c.createProcess(ctx, cmp.Or(config, new(ProcessConfig)))
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (c *container) createProcess(ctx context.Context, config *ProcessConfig) (*process, error) {
	spec, err := config.spec()
	if err != nil {
		return nil, err
	}
	streams, err := openStreams(spec)
	if err != nil {
		return nil, err
	}
	made, err := c.system.CreateProcess(ctx, spec)
	if err != nil {
		if errdefs.IsNotFound(err) {
			err = &hcserror.Coded{Code: hcserror.FileNotFound, Err: err}
		}
		return nil, errors.Join(err, streams.close())
	}
	p := &process{container: c, proc: made, pid: made.Pid(), console: config.EmulateConsole, first: &streams.ours}
	if streams.stdin != nil {
		go streams.letGo(made.Done())
		if !p.console { // which has no end
			p.stdin = streams.stdin
		}
	}
	return p, nil
}

func (c *container) OpenProcess(pid int) (Process, error) {
	var p *process
	err := c.call("OpenProcess", func(ctx context.Context) error {
		opened, err := c.system.OpenProcess(ctx, pid)
		if errdefs.IsNotFound(err) {
			return &hcserror.Coded{Code: ErrElementNotFound, Err: err}
		}
		p = &process{container: c, proc: opened, pid: pid, console: true, isOpened: true}
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// call makes a call on the process, whose error says how the container is if that is why it failed.
func (p *process) call(op string, f func(context.Context) error) error {
	return p.fail(op, p.do(func(ctx context.Context) error { return p.container.explain(ctx, f(ctx)) }))
}

func (p *process) Pid() int { return p.pid }

func (p *process) hasEnded() bool {
	select {
	case <-p.proc.Done():
		return true
	default:
		return false
	}
}

func (p *process) Kill() error {
	return p.call("Kill", func(ctx context.Context) error {
		if p.hasEnded() {
			return ErrElementNotFound
		}
		return p.proc.Signal(ctx, syscall.SIGKILL)
	})
}

func (p *process) Wait() error {
	return p.fail("Wait", p.do(p.await))
}

func (p *process) WaitTimeout(timeout time.Duration) error {
	return p.fail("WaitTimeout", p.do(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return p.await(ctx)
	}))
}

// await waits for the process's end, however long others hold its output open.
func (p *process) await(ctx context.Context) error {
	select {
	case <-p.proc.Done(): // also if there is no time
	default:
		select {
		case <-p.proc.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	_, err := p.result()
	if errors.Is(err, errOutput) {
		err = nil
	}
	return err
}

// errOutput says that how a process has ended is not told while its output goes on.
var errOutput = errors.New("others hold its output open")

// result returns how the process has ended.
func (p *process) result() (compute.ExitStatus, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errOutput)
	return p.proc.Wait(ctx)
}

func (p *process) ExitCode() (int, error) {
	var code int
	err := p.do(func(ctx context.Context) error {
		if !p.hasEnded() {
			return ErrInvalidProcessState
		}
		status, err := p.result()
		if errors.Is(err, errOutput) {
			status, err = p.ask(ctx)
		}
		code = status.Code
		return err
	})
	return code, p.fail("ExitCode", err)
}

// ask asks the container how the process has ended. If it does not know any more, the end of the output is waited for.
func (p *process) ask(ctx context.Context) (compute.ExitStatus, error) {
	again, err := p.container.system.OpenProcess(ctx, p.pid)
	if err != nil {
		return p.proc.Wait(ctx)
	}
	status, err := again.Wait(ctx)
	return status, errors.Join(err, again.Close())
}

func (p *process) ResizeConsole(width, height uint16) error {
	return p.call("ResizeConsole", func(ctx context.Context) error {
		switch {
		case p.hasEnded():
			return ErrElementNotFound
		case !p.console:
			return coded(ErrVmcomputeOperationInvalidState, "it has no console")
		}
		err := p.proc.Resize(ctx, height, width)
		if errdefs.IsNotFound(err) {
			return &hcserror.Coded{Code: ErrVmcomputeOperationInvalidState, Err: err}
		}
		return err
	})
}

func (p *process) Stdio() (io.WriteCloser, io.ReadCloser, io.ReadCloser, error) {
	var s *compute.Stdio
	err := p.call("Stdio", func(ctx context.Context) (err error) {
		if s = p.take(); s == nil {
			s, err = p.proc.OpenStdio(ctx)
		}
		return err
	})
	if err != nil {
		return nil, nil, nil, err
	}
	return s.Stdin, s.Stdout, s.Stderr, nil
}

// take returns the streams that came with the process, once.
func (p *process) take() *compute.Stdio {
	p.streams.Lock()
	defer p.streams.Unlock()
	s := p.first
	p.first = nil
	return s
}

func (p *process) CloseStdin() error {
	return p.call("CloseStdin", func(ctx context.Context) error {
		if p.stdin != nil {
			return p.stdin.Close()
		}
		return p.proc.CloseStdin(ctx)
	})
}

func (p *process) Close() error {
	if !p.close() {
		return nil
	}
	if p.isOpened {
		return p.fail("Close", p.proc.Close())
	}
	if s := p.take(); s != nil {
		return p.fail("Close", s.Close())
	}
	return nil // the streams that were given away go on
}
