package container_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/container"
)

// TestInheritedDescriptors has a program start a system that got a pipe from
// who started it, as a shell's children do: the pipe ends with the program, and
// not with the system.
func TestInheritedDescriptors(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ours, theirs, err := os.Pipe()
		f.must(err)
		defer ours.Close()
		_, err = unix.FcntlInt(theirs.Fd(), unix.F_SETFD, 0)
		f.must(err)
		f.running(container.Spec{})
		f.must(theirs.Close())
		f.must(ours.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error("something of the system has the pipe:", err)
		}
	})
}
