package container

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// Stats are a running system's counters at one moment. The agent's own memory
// is part of them. A number that the kernel does not keep is 0,
// and so is a limit that there is not.
type Stats struct {
	Time time.Time

	MemoryUsage uint64 // bytes, page cache included
	MemoryCache uint64 // bytes of MemoryUsage that the kernel can drop
	MemoryPeak  uint64 // bytes
	MemoryLimit uint64 // bytes
	OOMKills    uint64

	CPU, CPUUser, CPUSystem time.Duration // since the start, over all processors
	// CPUThrottled is how long processes waited as Resources.CPUs was used up;
	// CPUThrottledPeriods, of CPUPeriods in which any ran, are those in which it
	// was.
	CPUThrottled                    time.Duration
	CPUPeriods, CPUThrottledPeriods uint64

	Pids, PidsLimit uint64 // processes and threads, the agent's not counted

	ReadBytes, WriteBytes uint64 // block devices
	ReadOps, WriteOps     uint64

	// Networks are the interfaces of the system's own network, but its loopback.
	// A system on the host's has none of its own.
	Networks []NetworkStats
}

// NetworkStats are the counters of a network interface.
type NetworkStats struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// meter keeps open what Stats reads.
type meter struct {
	mu      sync.Mutex
	group   *sys.CgroupMeter
	network *sys.NetworkMeter
	list    []sys.InterfaceStats
}

// Stats returns what the kernel counts of the running system. Nothing is
// counted without a control group: the error is of class ErrNotImplemented.
// The System keeps descriptors of the kernel's files from the first call to
// Close, so that further calls take some microseconds.
func (s *System) Stats(ctx context.Context) (Stats, error) {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	st, err := s.measure(ctx)
	if errors.Is(err, os.ErrNotExist) { // it may have been started anew
		if err = s.meter.forget(); err == nil {
			st, err = s.measure(ctx)
		}
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed { // nobody closes it again
		err = errors.Join(err, s.meter.forget())
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = errors.Join(s.meter.forget(), s.notRunning())
	case errors.Is(err, sys.ErrNoCgroup):
		err = fault(errdefs.ErrNotImplemented, "%s", err.Error())
	}
	return st, s.wrap("measure", err)
}

// measure reads the counters once. Who asks holds the meter's lock.
func (s *System) measure(ctx context.Context) (Stats, error) {
	m := &s.meter
	if m.group == nil {
		if err := s.openMeter(ctx); err != nil {
			return Stats{}, err
		}
	}
	var c sys.CgroupStats
	if err := m.group.Read(&c); err != nil {
		return Stats{}, err
	}
	if c.Tasks == 0 { // not even the agent is left, or the kernel counts no processes
		if _, err := s.isUpNow(ctx); err != nil {
			return Stats{}, err
		}
	}
	st := newStats(&c)
	if m.network == nil {
		return st, nil
	}
	var err error
	if m.list, err = m.network.Read(m.list[:0]); err != nil {
		return Stats{}, os.ErrNotExist // its first process has ended
	}
	for i := range m.list {
		st.Networks = append(st.Networks, NetworkStats(m.list[i]))
	}
	return st, nil
}

func (s *System) openMeter(ctx context.Context) error {
	st, err := s.isUpNow(ctx)
	if err != nil {
		return err
	}
	cg, err := s.group(&st)
	if err != nil {
		return err
	}
	group, err := cg.NewMeter(st.Pid)
	if err != nil {
		return err
	}
	var network *sys.NetworkMeter
	if s.record.Spec.Network != NetworkHost {
		if network, err = sys.NewNetworkMeter(st.Pid); err != nil {
			return errors.Join(os.ErrNotExist, group.Close())
		}
	}
	s.meter.group, s.meter.network = group, network
	return nil
}

// isUpNow returns the status of a system that runs. Of others the error is
// os.ErrNotExist: a shim that was killed leaves the control group behind.
func (s *System) isUpNow(ctx context.Context) (wire.Status, error) {
	st, err := s.query(ctx)
	if errdefs.IsFailedPrecondition(err) || err == nil && !State(st.State).IsUp() {
		err = os.ErrNotExist
	}
	return st, err
}

// forget closes what is open. The lock is held.
func (m *meter) forget() error {
	var errs []error
	if m.group != nil {
		errs = append(errs, m.group.Close())
	}
	if m.network != nil {
		errs = append(errs, m.network.Close())
	}
	m.group, m.network = nil, nil
	return errors.Join(errs...)
}

func (m *meter) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.forget()
}

func newStats(c *sys.CgroupStats) Stats {
	return Stats{
		Time:        time.Now(),
		MemoryUsage: c.MemoryUsage, MemoryCache: c.MemoryCache, MemoryPeak: c.MemoryPeak, MemoryLimit: c.MemoryLimit,
		OOMKills: c.OOMKills,
		CPU:      time.Duration(c.CPUTotal), CPUUser: time.Duration(c.CPUUser), CPUSystem: time.Duration(c.CPUSystem),
		CPUThrottled: time.Duration(c.CPUThrottled), CPUPeriods: c.CPUPeriods, CPUThrottledPeriods: c.CPUThrottledPeriods,
		Pids: c.Pids, PidsLimit: c.PidsLimit,
		ReadBytes: c.ReadBytes, WriteBytes: c.WriteBytes, ReadOps: c.ReadOps, WriteOps: c.WriteOps,
	}
}
