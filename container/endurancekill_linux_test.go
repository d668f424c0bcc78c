package container_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// victims are whom TestEnduranceKills kills.
var victims = []string{"shim", "agent", "runtime", "client"}

// TestEnduranceKills kills, at any moment of a system's life, one of those who
// have to do with it. Every call of the others returns, and afterwards nothing
// is left: no process, mount, control group, socket or state.
func TestEnduranceKills(t *testing.T) {
	rounds := testenv.Enduring(16, 200)
	f := newFixture(t)
	testenv.NeedCommand(t, "runc", "crun")
	met := make(map[string]int)
	for round := 0; round < rounds || len(met) < len(victims) && round < 10*rounds; round++ {
		victim := victims[round%len(victims)]
		f.config.Runtime = "native"
		if victim == "runtime" {
			f.config.Runtime = []string{"runc", "crun"}[round/len(victims)%2]
		}
		f.open()
		if f.killRound(victim, rand.IntN(2) == 0) {
			met[victim]++
		}
		if f.t.Failed() {
			t.Fatalf("in round %d: %s with %s", round, victim, f.config.Runtime)
		}
	}
	t.Logf("killed: %v", met)
	for _, v := range victims {
		if met[v] == 0 {
			t.Errorf("no %s was ever met", v)
		}
	}
}

// killRound leads a system into its life and kills the victim, if it is there
// at a moment that is chosen by chance.
func (f *fixture) killRound(victim string, ephemeral bool) (met bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Minute, errStuck)
	defer cancel()
	client, id := f.client(container.Spec{Ephemeral: ephemeral}, "while true; do sleep 0.01; done", "created")
	ended := make(chan struct{})
	go func() { _ = client.Wait(); close(ended) }()
	over, other := make(chan struct{}), make(chan error, 1)
	go func() { other <- f.visit(ctx, id, over) }()
	time.Sleep(time.Duration(rand.IntN(40_000)) * time.Microsecond)
	if pid := f.find(victim, client, id); pid > 0 {
		met = syscall.Kill(pid, syscall.SIGKILL) == nil
	}
	f.endSystem(ctx, id, ended)
	close(over)
	// What was on its way through a shim that is killed is lost.
	if err := <-other; err != nil && !(victim == "shim" && errors.Is(err, errCut)) {
		f.t.Errorf("another client: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(testenv.Patience):
		f.t.Error("the client's calls do not return")
		_ = client.Process.Kill()
		<-ended
	}
	f.prune(ctx)
	return met
}

// prune removes what is left until that is nothing.
func (f *fixture) prune(ctx context.Context) {
	f.t.Helper()
	for deadline := time.Now().Add(testenv.Patience); ; time.Sleep(5 * time.Millisecond) {
		_, err := f.Prune(ctx)
		f.check(err)
		left := f.left()
		if len(left) == 0 || f.t.Failed() {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("left: %q", left)
		}
	}
}

// visit is another client of the system: it does what it can until it is over.
func (f *fixture) visit(ctx context.Context, id string, over <-chan struct{}) error {
	for {
		select {
		case <-over:
			return nil
		default:
		}
		if err := f.visitOnce(ctx, id); !expected(err) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fixture) visitOnce(ctx context.Context, id string) error {
	s, err := f.Open(ctx, id)
	if err != nil {
		return err
	}
	_, err = s.Status(ctx)
	_, lerr := s.Processes(ctx)
	return errors.Join(err, lerr, process(ctx, s, "exit 0"), talk(ctx, s), s.Close())
}

// endSystem ends the system in whatever state it is: one that its client is
// about to start begins to run all the same.
func (f *fixture) endSystem(ctx context.Context, id string, clientEnded <-chan struct{}) {
	f.t.Helper()
	for !f.t.Failed() {
		nobody := false
		select {
		case <-clientEnded:
			nobody = true
		default:
		}
		s, err := f.Open(ctx, id)
		if errdefs.IsNotFound(err) {
			return
		}
		f.must(err)
		if err := s.Terminate(ctx); !expected(err) {
			f.t.Errorf("terminate: %v", err)
		}
		st, err := s.Status(ctx)
		if !expected(err) {
			f.t.Errorf("status: %v", err)
		}
		f.check(s.Close())
		switch {
		case err != nil:
		case st.State == container.Stopped, st.State == container.Lost, nobody:
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// find returns the victim's process, or 0 if there is none at this moment.
func (f *fixture) find(victim string, client *exec.Cmd, id string) int {
	if victim == "client" {
		return client.Process.Pid
	}
	shim := shimAnywhere(filepath.Join(f.config.Run, "containers", id))
	if shim == 0 || victim == "shim" {
		return shim
	}
	// Both others are the shim's children; the agent is process 1 of its own
	// namespace.
	for _, pid := range childrenOf(shim) {
		if isFirst(pid) == (victim == "agent") {
			return pid
		}
	}
	return 0
}

// shimAnywhere finds the shim of the directory, whoever started it.
func shimAnywhere(dir string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if argv, _ := os.ReadFile(file); strings.HasPrefix(string(argv), "hcs-shim\x00"+dir+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	return 0
}

// isFirst reports whether a process is the first of a pid namespace.
func isFirst(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// left lists what there is of any system in the fixture's directories and
// control groups.
func (f *fixture) left() []string {
	var list []string
	for _, pattern := range []string{
		filepath.Join(f.config.Run, "containers", "*"), filepath.Join(f.config.Run, "locks", "*"), filepath.Join(f.config.Root, "containers", "*"),
		filepath.Join(f.config.Root, "names", "*"), filepath.Join(f.dir, "layers", "scratch", "*"),
		"/sys/fs/cgroup" + f.config.CgroupParent + "/*/*", "/sys/fs/cgroup/*" + f.config.CgroupParent + "/*/*",
	} {
		found, err := filepath.Glob(pattern)
		f.check(err)
		for _, path := range found {
			info, err := os.Lstat(path)
			if err == nil && filepath.Base(path) != ".lock" && (info.IsDir() || !strings.HasPrefix(path, "/sys/")) {
				list = append(list, path)
			}
		}
	}
	return list
}
