package sys

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watch tells what happens in a directory, by inotify(7), or, where the user
// has no instances of it left, that it is time to look again.
type Watch struct {
	file *os.File // nil for one that looks at intervals
	buf  []byte
}

// watchMasks are inotify's for the bits of WatchEvents.
var watchMasks = [...]uint32{
	unix.IN_MODIFY, unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE, unix.IN_CLOSE_WRITE,
}

// watchInterval is how often a Watch without inotify wakes its owner.
const watchInterval = 50 * time.Millisecond

// NewWatch watches a directory from now on.
func NewWatch(dir string, events WatchEvents) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == unix.EMFILE || err == unix.ENFILE {
		return new(Watch), nil
	}
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	mask := uint32(unix.IN_ONLYDIR | unix.IN_DELETE_SELF)
	for i, m := range watchMasks {
		if events>>i&1 != 0 {
			mask |= m
		}
	}
	w := &Watch{file: os.NewFile(uintptr(fd), "inotify"), buf: make([]byte, 16<<10)}
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		err = errors.Join(&os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}, w.Close())
		if errors.Is(err, unix.ENOSPC) {
			return new(Watch), nil
		}
		return nil, err
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

// Wait returns when something has happened since the last call: the names that
// it happened to, or none, which stands for all. It is for one goroutine. When
// the context is done first the error is its cause.
func (w *Watch) Wait(ctx context.Context) ([]string, error) {
	if w.file == nil {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(watchInterval):
			return nil, nil
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := w.file.Read(w.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return watchNames(w.buf[:n])
}

// watchNames reads the names off events; struct inotify_event is in inotify(7).
func watchNames(buf []byte) (names []string, err error) {
	all := false
	for len(buf) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(buf[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		name, _, _ := bytes.Cut(buf[unix.SizeofInotifyEvent:end], []byte{0})
		buf = buf[end:]
		if mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED) != 0 {
			return nil, os.ErrNotExist
		}
		all = all || mask&unix.IN_Q_OVERFLOW != 0
		names = append(names, string(name))
	}
	if all {
		return nil, nil
	}
	return names, nil
}

// IsLocked reports whether somebody holds a lock (flock(2)) of the file. What is
// not there nobody does.
func IsLocked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}
