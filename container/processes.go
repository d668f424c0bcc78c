package container

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// ProcessDetails is one process of a running system at one moment, whoever
// started it.
type ProcessDetails struct {
	Pid       int // in the system
	HostPid   int
	ParentPid int // in the system: 1 is the agent; 0 for one that somebody brought in from outside
	UID       int // in the system; -1 for one that the system has no number for
	HostUID   int
	Name      string // of the program: the first 15 bytes
	Args      []string
	State     string // a letter, as ps(1) has it
	Started   time.Time
	// User and System are CPU time, in steps of 10 ms.
	User, System time.Duration
	// Resident is memory in use, in bytes: Private is its own alone, Shared that of
	// files and shared memory. Virtual is address space.
	Resident, Private, Shared, Virtual uint64
}

// Processes returns all processes of the running system but the agent, by
// their numbers. One that ends meanwhile is there or not.
func (s *System) Processes(ctx context.Context) ([]ProcessDetails, error) {
	list, err := s.processes(ctx)
	if err != nil {
		return nil, s.wrap("list the processes of", err)
	}
	return list, nil
}

func (s *System) processes(ctx context.Context) ([]ProcessDetails, error) {
	st, err := s.query(ctx)
	if err != nil {
		return nil, err
	}
	if st.State == wire.Starting {
		return nil, fault(errdefs.ErrFailedPrecondition, "it is starting")
	}
	pids, err := s.members(&st)
	if errors.Is(err, os.ErrNotExist) { // its end has come meanwhile
		return nil, s.ending(ctx)
	}
	if err != nil {
		return nil, err
	}
	stats, err := sys.ReadProcesses(pids)
	if err != nil {
		return nil, err
	}
	return details(stats, st.Pid), nil
}

// ending says what has become of a system whose control group is gone.
func (s *System) ending(ctx context.Context) error {
	st, err := s.Status(ctx)
	if err == nil && st.State.IsUp() {
		err = fault(errdefs.ErrFailedPrecondition, "it is stopping")
	} else if err == nil {
		err = s.notRunning()
	}
	return err
}

// query asks the shim for its status. The error is of class
// ErrFailedPrecondition if there is none.
func (s *System) query(ctx context.Context) (st wire.Status, err error) {
	m, err := s.call(ctx, wire.Message{Type: wire.Query})
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(m.Body, &st); err != nil {
		return st, fault(errdefs.ErrDataLoss, "read its status: %w", err)
	}
	return st, nil
}

// group returns the control group that a running system has. That may be none,
// or another than this program would give it: an ordinary user looks at systems
// from outside the user namespace that he has started them in.
func (s *System) group(st *wire.Status) (*sys.Cgroup, error) {
	if st.Cgroup != nil {
		return sys.NewCgroup(*st.Cgroup)
	}
	return sys.NewCgroup(s.service.cgroup(s.record.ID))
}

// members lists the processes of the system, by their numbers here.
func (s *System) members(st *wire.Status) ([]int, error) {
	group, err := s.group(st)
	if err != nil {
		return nil, err
	}
	pids, err := group.Members()
	if errors.Is(err, sys.ErrNoCgroup) {
		return sys.Descendants(st.Pid), nil
	}
	return pids, err
}

// agentPid is the agent's number in each system.
const agentPid = 1

func details(stats []sys.ProcessStat, first int) []ProcessDetails {
	inner, uids := map[int]int{first: agentPid}, make(map[int]int)
	for i := range stats {
		inner[stats[i].Pid] = stats[i].InnerPid
		uids[stats[i].UID] = 0
	}
	for id := range uids {
		uids[id] = sys.InnerID(first, id)
	}
	var list []ProcessDetails
	for i := range stats {
		p := &stats[i]
		if p.InnerPid <= agentPid { // the agent, or the shim while it starts something
			continue
		}
		list = append(list, ProcessDetails{
			Pid: p.InnerPid, HostPid: p.Pid, ParentPid: inner[p.Parent], UID: uids[p.UID], HostUID: p.UID,
			Name: p.Name, Args: p.Args, State: string(p.State), Started: p.Started, User: p.User, System: p.System,
			Resident: p.Resident, Private: p.Private, Shared: p.Shared, Virtual: p.Virtual,
		})
	}
	slices.SortFunc(list, func(a, b ProcessDetails) int { return a.Pid - b.Pid })
	return list
}
