package testenv

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Scope says where to look for leaks. Tests that run at once give each other disjoint scopes.
type Scope struct {
	// Dir limits mounts and loop devices to those at or below it, and adds the processes, whoever's child they are, that
	// have it in their command line. Empty means all mounts and loop devices.
	Dir string
	// Children adds all children of this process. Tests that run at once with others cannot tell theirs from the others'.
	Children bool
	// Cgroup is the prefix of cgroups' paths, in all hierarchies: "/hcs" covers /hcs, /hcs-1 and /hcs/x. Empty means none.
	Cgroup string
	// Settles gives things Patience to go after the test's end. Use it only where the kernel or a process outside of the test's
	// reach does the last step: a supervisor outlives its client, and a loop device is freed after the unmount, when the last to
	// look at it is done, and the last mount namespace gone in which the file system is, which may be that of another test's program.
	Settles bool
}

// NoLeaks fails the test if, at its end, there are mounts, cgroups, loop devices or processes in the scope that were not
// there before. Call it first, so that it looks after all other cleanups have run.
func NoLeaks(t testing.TB, scope Scope) {
	t.Helper()
	before, err := take(scope)
	if err != nil {
		t.Fatalf("take stock for the leak check: %v", err)
	}
	t.Cleanup(func() {
		t.Helper()
		left, err := settle(before, scope)
		if err != nil {
			t.Errorf("take stock for the leak check: %v", err)
		}
		for _, l := range left {
			t.Errorf("left behind: %s", l)
		}
	})
}

// settle compares until nothing is left or time is up.
func settle(before []string, scope Scope) ([]string, error) {
	deadline := time.Now()
	if scope.Settles {
		deadline = deadline.Add(Patience)
	}
	for {
		now, err := take(scope)
		left := added(before, now)
		if err != nil || len(left) == 0 || !time.Now().Before(deadline) {
			return left, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// added returns what now has more than before. Stacked mounts are equal lines, so it counts.
func added(before, now []string) []string {
	count := map[string]int{}
	for _, b := range before {
		count[b]++
	}
	var left []string
	for _, n := range now {
		if count[n]--; count[n] < 0 {
			left = append(left, n)
		}
	}
	slices.Sort(left)
	return left
}

func (s Scope) covers(path string) bool {
	dir := strings.TrimSuffix(s.Dir, "/")
	return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
}
