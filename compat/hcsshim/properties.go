package hcsshim

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// GetContainers returns the containers that a query selects, those that the command hcs has made among them. An error tells of
// such as cannot be read; the others are returned all the same.
func GetContainers(q ComputeSystemQuery) ([]ContainerProperties, error) {
	list, err := containers(context.Background(), &q)
	return list, hcserror.New(err, "hcsshim::GetComputeSystems", "")
}

func containers(ctx context.Context, q *ComputeSystemQuery) ([]ContainerProperties, error) {
	s, err := service()
	if err != nil {
		return nil, err
	}
	systems, err := s.Systems(ctx)
	errs := []error{err}
	var list []ContainerProperties
	for _, system := range systems {
		p, selected, err := describe(ctx, system, q)
		if selected {
			list = append(list, p)
		}
		errs = append(errs, err, system.Close())
	}
	return list, errors.Join(errs...)
}

// describe returns the properties of a container if the query selects it.
func describe(ctx context.Context, system *compute.System, q *ComputeSystemQuery) (p ContainerProperties, selected bool, _ error) {
	n, err := noteOf(system)
	if err != nil {
		return p, false, err
	}
	p = ContainerProperties{ID: system.Name(), Name: n.Config.Name, SystemType: containerType, Owner: n.Config.Owner}
	if !q.selects(&p) {
		return p, false, nil
	}
	st, err := look(ctx, system)
	if err != nil {
		if errdefs.IsNotFound(err) {
			err = nil // gone meanwhile
		}
		return p, false, err
	}
	p.State, p.Stopped = stateNames[st.State], isOver(st)
	return p, true, nil
}

// stateNames are the states by their names in the schema
// (https://learn.microsoft.com/virtualization/api/hcs/schemareference#State).
var stateNames = map[compute.State]string{
	compute.Created: "Created", compute.Starting: "Created", compute.Running: "Running", compute.Paused: "Paused",
	compute.Stopping: "Running", compute.Stopped: "Stopped", compute.Lost: "Stopped",
}

func (q *ComputeSystemQuery) selects(p *ContainerProperties) bool {
	for _, f := range []struct {
		any  []string
		have string
	}{{q.IDs, p.ID}, {q.Types, p.SystemType}, {q.Names, p.Name}, {q.Owners, p.Owner}} {
		if len(f.any) > 0 && !slices.Contains(f.any, f.have) {
			return false
		}
	}
	return true
}

func (c *container) Statistics() (s Statistics, err error) {
	err = c.call("Statistics", func(ctx context.Context) error {
		stats, err := c.system.Stats(ctx)
		if err != nil {
			return err
		}
		status, err := c.system.Status(ctx)
		s = newStatistics(&stats, status.Started)
		return err
	})
	return s, err
}

func newStatistics(s *compute.Stats, started time.Time) Statistics {
	var networks []NetworkStats
	for i := range s.Networks {
		networks = append(networks, newNetworkStats(&s.Networks[i]))
	}
	return Statistics{
		Network:   networks,
		Timestamp: s.Time.UTC(), ContainerStartTime: started, Uptime100ns: in100ns(s.Time.Sub(started)),
		Memory: MemoryStats{
			UsageCommitBytes: s.MemoryUsage, UsageCommitPeakBytes: s.MemoryPeak,
			UsagePrivateWorkingSetBytes: s.MemoryUsage - min(s.MemoryUsage, s.MemoryCache),
		},
		Processor: ProcessorStats{
			TotalRuntime100ns: in100ns(s.CPU), RuntimeUser100ns: in100ns(s.CPUUser), RuntimeKernel100ns: in100ns(s.CPUSystem),
		},
		Storage: StorageStats{
			ReadCountNormalized: s.ReadOps, ReadSizeBytes: s.ReadBytes,
			WriteCountNormalized: s.WriteOps, WriteSizeBytes: s.WriteBytes,
		},
	}
}

// newNetworkStats has the interface's name in place of an endpoint's id, as long as there are no endpoints.
func newNetworkStats(n *compute.NetworkStats) NetworkStats {
	return NetworkStats{
		BytesReceived: n.RxBytes, PacketsReceived: n.RxPackets, DroppedPacketsIncoming: n.RxDropped,
		BytesSent: n.TxBytes, PacketsSent: n.TxPackets, DroppedPacketsOutgoing: n.TxDropped, InstanceId: n.Name,
	}
}

func in100ns(d time.Duration) uint64 { return uint64(max(0, d/100)) }

func (c *container) ProcessList() (list []ProcessListItem, err error) {
	err = c.call("ProcessList", func(ctx context.Context) error {
		processes, err := c.system.Processes(ctx)
		for i := range processes {
			list = append(list, newProcessListItem(&processes[i]))
		}
		return err
	})
	return list, err
}

func newProcessListItem(p *compute.ProcessDetails) ProcessListItem {
	return ProcessListItem{
		CreateTimestamp: p.Started, ImageName: p.Name, ProcessId: uint32(p.Pid),
		KernelTime100ns: in100ns(p.System), UserTime100ns: in100ns(p.User),
		MemoryCommitBytes: p.Resident, MemoryWorkingSetPrivateBytes: p.Private, MemoryWorkingSetSharedBytes: p.Shared,
	}
}

func (c *container) MappedVirtualDisks() (map[int]MappedVirtualDiskController, error) {
	disks := make(map[int]MappedVirtualDisk)
	err := c.call("MappedVirtualDisks", func(context.Context) error {
		record := c.system.Record()
		for i, d := range record.Spec.Disks {
			disks[i] = MappedVirtualDisk{HostPath: d.Source, ContainerPath: d.Target, ReadOnly: d.ReadOnly}
		}
		return nil
	})
	all := make(map[int]MappedVirtualDiskController)
	if len(disks) > 0 {
		all[0] = MappedVirtualDiskController{MappedVirtualDisks: disks} // they are on none, really
	}
	return all, err
}
