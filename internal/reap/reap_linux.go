package reap

import (
	"sync"
	"syscall"
	"unsafe"
)

// Ended is called once for a process that has ended.
type Ended func(status syscall.WaitStatus, usage *syscall.Rusage)

// Reaper keeps the children of this process. The zero value is ready; Run
// must run for anything to be reaped.
type Reaper struct {
	// Orphan, where not nil, is told of every process that ended here and was
	// not started here.
	Orphan func(pid int, status syscall.WaitStatus)
	// Idle, where not nil, is called when there is no child left and the ends of
	// all have been told; again after each Recheck.
	Idle func()

	mu       sync.Mutex
	children map[int]Ended
	wakes    int       // how often there was something to look for
	woken    sync.Cond // wakes has grown; its lock is mu
}

// Start starts a program as syscall.ForkExec does. Began runs before any
// other process is started or reaped, so that what it tells is told before
// ended runs.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr, began func(pid int), ended Ended) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return err
	}
	began(pid)
	if r.children == nil {
		r.children = make(map[int]Ended)
	}
	r.children[pid] = ended
	r.wake()
	return nil
}

// Signal sends the signal if the process was started here and has not been
// reaped; else it returns ESRCH. It never reaches a process that got the same
// number later.
func (r *Reaper) Signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.children[pid]; !ok {
		return syscall.ESRCH
	}
	return syscall.Kill(pid, sig)
}

// Recheck has Idle be called now, if there is no child.
func (r *Reaper) Recheck() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake()
}

// wake has Run look for children. r.mu is held.
func (r *Reaper) wake() {
	r.wakes++
	if r.woken.L != nil {
		r.woken.Signal()
	}
}

// Run reaps for as long as the process lives. Without children it sleeps
// until one is started: orphans come only from children that still live.
func (r *Reaper) Run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.woken.L = &r.mu
	for {
		seen := r.wakes
		r.mu.Unlock()
		pid, err := waitable()
		if err == nil {
			r.reap(pid)
		} else if err == syscall.ECHILD && r.Idle != nil {
			r.Idle()
		}
		r.mu.Lock()
		for err == syscall.ECHILD && r.wakes == seen {
			r.woken.Wait()
		}
	}
}

// waitable blocks until some child has ended, and leaves it a zombie.
func waitable() (pid int, err error) {
	const pAll, size = 0, 128
	var info [size / 4]int32 // siginfo_t: signo, errno, code, padding, pid, …
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, uintptr(unsafe.Pointer(&info)),
		syscall.WEXITED|syscall.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(info[4]), nil
}

// reap takes the zombie away and, in the same step, its number out of
// Signal's reach.
func (r *Reaper) reap(pid int) {
	var status syscall.WaitStatus
	var usage syscall.Rusage
	r.mu.Lock()
	_, err := syscall.Wait4(pid, &status, syscall.WNOHANG, &usage)
	ended, ours := r.children[pid]
	delete(r.children, pid)
	r.mu.Unlock()
	switch {
	case err != nil:
	case ours:
		ended(status, &usage)
	case r.Orphan != nil:
		r.Orphan(pid, status)
	}
}
