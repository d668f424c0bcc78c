package hcsshim

import (
	"errors"
	"io"
	"os"
	"sync"

	compute "github.com/hostcompute/hcs/container"
)

// streams are the pipes between a process and its creator. It has them from its start: those that are opened when it runs could
// be too late, as a system does not remember all processes that have ended.
type streams struct {
	ours   compute.Stdio
	stdin  *inlet     // the first of ours; nil if there is none
	theirs []*os.File // what the system copies from and to
}

// openStreams makes the pipes that a process is to have, and puts their far ends into its spec.
func openStreams(spec *compute.ProcessSpec) (*streams, error) {
	s := new(streams)
	if err := s.open(spec); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *streams) open(spec *compute.ProcessSpec) error {
	if spec.Pipes.Stdin {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.stdin = &inlet{file: w}
		s.ours.Stdin, spec.Stdin = s.stdin, r
		s.theirs = append(s.theirs, r)
	}
	for _, o := range []struct {
		want bool
		from *io.ReadCloser
		to   *io.Writer
	}{{spec.Pipes.Stdout, &s.ours.Stdout, &spec.Stdout}, {spec.Pipes.Stderr, &s.ours.Stderr, &spec.Stderr}} {
		if !o.want {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		*o.from, *o.to = r, outlet{w}
		s.theirs = append(s.theirs, w)
	}
	return nil
}

// close closes all ends, of a process that there is not.
func (s *streams) close() error {
	errs := []error{s.ours.Close()}
	for _, f := range s.theirs {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// letGo closes the far end of the input: what is written to a process that has ended is to fail.
func (s *streams) letGo(ended <-chan struct{}) {
	<-ended
	_ = s.theirs[0].Close()
}

// inlet is the input of a process for who created it: closing it, which may be done twice, ends the input after what was
// written.
type inlet struct {
	file *os.File
	once sync.Once
	err  error
}

func (i *inlet) Write(p []byte) (int, error) { return i.file.Write(p) }

func (i *inlet) Close() error {
	i.once.Do(func() { i.err = i.file.Close() })
	return i.err
}

// outlet takes output to a pipe, which ends when the output does. That nobody reads it any more is no error: the process is not
// to be stopped by that.
type outlet struct{ *os.File }

// ReadFrom is what io.Copy calls.
func (o outlet) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(o.File, r)
	if err != nil {
		var rest int64
		rest, err = io.Copy(io.Discard, r)
		n += rest
	}
	return n, errors.Join(err, o.Close())
}
