package cli

import (
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

// resourceOptions are the flags of a container's limits.
type resourceOptions struct {
	memory, bandwidth  size
	memorySwap         swapSize
	shares             int64
	cpus               float64
	pids, weight, iops int64
	cpuset             string
}

func (o *resourceOptions) addFlags(f *pflag.FlagSet) {
	f.VarP(&o.memory, "memory", "m", "limit of memory in `bytes`, or with k, m, g")
	f.Var(&o.memorySwap, "memory-swap", "limit of memory and swap together in `bytes`, -1 for none")
	f.Float64Var(&o.cpus, "cpus", 0, "limit of processor time, in processors")
	f.Int64Var(&o.weight, "cpu-weight", 0, "share of processors that others want too, 1 to 10000: others have 100")
	f.Int64VarP(&o.shares, "cpu-shares", "c", 0, "the same by docker's scale, of which others have 1024")
	f.StringVar(&o.cpuset, "cpuset-cpus", "", "`processors` to run on, as in 0-2,5; all if empty")
	f.Int64Var(&o.pids, "pids", 0, "limit of processes and threads; also --pids-limit")
	f.Int64Var(&o.iops, "iops", 0, "limit of reads, and of writes, a second on the disk of the container's files")
	f.Var(&o.bandwidth, "bandwidth", "limit of `bytes` a second that are read there, and that are written")
}

func (o *resourceOptions) resources() container.Resources {
	return container.Resources{
		Memory: int64(o.memory), MemorySwap: int64(o.memorySwap.size), CPUs: o.cpus, CPUWeight: o.cpuWeight(), CPUSet: o.cpuset,
		Pids: max(0, o.pids), IOPS: o.iops, Bandwidth: int64(o.bandwidth), // docker's -1 is no limit
	}
}

// change has the limits whose flags were given.
func (o *resourceOptions) change(flags *pflag.FlagSet) (ch container.ResourcesChange, given bool) {
	is := o.resources()
	for name, set := range map[string]func(){
		"memory":      func() { ch.Memory = &is.Memory },
		"memory-swap": func() { ch.MemorySwap = &is.MemorySwap },
		"cpus":        func() { ch.CPUs = &is.CPUs },
		"cpu-weight":  func() { ch.CPUWeight = &is.CPUWeight },
		"cpu-shares":  func() { ch.CPUWeight = &is.CPUWeight },
		"cpuset-cpus": func() { ch.CPUSet = &is.CPUSet },
		"pids":        func() { ch.Pids = &is.Pids },
		"iops":        func() { ch.IOPS = &is.IOPS },
		"bandwidth":   func() { ch.Bandwidth = &is.Bandwidth },
	} {
		if flags.Changed(name) {
			set()
			given = true
		}
	}
	return ch, given
}

// cpuWeight turns shares into the weight that has the same part of the usual one.
func (o *resourceOptions) cpuWeight() int64 {
	if o.shares == 0 {
		return o.weight
	}
	return min(max(o.shares*100/1024, 1), 10000)
}

// swapSize is a size, of which docker's -1 is no limit.
type swapSize struct{ size }

func (s *swapSize) Set(text string) error {
	if text == "-1" {
		s.size = 0
		return nil
	}
	return s.size.Set(text)
}
