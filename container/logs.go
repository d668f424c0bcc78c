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

	"github.com/hostcompute/hcs/internal/wire"
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
	l, err := s.openLog()
	if err != nil {
		return err
	}
	defer l.close()
	if len(l.files) == 0 {
		_, serr := s.Status(ctx) // does it exist?
		return serr
	}
	if err := l.seekTail(o.Tail); err != nil {
		return err
	}
	r := logReader{since: o.Since}
	for {
		// Both asked before reading: what a stopped system wrote is all there then,
		// and so is what a file has that others followed.
		st, serr := s.Status(ctx)
		next, err := l.next()
		if err != nil {
			return err
		}
		more, err := r.entries(l.files[0], yield)
		switch {
		case err != nil || !more:
			return err
		case next:
			l.advance()
			continue
		case o.Follow == Snapshot || serr != nil || !st.State.IsUp():
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
}

// logFiles are the files of a log that are yet to be read, oldest first. Their
// names change while they are read.
type logFiles struct {
	path  string
	most  int // how many there may be
	files []*os.File
}

// openLog opens what there is of the log.
func (s *System) openLog() (*logFiles, error) {
	l := &logFiles{path: s.logFile(), most: s.record.Spec.Log.maxFiles()}
	for i := range l.most { // the youngest first: one that becomes older meanwhile is seen twice, none is missed
		f, err := openIfThere(wire.LogName(l.path, i))
		if err != nil {
			l.close()
			return nil, err
		}
		if f == nil {
			continue
		}
		if len(l.files) > 0 && sameFile(f, l.files[0]) {
			f.Close()
			continue
		}
		l.files = append([]*os.File{f}, l.files...)
	}
	return l, nil
}

// LogSize returns how many bytes the log of the main processes' output takes.
func (s *System) LogSize() (int64, error) {
	var size int64
	for i := range s.record.Spec.Log.maxFiles() {
		info, err := os.Stat(wire.LogName(s.logFile(), i))
		switch {
		case err == nil:
			size += info.Size()
		case !errors.Is(err, os.ErrNotExist):
			return 0, s.wrap("measure the log of", err)
		}
	}
	return size, nil
}

func openIfThere(name string) (*os.File, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func sameFile(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func (l *logFiles) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// advance lets go of the file that was read.
func (l *logFiles) advance() {
	l.files[0].Close()
	l.files = l.files[1:]
}

// next reports whether there is a file after the first, which then grows no
// more, and opens it if need be.
func (l *logFiles) next() (bool, error) {
	for len(l.files) == 1 {
		i := l.place(l.files[0])
		if i == 0 {
			return false, nil
		}
		f, err := openIfThere(wire.LogName(l.path, i-1))
		if f == nil || err != nil { // there is none yet
			return false, err
		}
		if l.place(l.files[0]) == i {
			l.files = append(l.files, f)
			break
		}
		f.Close() // they were renamed meanwhile
	}
	return true, nil
}

// place returns how many files there are after f. One that is gone was before
// all others.
func (l *logFiles) place(f *os.File) int {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	there := 1
	for i := range l.most {
		named, err := os.Stat(wire.LogName(l.path, i))
		if err == nil && os.SameFile(info, named) {
			return i
		}
		if err == nil {
			there = i + 1
		}
	}
	return there
}

// logReader reads files that may still grow.
type logReader struct {
	since time.Time
	file  *os.File
	r     *bufio.Reader
	part  []byte // of an entry that is being written
}

// entries yields the entries of the file that are there and whole. More is
// false when the caller has seen enough.
func (l *logReader) entries(f *os.File, yield func(Output) bool) (more bool, err error) {
	if f != l.file { // an entry that the last one ends with was never finished
		l.file, l.r, l.part = f, bufio.NewReaderSize(f, 64<<10), nil
	}
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

// position is a place in one of several files.
type position struct {
	file   int
	offset int64
}

// seekTail moves to where the last n lines of output begin, and lets go of the
// files before. A line may be of several entries, the last of which is tagged
// F, and they may be in several files.
func (l *logFiles) seekTail(n int) error {
	if n <= 0 {
		return nil
	}
	starts := make([]position, 0, min(n, 1024)+1) // of the last lines, oldest first
	begins := true
	for i, f := range l.files {
		err := eachEntry(f, func(offset int64, tag byte) {
			if begins {
				starts = append(starts, position{i, offset})
				starts = starts[max(0, len(starts)-n):]
			}
			begins = tag == 'F'
		})
		if err != nil {
			return err
		}
	}
	if len(starts) == 0 {
		starts = []position{{}}
	}
	for range starts[0].file {
		l.advance()
	}
	for _, f := range l.files[1:] {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	_, err := l.files[0].Seek(starts[0].offset, io.SeekStart)
	return err
}

// eachEntry tells where entries begin and what they are tagged with. One that
// is too long to be ours is none.
func eachEntry(f *os.File, tell func(offset int64, tag byte)) error {
	var offset int64
	begins := true
	for r := bufio.NewReaderSize(f, 64<<10); ; {
		entry, err := r.ReadSlice('\n')
		if begins && len(entry) > 0 {
			tell(offset, tagOf(entry))
		}
		offset += int64(len(entry))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		begins = err == nil
	}
}

// tagOf returns the tag of an entry, which follows the second blank.
func tagOf(entry []byte) byte {
	fields := bytes.SplitN(entry, []byte(" "), 4)
	if len(fields) < 4 || len(fields[2]) != 1 {
		return 0
	}
	return fields[2][0]
}
