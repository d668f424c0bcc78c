package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// inotify watches the store's directory for objects and each object's directory for its record.
type inotify struct {
	file *os.File
	fd   int // file's: File.Fd would make it blocking, out of reach of a deadline
	dir  string
	root int            // watch descriptor of dir
	ids  map[int]string // by watch descriptor of the object's directory
}

const (
	watchRoot = syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_DELETE | syscall.IN_MOVED_FROM |
		syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_ONLYDIR
	watchObject = syscall.IN_MOVED_TO | syscall.IN_DELETE | syscall.IN_ONLYDIR
)

func newNotifier(dir string) (notifier, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	n := &inotify{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, dir: dir, ids: map[int]string{}}
	n.root, err = n.add(dir, watchRoot)
	if err == nil {
		err = n.addAll()
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *inotify) Close() error { return n.file.Close() }

func (n *inotify) wait(ctx context.Context) (dirty, error) {
	stop := context.AfterFunc(ctx, func() { _ = n.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// One event is at most a header and a name of 255 bytes and NUL; many fit.
	buf := make([]byte, 16<<10)
	for {
		size, err := n.file.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return dirty{}, context.Cause(ctx)
		}
		if err != nil {
			return dirty{}, err
		}
		d, err := n.read(buf[:size])
		if err != nil || d.all || len(d.ids) > 0 {
			return d, err
		}
	}
}

// read turns events into ids. The layout of struct inotify_event is in inotify(7).
func (n *inotify) read(buf []byte) (dirty, error) {
	var d dirty
	for len(buf) >= syscall.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(buf)))
		mask := binary.NativeEndian.Uint32(buf[4:])
		end := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		name, _, _ := bytes.Cut(buf[syscall.SizeofInotifyEvent:end], []byte{0})
		buf = buf[end:]
		if mask&syscall.IN_Q_OVERFLOW != 0 {
			d.all = true
			if err := n.addAll(); err != nil {
				return d, err
			}
			continue
		}
		id, err := n.event(wd, mask, string(name))
		if err != nil {
			return d, err
		}
		if id != "" {
			d.ids = append(d.ids, id)
		}
	}
	return d, nil
}

// event returns the id of the object the event is about, or "".
func (n *inotify) event(wd int, mask uint32, name string) (string, error) {
	if wd == n.root {
		return n.rootEvent(mask, name)
	}
	id := n.ids[wd]
	if mask&syscall.IN_IGNORED != 0 { // the directory is gone, and the watch with it
		delete(n.ids, wd)
		return id, nil
	}
	if name != RecordName {
		return "", nil
	}
	return id, nil
}

func (n *inotify) rootEvent(mask uint32, name string) (string, error) {
	if mask&(syscall.IN_DELETE_SELF|syscall.IN_MOVE_SELF|syscall.IN_IGNORED) != 0 {
		return "", fmt.Errorf("%s was removed: %w", n.dir, errdefs.ErrNotFound)
	}
	if !isID(name) {
		return "", nil
	}
	if mask&(syscall.IN_CREATE|syscall.IN_MOVED_TO) == 0 {
		return name, nil
	}
	return name, n.addObject(name)
}

// addAll watches the objects that are there. Those it missed are created later than the watch of the root, and reported.
func (n *inotify) addAll() error {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !isID(e.Name()) {
			continue
		}
		if err := n.addObject(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (n *inotify) addObject(id string) error {
	wd, err := n.add(filepath.Join(n.dir, id), watchObject)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return nil // gone again, which the root's watch tells
	}
	if err != nil {
		return err
	}
	n.ids[wd] = id
	return nil
}

func (n *inotify) add(path string, mask uint32) (int, error) {
	wd, err := syscall.InotifyAddWatch(n.fd, path, mask)
	if errors.Is(err, syscall.ENOSPC) {
		return 0, fmt.Errorf("watch %s: the user's inotify watches are used up, see fs.inotify.max_user_watches: %w",
			path, errdefs.ErrResourceExhausted)
	}
	if err != nil {
		return 0, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err}
	}
	return wd, nil
}
