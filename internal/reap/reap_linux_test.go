package reap_test

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/reap"
	"github.com/hostcompute/hcs/internal/testenv"
)

// The reaper reaps all children of its process: the tests share one, and
// start none by other means.
var (
	reaper  reap.Reaper
	orphans = make(chan int, 100)
)

func TestMain(m *testing.M) {
	reaper.Orphan = func(pid int, _ syscall.WaitStatus) { orphans <- pid }
	go reaper.Run()
	os.Exit(m.Run())
}

type outcome struct {
	status syscall.WaitStatus
	began  bool
}

// sh runs a script and returns its number and where its end is told.
func sh(t *testing.T, script string) (int, <-chan outcome) {
	t.Helper()
	done := make(chan outcome, 1)
	var pid int
	var mu sync.Mutex
	began := false
	err := reaper.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Env: os.Environ()},
		func(p int) {
			time.Sleep(time.Millisecond) // an end that overtook this would show
			mu.Lock()
			pid, began = p, true
			mu.Unlock()
		},
		func(s syscall.WaitStatus, u *syscall.Rusage) {
			mu.Lock()
			defer mu.Unlock()
			if u == nil {
				t.Error("no resource usage")
			}
			done <- outcome{s, began}
		})
	if err != nil {
		t.Fatal(err)
	}
	return pid, done
}

func TestEndsAreTold(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, done := sh(t, "exit "+string(rune('0'+i%10)))
			if o := <-done; o.status.ExitStatus() != i%10 || !o.began {
				t.Errorf("got %v, began %v; want %d", o.status, o.began, i%10)
			}
		})
	}
	wg.Wait()
}

func TestSleepsAndWakes(t *testing.T) {
	for range 3 { // without children in between
		_, done := sh(t, "exit 4")
		if o := <-done; o.status.ExitStatus() != 4 {
			t.Errorf("got %v", o.status)
		}
	}
}

func TestSignal(t *testing.T) {
	pid, done := sh(t, "exec sleep 1000")
	if err := reaper.Signal(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if o := <-done; o.status.Signal() != syscall.SIGTERM {
		t.Errorf("got %v", o.status)
	}
	if err := reaper.Signal(pid, syscall.SIGTERM); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal to one that is reaped: %v", err)
	}
	if err := reaper.Signal(1, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal to one that is not ours: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	err := reaper.Start("/no/such/program", []string{"x"}, &syscall.ProcAttr{}, func(int) { t.Error("began") },
		func(syscall.WaitStatus, *syscall.Rusage) { t.Error("ended") })
	if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("got %v", err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	const prSetChildSubreaper = 36
	if _, _, e := syscall.Syscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); e != 0 {
		t.Fatal(e)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The shell ends at once; its child becomes ours, and ends.
	done := make(chan struct{})
	err = reaper.Start("/bin/sh", []string{"sh", "-c", "sleep 0.05 & exit 0"},
		&syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, w.Fd(), 2}}, func(int) {},
		func(syscall.WaitStatus, *syscall.Rusage) { close(done) })
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	<-done
	select {
	case pid := <-orphans:
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("the orphan is still there: %v", err)
		}
	case <-time.After(testenv.Patience):
		t.Error("the orphan is not told")
	}
}
