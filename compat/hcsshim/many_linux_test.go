package hcsshim_test

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
)

// TestManyProcesses has many short processes at once: nothing of what they print is lost, however soon they end.
func TestManyProcesses(t *testing.T) {
	m := newMachine(t)
	c := m.running("web")
	before := inUse(t)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			p, err := c.CreateProcess(&hcsshim.ProcessConfig{CommandLine: fmt.Sprint("echo ", i), CreateStdOutPipe: true})
			if err != nil {
				t.Error(err)
				return
			}
			if got := read(t, p); got != fmt.Sprintln(i) {
				t.Errorf("%d prints %q", i, got)
			}
		})
	}
	wg.Wait()
	const idle = 16 // connections, and goroutines that wait for the container
	for deadline := time.Now().Add(testenv.Patience); ; time.Sleep(time.Millisecond) {
		if after := inUse(t); after <= before+idle {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and descriptors, before it were %d", after, before)
		}
	}
}

// inUse counts goroutines and descriptors.
func inUse(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return runtime.NumGoroutine() + len(entries)
}
