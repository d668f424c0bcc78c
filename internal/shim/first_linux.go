package shim

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/hostcompute/hcs/internal/sys"
)

// firstProcess is the container's process 1. The runtime starts it and goes;
// it becomes the shim's as an orphan.
type firstProcess struct {
	ended chan struct{} // closed when it has been reaped

	mu      sync.Mutex
	pid     int
	fd      sys.Pidfd
	earlier map[int]bool // orphans that were reaped before the first process was known
}

func newFirstProcess() *firstProcess {
	return &firstProcess{ended: make(chan struct{}), earlier: make(map[int]bool)}
}

// found says which process it is, as the kernel told with its first message.
func (f *firstProcess) found(pid int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pid <= 0 {
		return fmt.Errorf("the first process has no number here")
	}
	if f.earlier[pid] {
		return fmt.Errorf("the first process died at once")
	}
	fd, err := sys.OpenPidfd(pid)
	if err != nil {
		return fmt.Errorf("open the first process: %w", err)
	}
	f.pid, f.fd, f.earlier = pid, fd, nil
	return nil
}

// orphan is told of every process that was reaped here and not started here.
func (f *firstProcess) orphan(pid int, _ syscall.WaitStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.pid == 0:
		f.earlier[pid] = true
	case f.pid == pid:
		close(f.ended)
		f.fd.Close()
		f.pid = -1
	}
}

// kill kills it, and with it, as the kernel has it, everything in its pid
// namespace.
func (f *firstProcess) kill() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pid <= 0 {
		return nil
	}
	return f.fd.Signal(syscall.SIGKILL)
}

// number is its process id here.
func (f *firstProcess) number() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pid
}

// errFirstEnded says that there is no first process any more.
var errFirstEnded = errors.New("the first process has ended")

// What open opens: the root directory, and the network namespace.
const (
	itsRoot    = "root"
	itsNetwork = "ns/net"
)

// open opens something of its directory in procfs.
func (f *firstProcess) open(name string) (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pid <= 0 {
		return nil, errFirstEnded
	}
	file, err := os.Open("/proc/" + strconv.Itoa(f.pid) + "/" + name)
	switch {
	case errors.Is(err, os.ErrNotExist): // it is ending
		return nil, errFirstEnded
	case err == nil && !f.fd.Running(): // and the number may be another's
		file.Close()
		return nil, errFirstEnded
	case err != nil:
		return nil, err
	}
	return file, nil
}
