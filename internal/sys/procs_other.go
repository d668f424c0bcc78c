//go:build !linux

package sys

// Members returns an error.
func (*Cgroup) Members() ([]int, error) { return nil, noCgroups() }

// Descendants is for Linux.
func Descendants(int) []int { return nil }

// ReadProcesses is for Linux.
func ReadProcesses([]int) ([]ProcessStat, error) { return nil, errNotOnThisOS }

// InnerID is for Linux.
func InnerID(int, int) int { return -1 }
