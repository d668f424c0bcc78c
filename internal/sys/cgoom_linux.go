package sys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OOMWatch tells when the group has run out of memory.
type OOMWatch struct {
	event *os.File // of a v1 group
	watch *Watch   // of a v2 group
}

// WatchOOM watches the group from now on. Its end is a reason to wake up, too.
func (c *Cgroup) WatchOOM() (*OOMWatch, error) {
	if c.path == "" {
		return nil, ErrNoCgroup
	}
	var w OOMWatch
	var err error
	if dir, v1 := c.h.v1["memory"]; v1 {
		w.event, err = oomEvents(filepath.Join(dir, c.path))
	} else {
		w.watch, err = NewWatch(filepath.Join(c.h.unified, c.path), WatchWrites)
	}
	if err != nil {
		return nil, c.wrap("watch", err)
	}
	return &w, nil
}

// oomEvents returns a descriptor that can be read when the group runs out of
// memory (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control").
func oomEvents(dir string) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	event := os.NewFile(uintptr(fd), "eventfd")
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, errors.Join(err, event.Close())
	}
	defer func() { _ = control.Close() }()
	err = writeFile(filepath.Join(dir, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, control.Fd()))
	if err != nil {
		return nil, errors.Join(err, event.Close())
	}
	return event, nil
}

// Wait returns when the kernel has begun to look for something to kill, or
// maybe has not: the counter tells. After Close it fails.
func (w *OOMWatch) Wait() error {
	if w.event != nil {
		_, err := w.event.Read(make([]byte, 8))
		return err
	}
	_, err := w.watch.Wait(context.Background())
	return err
}

// Close ends the watch, and a Wait.
func (w *OOMWatch) Close() error {
	if w.event != nil {
		return w.event.Close()
	}
	return w.watch.Close()
}
