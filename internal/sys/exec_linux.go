package sys

import (
	"runtime"
	"syscall"
	"unsafe"
)

// Exec is a program that this process is ready to become, with its arguments and variables.
type Exec struct {
	path      *byte
	args, env []*byte
}

// PrepareExec prepares what syscall.Exec takes, and has other goroutines do what they have begun. If they then wait for something
// that does not come, and the runtime has one processor, no thread is made any more, which execve(2) could fail for.
func PrepareExec(path string, args, env []string) (*Exec, error) {
	x := new(Exec)
	var err error
	if x.path, err = syscall.BytePtrFromString(path); err != nil {
		return nil, err
	}
	if x.args, err = syscall.SlicePtrFromStrings(args); err != nil {
		return nil, err
	}
	if x.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return nil, err
	}
	const all = 8 // those that the runtime starts with, and some
	for range all {
		runtime.Gosched()
	}
	return x, nil
}

// Become returns only if it fails. Unlike syscall.Exec it needs no memory, of which a limit may leave none.
func (x *Exec) Become() syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(x.path)),
		uintptr(unsafe.Pointer(&x.args[0])), uintptr(unsafe.Pointer(&x.env[0])))
	runtime.KeepAlive(x)
	return errno
}
