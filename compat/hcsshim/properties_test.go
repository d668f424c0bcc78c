package hcsshim

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	compute "github.com/hostcompute/hcs/container"
)

// TestStatistics has where each counter comes from, and the units.
func TestStatistics(t *testing.T) {
	t.Parallel()
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := started.Add(time.Second)
	got := newStatistics(&compute.Stats{
		Time: now, MemoryUsage: 30, MemoryPeak: 40, MemoryCache: 10, CPU: 3 * time.Microsecond, CPUUser: 2 * time.Microsecond,
		CPUSystem: time.Microsecond, ReadOps: 1, ReadBytes: 2, WriteOps: 3, WriteBytes: 4,
		Networks: []compute.NetworkStats{{Name: "eth0", RxBytes: 1, RxPackets: 2, RxDropped: 3, TxBytes: 4, TxPackets: 5, TxDropped: 6}},
	}, started)
	want := Statistics{
		Timestamp: now, ContainerStartTime: started, Uptime100ns: 1e7,
		Memory:    MemoryStats{UsageCommitBytes: 30, UsageCommitPeakBytes: 40, UsagePrivateWorkingSetBytes: 20},
		Processor: ProcessorStats{TotalRuntime100ns: 30, RuntimeUser100ns: 20, RuntimeKernel100ns: 10},
		Storage:   StorageStats{ReadCountNormalized: 1, ReadSizeBytes: 2, WriteCountNormalized: 3, WriteSizeBytes: 4},
		Network: []NetworkStats{{
			BytesReceived: 1, PacketsReceived: 2, DroppedPacketsIncoming: 3, BytesSent: 4, PacketsSent: 5, DroppedPacketsOutgoing: 6,
			InstanceId: "eth0",
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := newStatistics(&compute.Stats{MemoryUsage: 1, MemoryCache: 2, Time: started}, now); got.Memory.UsagePrivateWorkingSetBytes != 0 || got.Uptime100ns != 0 {
		t.Errorf("counters below zero: %+v", got)
	}
}

// TestQuery selects by each list, and by all of them.
func TestQuery(t *testing.T) {
	t.Parallel()
	p := ContainerProperties{ID: "i", Name: "n", SystemType: "Container", Owner: "o"}
	for _, c := range []struct {
		query ComputeSystemQuery
		want  bool
	}{
		{ComputeSystemQuery{}, true},
		{ComputeSystemQuery{IDs: []string{"x", "i"}, Names: []string{"n"}, Types: []string{"Container"}, Owners: []string{"o"}}, true},
		{ComputeSystemQuery{IDs: []string{"x"}}, false},
		{ComputeSystemQuery{IDs: []string{"i"}, Names: []string{"x"}}, false},
		{ComputeSystemQuery{IDs: []string{"i"}, Types: []string{"x"}}, false},
		{ComputeSystemQuery{IDs: []string{"i"}, Owners: []string{"x"}}, false},
	} {
		if got := c.query.selects(&p); got != c.want {
			t.Errorf("%+v: %t", c.query, got)
		}
	}
}
