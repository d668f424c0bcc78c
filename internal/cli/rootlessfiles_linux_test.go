package cli_test

import (
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestOrdinaryFiles has an ordinary user copy files out of containers and into them, running or not, and look at what they do.
func TestOrdinaryFiles(t *testing.T) {
	o := newOrdinary(t, testenv.ManyIDs)
	o.ok("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	for _, state := range []string{"running", "stopped"} {
		t.Run(state, func(t *testing.T) {
			o.t = t
			o.ok("cp", "c:/etc/passwd", "out")
			o.ok("unshare", "chmod", "600", "out")
			o.ok("cp", "out", "c:/in")
			o.ok("cp", "c:/in", "back")
			o.gives("", 0, "unshare", "cmp", "out", "back")
			if out, errs, status := o.do("", "cp", "c:/bin", "-"); status != 0 || !strings.Contains(out, "bin/busybox") {
				t.Errorf("a stream: status %d, %s", status, errs)
			}
			if got := o.ok("diff", "c"); got != "A /in" {
				t.Errorf("the difference is %q", got)
			}
			if state == "running" {
				o.gives("0 600", 0, "exec", "c", "stat", "-c", "%u %a", "/in")
				if top := o.ok("top", "c"); !strings.Contains(top, "sleep 1000") {
					t.Errorf("top: %q", top)
				}
				if metrics := o.ok("system", "metrics"); !strings.Contains(metrics, `hcs_containers{state="running"} 1`) {
					t.Errorf("metrics: %q", metrics)
				}
				o.ok("stop", "-t", "0.1", "c")
			}
		})
	}
	o.t = t
	if events := o.ok("events", "--until", "0s", "--format", "{{.Kind}}"); !strings.HasSuffix(events, "exited") {
		t.Errorf("the events are %q", events)
	}
	if df := o.ok("system", "df"); !strings.Contains(df, "Containers   1       0") {
		t.Errorf("df: %q", df)
	}
}
