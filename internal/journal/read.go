package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/hostcompute/hcs/internal/sys"
)

// Reader reads a journal, on and on. It is for one goroutine.
type Reader struct {
	dir   string
	after Seq      // number of the last record that was read
	file  *os.File // the segment that is read, or nil
	at    int64    // of the next line in it
	next  Seq      // name of the next segment, where the last one is read up
	ahead []byte   // read from at, and not used
	buf   []byte
	watch *sys.Watch
}

// Open returns a reader of the records after the one with that number, 0 for
// all. If older ones than the next were dropped, a gap comes first.
func Open(dir string, after Seq) *Reader { return &Reader{dir: dir, after: after, next: -1} }

// Close lets go of what the reader holds.
func (r *Reader) Close() error {
	var errs []error
	if r.file != nil {
		errs = append(errs, r.file.Close())
	}
	if r.watch != nil {
		errs = append(errs, r.watch.Close())
	}
	r.file, r.watch = nil, nil
	return errors.Join(errs...)
}

// Next returns the next record. It waits for one until the context is done; the
// error is then its cause. The text is valid until the next call.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	for {
		rec, err := r.Poll()
		if !errors.Is(err, io.EOF) {
			return rec, err
		}
		if r.watch == nil { // look again: something may have come before
			if err := r.startWatch(); err != nil {
				return Record{}, r.wrap(err)
			}
			continue
		}
		if _, err := r.watch.Wait(ctx); err != nil {
			return Record{}, r.wrap(err)
		}
	}
}

func (r *Reader) startWatch() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	w, err := sys.NewWatch(r.dir, sys.WatchWrites|sys.WatchNames)
	r.watch = w
	return err
}

// Poll returns the next record that is there, or io.EOF.
func (r *Reader) Poll() (Record, error) {
	for {
		gap, err := r.enter()
		if err != nil {
			return Record{}, r.wrap(err)
		}
		if gap {
			return Record{Seq: r.after, Gap: true}, nil
		}
		if r.file == nil {
			return Record{}, io.EOF
		}
		rec, err := r.read()
		if err != nil && !errors.Is(err, io.EOF) {
			err = r.wrap(err)
		}
		if err != nil || rec.Gap || rec.Text != nil {
			return rec, err
		}
	}
}

func (r *Reader) wrap(err error) error { return fmt.Errorf("read journal %s: %w", r.dir, err) }

// enter opens the segment to go on in, if there is one, and reports whether
// records are missing before it.
func (r *Reader) enter() (gap bool, err error) {
	if r.file != nil {
		return false, nil
	}
	for {
		names, err := segments(r.dir)
		if err != nil || len(names) == 0 {
			return false, err
		}
		name, gap := r.choose(names)
		if name < 0 {
			return false, nil
		}
		f, err := os.Open(segmentFile(r.dir, name))
		if errors.Is(err, os.ErrNotExist) { // dropped meanwhile
			continue
		}
		if err != nil {
			return false, err
		}
		r.file, r.at, r.ahead, r.next = f, 0, nil, -1
		if gap {
			r.after = max(r.after, name)
		}
		return gap, nil
	}
}

// choose returns the segment to go on in, negative if it is yet to come. Who
// asks for everything misses nothing.
func (r *Reader) choose(names []Seq) (name Seq, gap bool) {
	if r.next >= 0 {
		i, found := slices.BinarySearch(names, r.next)
		if i == len(names) {
			return -1, false
		}
		return names[i], !found
	}
	i, found := slices.BinarySearch(names, r.after)
	if !found {
		i--
	}
	if i < 0 {
		return names[0], r.after > 0
	}
	return names[i], false
}

// read returns the next line's record, io.EOF where there is none yet, or
// nothing where the line was not for the caller.
func (r *Reader) read() (Record, error) {
	line, err := r.line()
	if err != nil {
		return Record{}, err
	}
	seq, text, err := parseLine(line)
	if err != nil {
		return r.damaged()
	}
	r.consume(len(line))
	switch {
	case string(text) == seal:
		r.next = seq
		return Record{}, r.leave()
	case seq <= r.after:
		return Record{}, nil
	}
	r.after = seq
	if text[0] == '-' {
		return Record{Seq: seq, Gap: true}, nil
	}
	return Record{Seq: seq, Text: text}, nil
}

func (r *Reader) consume(n int) { r.at, r.ahead = r.at+int64(n), r.ahead[n:] }

func (r *Reader) leave() error {
	f := r.file
	r.file = nil
	return f.Close()
}

// line returns the next line that is whole.
func (r *Reader) line() ([]byte, error) {
	if i := bytes.IndexByte(r.ahead, '\n'); i >= 0 {
		return r.ahead[:i+1], nil
	}
	// What is there of a line is read again: it may have been left by somebody
	// who was killed, and be another's now.
	if r.buf == nil {
		r.buf = make([]byte, 16*maxLine)
	}
	n, err := r.file.ReadAt(r.buf, r.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r.ahead = r.buf[:n]
	i := bytes.IndexByte(r.ahead, '\n')
	if i >= 0 {
		return r.ahead[:i+1], nil
	}
	r.ahead = nil
	if n == len(r.buf) { // no line of ours is as long
		r.at += int64(n)
		return nil, nil
	}
	return nil, r.atEnd()
}

// atEnd returns io.EOF, unless the segment is gone without a seal: the journal
// was removed, and may have begun anew.
func (r *Reader) atEnd() error {
	if _, names, err := statFile(r.file); err != nil || names > 0 {
		return errors.Join(err, io.EOF)
	}
	return errors.Join(r.leave(), io.EOF)
}

// damaged passes over a line that cannot be read. While somebody writes it may
// only look so, if what a killed writer left is being replaced.
func (r *Reader) damaged() (Record, error) {
	if err := lockFile(r.file); err != nil {
		return Record{}, err
	}
	r.ahead = nil
	line, err := r.line()
	err = errors.Join(err, unlockFile(r.file))
	if err != nil {
		return Record{}, err
	}
	if _, _, err := parseLine(line); err == nil {
		return Record{}, nil // which the next call reads
	}
	if len(line) > 0 {
		r.consume(len(line))
	}
	return Record{Seq: r.after, Gap: true}, nil
}

// Last returns the number of the last record that there is, 0 if there is none.
func Last(dir string) (Seq, error) {
	names, err := segments(dir)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	last := names[len(names)-1]
	r := Open(dir, last)
	defer func() { _ = r.Close() }() // only reads
	for {
		rec, err := r.Poll()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return 0, err
		}
		last = max(last, rec.Seq)
	}
}
