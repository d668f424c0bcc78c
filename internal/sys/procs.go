package sys

import "time"

// ProcessStat is what the kernel tells of a process (proc_pid_stat(5), proc_pid_status(5)).
type ProcessStat struct {
	Pid, Parent int // as this process sees them
	InnerPid    int // in the pid namespace below this process's; 0 for one that is in none
	UID         int // real, as this process sees it
	Name        string
	Args        []string
	State       byte // "R", "S" and so on
	Started     time.Time
	User        time.Duration // CPU time, in steps of 10 ms
	System      time.Duration

	// Bytes: Resident is Private, which are its own pages, and Shared, which are those of files and of shared memory.
	Resident, Private, Shared, Virtual uint64
}
