package inroot_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
)

const (
	denyVar   = "HCS_TEST_DENY_OPENAT2" // the errno that a child is to get from openat2
	deniedVar = "HCS_TEST_DENIED_OPENAT2"
)

// TestMain turns a child with denyVar into one that has no openat2, and then runs the tests as usual.
func TestMain(m *testing.M) {
	if errno := os.Getenv(denyVar); errno != "" {
		fmt.Fprintln(os.Stderr, "deny openat2:", denyAndExec(errno))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestWithoutOpenat2 runs all other tests in a process whose seccomp filter denies openat2, in the two ways that
// filters in use do.
func TestWithoutOpenat2(t *testing.T) {
	testenv.NeedKernel(t, testenv.Seccomp)
	if os.Getenv(deniedVar) != "" {
		fd, err := sys.OpenInRoot(sys.CWD, ".", sys.OpenPathFollow)
		if err == nil {
			_ = sys.Close(fd)
			t.Fatal("openat2 works in a process that was to have none")
		}
		return
	}
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.v", "-test.count=1")
			cmd.Env = append(os.Environ(), denyVar+"="+strconv.Itoa(int(errno)))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("tests without openat2: %v\n%s", err, out)
			}
		})
	}
}

// denyAndExec sets the filter for this thread, and so for the process that takes its place.
func denyAndExec(value string) error {
	errno, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	const (
		setNoNewPrivs = 38
		setSeccomp    = 22
		modeFilter    = 2
		retErrno      = 0x00050000
		retAllow      = 0x7fff0000
		openat2       = 437 // on all architectures
	)
	filter := []syscall.SockFilter{
		{Code: 0x20}, // load the call's number
		{Code: 0x15, Jf: 1, K: openat2},
		{Code: 0x06, K: retErrno | uint32(errno)},
		{Code: 0x06, K: retAllow},
	}
	prog := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0); e != 0 {
		return e
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, setSeccomp, modeFilter, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	if err := os.Unsetenv(denyVar); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), deniedVar+"=1"))
}
