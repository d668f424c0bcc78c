package container_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

// TestSmallUlimits has processes live under limits that the agent could not.
func TestSmallUlimits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		s := f.running(container.Spec{Ulimits: []container.Ulimit{
			{Name: "nofile", Soft: 5, Hard: 6},
			{Name: "cpu", Soft: 100, Hard: 200},
			{Name: "data", Soft: 4 << 20, Hard: 8 << 20},
			{Name: "nproc", Soft: 10, Hard: 20},
			{Name: "core", Soft: 0, Hard: 0},
			{Name: "sigpending", Soft: 1, Hard: 1},
			{Name: "fsize", Soft: 0, Hard: 0},
		}})
		const ask = "ulimit -Sn; ulimit -Hn; ulimit -St; ulimit -Ht; ulimit -Sd; ulimit -Hd; ulimit -Hc; grep processes /proc/self/limits; exec 9</dev/null"
		const want = "5\n6\n100\n200\n4096\n8192\n0\nMax processes             10                   20                   processes \n"
		for _, name := range []string{"", "1000:1000", "user"} {
			r := f.run(s, ask, user(name))
			if r.out != want || r.Code == 0 || !strings.Contains(r.err, "Bad file descriptor") {
				t.Errorf("user %q: status %d, %q, error %q", name, r.Code, r.out, r.err)
			}
		}
		// It is the program, and no other, that is seen, signalled and waited for.
		if r := f.run(s, "echo $A $B $GOMEMLIMIT; cat /proc/$$/cmdline -; kill -9 $$", stdin("input"), variable("A=0"), variable("A=1"), variable("B=c=d"),
			variable("GOMEMLIMIT=nonsense")); r.out != "1 c=d nonsense\nsh\x00-c\x00echo $A $B $GOMEMLIMIT; cat /proc/$$/cmdline -; kill -9 $$\x00input" || r.Signal != 9 {
			t.Errorf("got %+v", r)
		}
		f.must(s.Terminate(t.Context()))
		f.must(s.Start(t.Context()))
		if r := f.run(s, ask, main); r.out != want {
			t.Errorf("as the main process: %+v", r)
		}
	})
}

// TestOtherUlimits has limits that the agent can live under go with those that it cannot.
func TestOtherUlimits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		files := container.Ulimit{Name: "nofile", Soft: 1024, Hard: 20000}
		few := container.Ulimit{Name: "nproc", Soft: 40, Hard: 50}
		want := f.ok(f.running(container.Spec{}), "ulimit -Sn; ulimit -Hn")
		if got := f.ok(f.running(container.Spec{Ulimits: []container.Ulimit{few}}), "ulimit -Sn; ulimit -Hn"); got != want {
			t.Errorf("those of open files are %q, and without a limit of others %q", got, want)
		}
		s := f.running(container.Spec{Ulimits: []container.Ulimit{files, few}})
		if got := f.ok(s, "ulimit -Sn; ulimit -Hn"); got != "1024\n20000" {
			t.Errorf("got %q", got)
		}
	})
}

// TestSoftUlimits has a limit that processes may raise.
func TestSoftUlimits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		s := f.running(container.Spec{Ulimits: []container.Ulimit{{Name: "nofile", Soft: 5, Hard: 1024}}, Resources: container.Resources{Pids: 8}})
		for range 20 { // each launcher has as many threads as it likes
			if got := f.ok(s, "ulimit -Sn; ulimit -Hn; ulimit -n 1024; ulimit -Sn"); got != "5\n1024\n1024" {
				t.Errorf("got %q", got)
			}
		}
		var sleeping []*container.Process
		var err error
		for len(sleeping) < 8 && err == nil { // until there is no room for a launcher
			var p *container.Process
			if p, err = s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"/bin/sleep", "1000"}}); err == nil {
				sleeping = append(sleeping, p)
			}
		}
		if err == nil || !strings.HasSuffix(err.Error(), "start /bin/sleep: what sets its limits has ended: the limit of processes may be too low for it") {
			t.Errorf("beside %d others: %v", len(sleeping), err)
		}
		for _, p := range sleeping {
			f.must(p.Signal(t.Context(), syscall.SIGKILL))
			_, err := p.Wait(t.Context())
			f.must(err)
		}
		f.ok(s, "true") // it serves on
	})
}

func TestNotStartedUnderLimits(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{Ulimits: []container.Ulimit{{Name: "nofile", Soft: 5, Hard: 5}}})
	for path, tt := range map[string]struct {
		is   func(error) bool
		want string
	}{
		"/bin/nope":   {errdefs.IsNotFound, "start /bin/nope: no such file or directory"},
		"/etc/passwd": {errdefs.IsPermissionDenied, "start /etc/passwd: permission denied"},
	} {
		if _, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{path}}); !tt.is(err) || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for range 100 { // more than the descriptors that there are
		f.ok(s, "true")
	}
}
