package container_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/sys"
)

// tale is what events tell of one system, in short.
func tale(events []container.Event, s *container.System) []string {
	var list []string
	for _, e := range events {
		if e.ID != s.ID() {
			continue
		}
		text := string(e.Kind)
		if e.Kind == container.EventProcessExited || e.Kind == container.EventExited {
			text += fmt.Sprintf(" %d", e.Exit.Code)
		}
		if e.Exit.OOMKilled {
			text += " oom"
		}
		if e.Main {
			text += " main"
		}
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		list = append(list, text)
	}
	return list
}

func (f *fixture) past(since container.Cursor) []container.Event {
	f.t.Helper()
	var list []container.Event
	for e, err := range f.PastEvents(since) {
		f.must(err)
		list = append(list, e)
	}
	return list
}

func (f *fixture) wantTale(s *container.System, want ...string) {
	f.t.Helper()
	if got := tale(f.past(container.Oldest), s); !slices.Equal(got, want) {
		f.t.Errorf("got\n\t%q, want\n\t%q", got, want)
	}
}

func TestEventsOfALife(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		before := time.Now()
		s := f.created(container.Spec{Name: "life", Image: "busybox"})
		f.must(s.Start(ctx))
		f.must(s.Pause(ctx))
		f.must(s.Pause(ctx))
		f.must(s.Resume(ctx))
		f.run(s, "exit 3")
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
		f.must(err)
		f.run(s, "exit 5", main)
		_, err = s.Wait(ctx)
		f.must(err)
		f.must(s.Delete(ctx))
		f.wantTale(s, "created", "started", "paused", "resumed", "process-created", "process-exited 3",
			"process-created", "process-created main", "process-exited 5 main", "process-exited 137", "exited 5", "deleted")
		events := f.past(container.Oldest)
		for i, e := range events {
			if e.Name != "life" || e.Image != "busybox" || e.Time.Before(before) || e.Time.After(time.Now()) {
				t.Errorf("got %+v", e)
			}
			if i > 0 && e.Time.Before(events[i-1].Time) {
				t.Errorf("%s before %s", e.Kind, events[i-1].Kind)
			}
			if got := f.past(e.Cursor); len(got) != len(events)-i-1 {
				t.Errorf("after event %d there are %d", i, len(got))
			}
		}
		if e := events[len(events)-3]; e.Pid != p.Pid() || e.Exit.Signal != syscall.SIGKILL {
			t.Errorf("the end of the process that was left: %+v", e)
		}
		if got := f.past(container.CursorAt(events[4].Time)); len(got) > len(events)-4 || len(got) < len(events)-5 {
			t.Errorf("since its time there are %d", len(got))
		}
		if got := f.past(""); len(got) != 0 {
			t.Errorf("from now on there is %v", got)
		}
	})
}

func TestEventsOfEphemeral(t *testing.T) {
	f := newFixture(t)
	s := f.created(container.Spec{Ephemeral: true})
	f.must(s.StartForMain(t.Context()))
	f.run(s, "exit 2", main)
	f.eventually("it is deleted", func() bool {
		got := tale(f.past(container.Oldest), s)
		return got[len(got)-1] == "deleted"
	})
	f.wantTale(s, "created", "started", "process-created main", "process-exited 2 main", "exited 2", "deleted")
}

func TestEventsCursor(t *testing.T) {
	f := newFixture(t)
	for e, err := range f.PastEvents("yesterday") {
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "yesterday") {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	defer cancel(nil)
	events := f.Events(ctx, "") // from here on, though it is asked for later
	s := f.created(container.Spec{})
	for e, err := range events {
		if err != nil {
			if !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
			return
		}
		if e.Kind != container.EventCreated || e.ID != s.ID() {
			t.Errorf("got %+v", e)
		}
		cancel(cause)
	}
	t.Error("it ends without an error")
}

// TestEventsOfShimKilled has nobody but followers to notice that a shim died,
// and then many who notice it at once.
func TestEventsOfShimKilled(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := f.running(container.Spec{})
	st, err := s.Status(ctx)
	f.must(err)
	var wg sync.WaitGroup
	const followers = 4
	for range followers {
		events := f.Events(ctx, "")
		wg.Go(func() {
			for e, err := range events {
				if err != nil || e.Kind != container.EventLost || e.ID != s.ID() || e.Reason != "its shim died" {
					t.Errorf("got %+v, %v", e, err)
				}
				return
			}
		})
	}
	f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
	wg.Wait()
	f.must(s.Start(ctx))
	st, err = s.Status(ctx)
	f.must(err)
	f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
	f.gone(st.ShimPid)
	for range 8 {
		wg.Go(func() {
			other, err := f.Open(ctx, s.ID())
			if err == nil {
				_, err = other.Status(ctx)
			}
			if err == nil {
				_, err = other.Wait(ctx)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.must(s.Delete(ctx))
	f.wantTale(s, "created", "started", "lost: its shim died", "started", "lost: its shim died", "deleted")
}

// TestEventsOfShimKilledBefore has a follower who comes later.
func TestEventsOfShimKilledBefore(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	st, err := s.Status(t.Context())
	f.must(err)
	f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
	f.gone(st.ShimPid)
	for e, err := range f.Events(t.Context(), "") {
		if err != nil || e.Kind != container.EventLost {
			t.Errorf("got %+v, %v", e, err)
		}
		break
	}
}

// TestFullDiskStopsNoContainer has no room for a single event.
func TestFullDiskStopsNoContainer(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.config.Root, "events")
	f.must(os.MkdirAll(dir, 0o700))
	f.must(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,nr_inodes=1"))
	unmount := sync.OnceFunc(func() { f.check(sys.Unmount(dir)) })
	t.Cleanup(unmount)
	s := f.running(container.Spec{})
	f.ok(s, "true")
	f.must(syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m,nr_inodes=100"))
	f.ok(s, "true")
	f.must(s.Terminate(t.Context()))
	events := f.past(container.Oldest)
	if len(events) < 4 || events[0].Kind != container.EventGap {
		t.Errorf("got %+v", events)
	}
	got := tale(events, s) // the end of the first process may have waited long enough
	if !slices.Equal(got[max(0, len(got)-3):], []string{"process-created", "process-exited 0", "exited 0"}) {
		t.Errorf("got %q", got)
	}
	f.must(s.Delete(t.Context()))
	unmount()
}

// TestEventOOM has the kernel kill a process for lack of memory: the one that
// was created, one that it started, or the main one.
func TestEventOOM(t *testing.T) {
	const eat = "x=x; while :; do x=$x$x; done"
	for _, tt := range []struct{ name, script string }{
		{"created", "exec sh -c '" + eat + "'"},
		{"child", "sh -c '" + eat + "'; exit 7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			s := f.running(container.Spec{Resources: container.Resources{Memory: 24 << 20}})
			r := f.run(s, tt.script)
			f.eventually("it is told", func() bool { return slices.Contains(tale(f.past(container.Oldest), s), "oom") })
			f.must(s.Terminate(t.Context()))
			end := fmt.Sprintf("process-exited %d oom", r.Code)
			got := tale(f.past(container.Oldest), s)
			if tt.name == "created" {
				if r.Code != 137 {
					t.Errorf("exit code %d", r.Code)
				}
				f.wantTale(s, "created", "started", "process-created", "oom", end, "exited 0")
				return
			}
			if r.Code != 7 || len(got) != 6 || slices.Index(got, "oom") < 3 {
				t.Errorf("got %q", got)
			}
		})
	}
}
