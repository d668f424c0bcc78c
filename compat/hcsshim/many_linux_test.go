package hcsshim_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
)

// TestManyProcesses has many short processes at once: nothing of what they print is lost, however soon they end.
func TestManyProcesses(t *testing.T) {
	m := newMachine(t)
	c := m.running("web")
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
}
