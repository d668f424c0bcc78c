package shim

import (
	"bytes"
	"os"
	"sync"
	"time"
)

// logFile takes the output of the processes, a line each of
//
//	2026-01-02T03:04:05.678901234Z stdout F text
//
// as the kubelet's container runtimes write it (the CRI's logging format): F
// ends a line of output, P is a part of one that goes on.
type logFile struct {
	mu   sync.Mutex
	file *os.File
	buf  []byte
}

func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &logFile{file: f}, nil
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
		l.buf = now.AppendFormat(l.buf, "2006-01-02T15:04:05.000000000Z07:00")
		l.buf = append(append(append(l.buf, ' '), stream...), tag...)
		l.buf = append(append(l.buf, p[:n]...), '\n')
		if tag == " F " {
			n++
		}
		p = p[n:]
	}
	if n, err := l.file.Write(l.buf); err != nil && n > 0 {
		if info, err := l.file.Stat(); err == nil { // no half entry for the next to follow
			_ = l.file.Truncate(info.Size() - int64(n))
		}
	}
}

func (l *logFile) close() error { return l.file.Close() }
