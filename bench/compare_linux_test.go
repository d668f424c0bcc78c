package bench_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rest is how long a machine is left alone before an operation that is to be
// measured as it comes out of the blue: long enough for the kernel's and the
// processor's caches and grace periods to matter.
const rest = 100 * time.Millisecond

// compare runs both in turn, hot and after a rest, and reports medians and
// their ratio.
func compare(b *testing.B, ours, theirs func() error) {
	for _, mode := range []struct {
		name  string
		pause time.Duration
		pairs int
	}{{"hot", 0, 100}, {"idle", rest, 40}} {
		b.Run(mode.name, func(b *testing.B) {
			for range 3 { // warm up
				must(b, ours())
				must(b, theirs())
			}
			for b.Loop() {
				pairs(b, mode.pairs, mode.pause, runner{run: ours}, runner{run: theirs})
			}
			if mode.pause > 0 {
				b.ReportMetric(float64(wake(b, mode.pause).Microseconds()), "µs-wake")
			}
		})
	}
}

// wake returns how long a message to a thread on another processor and back
// takes after a rest. Where others have the processors that this machine
// believes are its own, that is milliseconds, and what goes through several
// processes waits for each of them: figures of such a time are not to be
// compared with others.
func wake(b *testing.B, pause time.Duration) time.Duration {
	there, back := newPipe(b), newPipe(b)
	var set unix.CPUSet
	must(b, unix.SchedGetaffinity(0, &set))
	first, last := ends(&set)
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		stay(last) // and the thread ends with this
		for c := []byte{0}; ; {
			if n, err := syscall.Read(there[0], c); n == 0 || err != nil {
				return
			}
			if _, err := syscall.Write(back[1], c); err != nil {
				return
			}
		}
	}()
	stay(first)
	defer runtime.UnlockOSThread()
	defer func() { must(b, unix.SchedSetaffinity(0, &set)) }()
	var took []time.Duration
	for range 20 {
		took = append(took, timed(b, pause, runner{run: func() error {
			c := []byte{0}
			_, werr := syscall.Write(there[1], c)
			_, rerr := syscall.Read(back[0], c)
			return errors.Join(werr, rerr)
		}}))
	}
	must(b, syscall.Close(there[1]))
	<-echoed
	for _, fd := range []int{there[0], back[0], back[1]} {
		must(b, syscall.Close(fd))
	}
	return median(took)
}

// stay keeps the calling goroutine in its thread, and that on one processor.
func stay(processor int) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(processor)
	_ = unix.SchedSetaffinity(0, &set) // in vain where it went away meanwhile
}

// ends returns the first and the last processor of a set.
func ends(set *unix.CPUSet) (first, last int) {
	for first = 0; !set.IsSet(first); first++ {
	}
	last = first
	for n, found := first, 0; found < set.Count(); n++ {
		if set.IsSet(n) {
			last, found = n, found+1
		}
	}
	return first, last
}

// newPipe makes a pipe whose readers keep their threads.
func newPipe(b *testing.B) (ends [2]int) {
	must(b, syscall.Pipe2(ends[:], syscall.O_CLOEXEC))
	return ends
}

// runner is what is timed, and what goes before it untimed.
type runner struct {
	before func()
	run    func() error
}

func pairs(b *testing.B, n int, pause time.Duration, ours, theirs runner) {
	var a, p []time.Duration
	for range n {
		a = append(a, timed(b, pause, ours))
		p = append(p, timed(b, pause, theirs))
	}
	us, them := median(a), median(p)
	b.ReportMetric(0, "ns/op") // a pair's time says nothing
	b.ReportMetric(float64(us.Microseconds()), "µs-ours")
	b.ReportMetric(float64(them.Microseconds()), "µs-peer")
	b.ReportMetric(float64(us)/float64(them), "ratio")
	if testing.Verbose() {
		fmt.Printf("    %s: ours %v (min %v), peer %v (min %v)\n", b.Name(), us, slices.Min(a), them, slices.Min(p))
	}
}

func timed(b *testing.B, pause time.Duration, r runner) time.Duration {
	if r.before != nil {
		r.before()
	}
	time.Sleep(pause)
	start := time.Now()
	err := r.run()
	took := time.Since(start)
	must(b, err)
	return took
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
