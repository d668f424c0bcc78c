package sys

import "errors"

// ErrNoCgroup is the error of what takes a control group where there is none.
var ErrNoCgroup = errors.New("there is no control group, as this user may not make one")

// ErrInUse is the error of limiting memory to less than is in use.
var ErrInUse = errors.New("more than that is in use")

// CgroupStats is what the kernel counts of a control group. A number that the
// kernel does not keep is 0.
type CgroupStats struct {
	MemoryUsage uint64 // bytes, page cache included
	MemoryCache uint64 // bytes of MemoryUsage that can be dropped (inactive file pages)
	MemoryPeak  uint64 // bytes
	MemoryLimit uint64 // bytes; 0 is unlimited
	OOMKills    uint64

	CPUTotal, CPUUser, CPUSystem    uint64 // nanoseconds
	CPUThrottled                    uint64 // nanoseconds that processes waited as the quota was used up
	CPUPeriods, CPUThrottledPeriods uint64 // in which any ran, and in which it was used up

	// Pids are processes and threads, without the agent's, and PidsLimit is theirs; 0 is unlimited. Tasks are all.
	Pids, PidsLimit, Tasks uint64

	ReadBytes, WriteBytes uint64 // block devices
	ReadOps, WriteOps     uint64
}

// AgentThreads is how many of CgroupLimits.Pids are the agent's.
const AgentThreads = 16

// CgroupLimits are what a control group is held to; 0 is no limit.
type CgroupLimits struct {
	Memory     int64 // bytes
	MemorySwap int64 // bytes of memory and swap together; not without Memory
	CPUQuota   int64 // microseconds of processor time in each CPUPeriod
	CPUPeriod  uint64
	CPUWeight  int64  // 1 to 10000; 100 is the kernel's default
	CPUSet     string // processors, as "0-3,7"; empty is all
	Pids       int64  // processes and threads, AgentThreads of the agent's included
	IODevice   string // "major:minor" of the disk that IOPS and Bandwidth are for
	IOPS       int64  // reads, and as many writes, a second
	Bandwidth  int64  // bytes a second that are read, and as many that are written
	// Disks are others with limits: "major:minor IOPS Bandwidth".
	Disks []string
	// Devices are those that processes may use, one rule each as the v1
	// controller has them: "c 1:3 rwm", with "*" for any number. Nil leaves all.
	Devices []string
}
