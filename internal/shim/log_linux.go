package shim

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/hostcompute/hcs/internal/wire"
)

// logFile takes the output of the processes, a line each of
//
//	2026-01-02T03:04:05.678901234Z stdout F text
//
// as the kubelet's container runtimes write it (the CRI's logging format): F
// ends a line of output, P is a part of one that goes on.
//
// A file that would grow beyond the limit gets another name, as wire.LogName
// has it, and a new one is begun; the oldest goes. No entry is in two files.
type logFile struct {
	limits wire.Log

	mu   sync.Mutex
	file *os.File
	size int64
	buf  []byte
}

func openLog(limits wire.Log) (*logFile, error) {
	l := &logFile{limits: limits}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.limits.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if l.file != nil {
		_ = l.file.Close() // nothing is buffered
	}
	l.file, l.size = f, info.Size()
	return nil
}

// maxLine is how much output one line of the log takes.
const maxLine = 16 << 10

// write appends a piece of output. A log that cannot be written, because the
// disk is full say, loses the piece: the process goes on.
func (l *logFile) write(stream string, p []byte) {
	now := time.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = l.buf[:0]
	for len(p) > 0 {
		n, tag := len(p), " P "
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			n, tag = i, " F "
		}
		if n > maxLine {
			n, tag = maxLine, " P "
		}
		start := len(l.buf)
		l.buf = now.AppendFormat(l.buf, "2006-01-02T15:04:05.000000000Z07:00")
		l.buf = append(append(append(l.buf, ' '), stream...), tag...)
		l.buf = append(append(l.buf, p[:n]...), '\n')
		if tag == " F " {
			n++
		}
		p = p[n:]
		if l.isFull(start) {
			l.flush(start)
			l.rotate()
		}
	}
	l.flush(len(l.buf))
}

// isFull reports whether the entry that starts there in buf belongs into the
// next file. The first of a file belongs there, whatever its size.
func (l *logFile) isFull(start int) bool {
	limit := l.limits.MaxSize
	return limit > 0 && l.size+int64(len(l.buf)) > limit && l.size+int64(start) > 0
}

// flush writes the first bytes of buf, and keeps the others there.
func (l *logFile) flush(count int) {
	n, err := l.file.Write(l.buf[:count])
	l.buf = append(l.buf[:0], l.buf[count:]...)
	if err != nil && n > 0 && l.file.Truncate(l.size) == nil { // no half entry for the next to follow
		n = 0
	}
	l.size += int64(n)
}

// rotate begins a new file. If that fails it goes on with the old one, by
// whatever name, and the next write tries again.
func (l *logFile) rotate() {
	last := l.limits.MaxFiles - 1
	if _, err := os.Lstat(l.limits.Path); err == nil { // else the last attempt came that far
		if err := os.Remove(wire.LogName(l.limits.Path, last)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
		for i := last; i > 0; i-- {
			_ = os.Rename(wire.LogName(l.limits.Path, i-1), wire.LogName(l.limits.Path, i)) // there may be fewer
		}
	}
	_ = l.open()
}

func (l *logFile) close() error { return l.file.Close() }
