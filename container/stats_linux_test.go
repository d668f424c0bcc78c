package container_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

func TestStats(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		s := f.running(container.Spec{Resources: container.Resources{Memory: 64 << 20, CPUs: 0.2, Pids: 30}})
		before, err := s.Stats(ctx)
		f.must(err)
		f.ok(s, "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; head -c 8000000 /dev/zero >/big")
		after, err := s.Stats(ctx)
		f.must(err)
		if after.CPU <= before.CPU || after.CPUUser <= before.CPUUser || after.CPUPeriods == 0 || after.CPUThrottled < before.CPUThrottled {
			t.Errorf("processor: %+v, then %+v", before, after)
		}
		if after.MemoryLimit != 64<<20 || after.MemoryUsage == 0 || after.MemoryPeak < after.MemoryUsage || after.PidsLimit != 30 {
			t.Errorf("got %+v", after)
		}
		if after.MemoryPeak < 8_000_000 || after.MemoryCache < 1_000_000 {
			t.Errorf("8 MB of a file are not in memory: %+v", after)
		}
		f.must(s.Terminate(ctx))
		if _, err := s.Stats(ctx); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("stopped: %v", err)
		}
		f.must(s.Start(ctx)) // with another group
		if again, err := s.Stats(ctx); err != nil || again.CPUUser > after.CPUUser {
			t.Errorf("started anew: %+v, %v", again, err)
		}
	})
}

// TestStatsLost measures a system on the host's network whose shim was killed:
// its control group is still there.
func TestStatsLost(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.running(container.Spec{Network: container.NetworkHost})
	_, err := s.Stats(ctx)
	f.must(err)
	st, err := s.Status(ctx)
	f.must(err)
	f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
	f.gone(st.ShimPid)
	f.gone(st.Pid)
	other, err := f.Open(ctx, s.ID())
	f.must(err)
	for _, s := range []*container.System{s, other} {
		if _, err := s.Stats(ctx); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "it is lost") {
			t.Errorf("got %v", err)
		}
		if _, err := s.Processes(ctx); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("processes: %v", err)
		}
	}
	f.must(s.Terminate(ctx))
}

func TestStatsOfNetwork(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	ip := testenv.NeedCommand(t, "ip", "nsenter")
	s := f.running(container.Spec{})
	st, err := s.Status(ctx)
	f.must(err)
	if got, err := s.Stats(ctx); err != nil || len(got.Networks) != 0 {
		t.Errorf("got %+v, %v", got.Networks, err)
	}
	for _, args := range [][]string{
		{"link", "add", "left", "type", "veth", "peer", "name", "right"},
		{"addr", "add", "10.9.8.1/24", "dev", "left"},
		{"link", "set", "left", "up"},
		{"link", "set", "right", "up"},
		{"neigh", "add", "10.9.8.2", "lladdr", "02:00:00:00:00:01", "dev", "left"},
	} {
		cmd := exec.Command(ip[1], append([]string{"-t", strconv.Itoa(st.Pid), "-n", ip[0]}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v: %s", args, err, out)
		}
	}
	f.run(s, "echo x | nc -u -w 1 10.9.8.2 9 || ping -c 1 -W 1 10.9.8.2")
	var got container.Stats
	f.eventually("what was sent has come", func() bool {
		got, err = s.Stats(ctx)
		f.must(err)
		return !slices.ContainsFunc(got.Networks, func(n container.NetworkStats) bool {
			return n.Name == "left" && (n.TxPackets == 0 || n.TxBytes == 0) || n.Name == "right" && (n.RxPackets == 0 || n.RxBytes == 0)
		})
	})
	if len(got.Networks) != 2 {
		t.Fatalf("got %+v", got.Networks)
	}
	host := f.running(container.Spec{Network: container.NetworkHost})
	if got, err := host.Stats(ctx); err != nil || len(got.Networks) != 0 {
		t.Errorf("of the host's network: %+v, %v", got.Networks, err)
	}
}

// TestStatsKeepNothing has the System keep no descriptors after Close, and no
// more than a few before.
func TestStatsKeepNothing(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		f.must(err)
		return len(entries)
	}
	s := f.running(container.Spec{})
	before := open()
	for range 100 {
		_, err := s.Stats(ctx)
		f.must(err)
	}
	if got := open() - before; got > 16 {
		t.Errorf("%d more descriptors", got)
	}
	f.must(s.Close())
	_, err := s.Stats(ctx)
	f.must(err)
	f.eventually("it has the descriptors from before", func() bool { return open() <= before })
}

func BenchmarkStats(b *testing.B) {
	f := newFixture(b)
	s := f.running(container.Spec{})
	ctx := b.Context()
	if _, err := s.Stats(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Stats(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
