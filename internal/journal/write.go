package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Writer appends to a journal. The zero value is not valid: use NewWriter. Its
// methods may be called at once.
type Writer struct {
	dir   string
	limit int64 // of a segment's size
	keep  int   // segments

	mu     sync.Mutex
	file   *os.File // the segment, or nil
	size   int64    // of file as it was last seen
	last   Seq      // number of the last record then
	sealed bool
	lost   int // records that could not be written
	line   []byte
}

// NewWriter returns a writer of the journal in the directory, which its first
// Append makes.
func NewWriter(dir string) *Writer {
	return &Writer{dir: dir, limit: segmentSize, keep: maxSegments}
}

// Lose counts records that the caller could not even try to write, for the
// readers to be told.
func (w *Writer) Lose(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost += n
}

// Close lets the segment go.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leave()
}

// Append writes a record, whole or not at all. The text has no line feed, is
// longer than one byte, and begins with neither "." nor "-". A record that
// could not be written is counted, and readers are told by the next that can.
func (w *Writer) Append(text []byte) (Seq, error) {
	if len(text) < 2 || len(text) > MaxText || text[0] == '.' || text[0] == '-' || bytes.IndexByte(text, '\n') >= 0 {
		return 0, fmt.Errorf("append to journal %s: a record cannot have this text", w.dir)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seq, err := w.append(text)
	if err != nil {
		w.lost++
		return 0, fmt.Errorf("append to journal %s: %w", w.dir, err)
	}
	return seq, nil
}

func (w *Writer) append(text []byte) (Seq, error) {
	for {
		if err := w.enter(); err != nil {
			return 0, err
		}
		seq, err := w.tryAppend(text)
		if !errors.Is(err, errMoved) {
			return seq, err
		}
		if err := w.leave(); err != nil {
			return 0, err
		}
	}
}

// errMoved says that the journal goes on in another segment.
var errMoved = errors.New("the segment is not the last")

// enter opens the last segment, or makes the first one.
func (w *Writer) enter() error {
	if w.file != nil {
		return nil
	}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	for {
		names, err := segments(w.dir)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return w.open(0, os.O_CREATE)
		}
		err = w.open(names[len(names)-1], 0)
		if !errors.Is(err, os.ErrNotExist) { // as it is when it was dropped meanwhile
			return err
		}
	}
}

func (w *Writer) open(name Seq, flag int) error {
	f, err := os.OpenFile(segmentFile(w.dir, name), os.O_RDWR|os.O_APPEND|flag, 0o600)
	if err != nil {
		return err
	}
	w.file, w.size, w.last, w.sealed = f, 0, name, false
	return nil
}

func (w *Writer) leave() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

// tryAppend writes the record under the segment's lock, unless that is not the
// last one.
func (w *Writer) tryAppend(text []byte) (seq Seq, err error) {
	if err := lockFile(w.file); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unlockFile(w.file)) }()
	if err := w.catchUp(); err != nil {
		return 0, err
	}
	if !w.sealed && w.size > 0 && w.size+int64(prefix+len(text)) > w.limit {
		if err := w.write(w.last, []byte(seal)); err != nil {
			return 0, err
		}
		w.sealed = true
	}
	if w.sealed {
		if err := w.succeed(); err != nil {
			return 0, err
		}
		return 0, errMoved
	}
	if w.lost > 0 {
		if err := w.write(w.next(), strconv.AppendInt(nil, -int64(w.lost), 10)); err != nil {
			return 0, err
		}
		w.lost = 0
	}
	seq = w.next()
	return seq, w.write(seq, text)
}

// succeed makes the segment that follows this sealed one, if nobody has, and
// drops what is too old. This one's lock is held: so it is made once, however
// long somebody sleeps on the way.
func (w *Writer) succeed() error {
	names, err := segments(w.dir)
	if err != nil {
		return err
	}
	if len(names) > 0 && names[len(names)-1] >= w.last {
		return nil
	}
	f, err := os.OpenFile(segmentFile(w.dir, w.last), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for old := 0; len(names)-old >= w.keep; old++ {
		err = errors.Join(err, os.Remove(segmentFile(w.dir, names[old])))
	}
	return errors.Join(err, f.Close())
}

// next returns a number for the next record.
func (w *Writer) next() Seq { return max(w.last+1, Seq(time.Now().UnixNano())) }

// write writes one line. What does not fit the disk as a whole is taken off
// again.
func (w *Writer) write(seq Seq, text []byte) error {
	w.line = appendLine(w.line[:0], seq, text)
	n, err := w.file.Write(w.line)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, w.file.Truncate(w.size))
		}
		return err
	}
	w.size, w.last = w.size+int64(n), seq
	return nil
}

// catchUp looks at what others have written meanwhile, and takes off what one
// of them left unfinished. The lock is held.
func (w *Writer) catchUp() error {
	size, names, err := statFile(w.file)
	switch {
	case err != nil:
		return err
	case names == 0: // dropped, and so full, or removed with the whole directory
		return errMoved
	case size == w.size:
		return nil
	}
	tail := make([]byte, min(size, 2*maxLine))
	if _, err := w.file.ReadAt(tail, size-int64(len(tail))); err != nil {
		return err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	switch {
	case end == 0 && len(tail) == 2*maxLine: // nothing that a writer leaves, but maybe a machine that stopped
		return w.write(w.next(), strconv.AppendInt([]byte{'\n'}, -1, 10))
	case end < len(tail):
		size -= int64(len(tail) - end)
		if err := w.file.Truncate(size); err != nil {
			return err
		}
	}
	w.size = size
	if end == 0 {
		return nil // the numbers go on from the segment's name
	}
	line := tail[bytes.LastIndexByte(tail[:end-1], '\n')+1 : end]
	if seq, text, err := parseLine(line); err == nil {
		w.last, w.sealed = seq, string(text) == seal
	}
	return nil
}
