package container

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"
)

// Stream says where a piece of output came from.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout" // also all output of a terminal
	Stderr Stream = "stderr"
)

// Output is a piece of the main process's output: a line with its newline, or
// a part of one.
type Output struct {
	Time   time.Time
	Stream Stream
	Text   []byte // valid until the next step
}

// LogOptions says which output Logs gives.
type LogOptions struct {
	Tail   int       // the last so many lines; 0 is all
	Since  time.Time // what came later
	Follow FollowMode
}

// FollowMode says when Logs ends.
type FollowMode uint8

const (
	// Snapshot gives what is there.
	Snapshot FollowMode = iota
	// Follow goes on until the system has stopped.
	Follow
)

// pollInterval is how often a followed log is looked at.
const pollInterval = 50 * time.Millisecond

// Logs gives the output of the system's main processes.
func (s *System) Logs(ctx context.Context, o LogOptions) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		err := s.readLog(ctx, o, func(out Output) bool { return yield(out, nil) })
		if err != nil {
			yield(Output{}, s.wrap("read the log of", err))
		}
	}
}

func (s *System) readLog(ctx context.Context, o LogOptions, yield func(Output) bool) error {
	f, err := os.Open(s.logFile())
	if errors.Is(err, os.ErrNotExist) {
		_, serr := s.Status(ctx) // does it exist?
		return serr
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := seekTail(f, o.Tail); err != nil {
		return err
	}
	r := logReader{r: bufio.NewReaderSize(f, 64<<10), since: o.Since}
	for {
		// Asked before reading: what a stopped system wrote is all there then.
		st, serr := s.Status(ctx)
		more, err := r.entries(yield)
		if err != nil || !more || o.Follow == Snapshot || serr != nil || st.State != Running && st.State != Paused {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
}

// logReader reads a log that may still grow.
type logReader struct {
	r     *bufio.Reader
	since time.Time
	part  []byte // of an entry that is being written
}

// entries yields the entries that are there and whole. More is false when the
// caller has seen enough.
func (l *logReader) entries(yield func(Output) bool) (more bool, err error) {
	for {
		line, err := l.r.ReadBytes('\n')
		line = append(l.part, line...)
		l.part = nil
		if errors.Is(err, io.EOF) {
			l.part = line
			return true, nil
		}
		if err != nil {
			return false, err
		}
		out, err := parseEntry(line)
		if err != nil {
			continue // half an entry: its writer was killed, or the disk full
		}
		if out.Time.After(l.since) && !yield(out) {
			return false, nil
		}
	}
}

// parseEntry reads a line of the CRI's logging format.
func parseEntry(line []byte) (Output, error) {
	stamp, rest, ok1 := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !ok1 || !ok2 || !ok3 || err != nil {
		return Output{}, fmt.Errorf("malformed entry %q", strings.TrimSpace(string(line)))
	}
	if string(tag) == "P" {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return Output{Time: t, Stream: Stream(stream), Text: text}, nil
}

// seekTail moves to where the last n lines of output begin. A line may be of
// several entries, the last of which is tagged F.
func seekTail(f *os.File, n int) error {
	if n <= 0 {
		return nil
	}
	starts := make([]int64, 0, min(n, 1024)+1) // of the last lines, oldest first
	var offset int64
	begins := true
	for r := bufio.NewReaderSize(f, 64<<10); ; {
		entry, err := r.ReadSlice('\n')
		if begins && len(entry) > 0 {
			starts = append(starts, offset)
			starts = starts[max(0, len(starts)-n):]
		}
		offset += int64(len(entry))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		begins = err == nil && tagOf(entry) == 'F'
	}
	if len(starts) == 0 {
		starts = []int64{0}
	}
	_, err := f.Seek(starts[0], io.SeekStart)
	return err
}

// tagOf returns the tag of an entry, which follows the second blank.
func tagOf(entry []byte) byte {
	fields := bytes.SplitN(entry, []byte(" "), 4)
	if len(fields) < 4 || len(fields[2]) != 1 {
		return 0
	}
	return fields[2][0]
}

func lastLine(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(lines[len(lines)-1])
}
