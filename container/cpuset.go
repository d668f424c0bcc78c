package container

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
)

// parseCPUs reads a list of processors as the kernel writes it, "0-3,7", by
// the numbers in their order, each once (cpuset(7), List format).
func parseCPUs(list string) ([]int, error) {
	malformed := fmt.Errorf("set of cpus %q: write it like 0-3,7", list)
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return nil, malformed
		}
		last, err := strconv.ParseUint(to, 10, 16)
		if err != nil || last < first {
			return nil, malformed
		}
		if last >= maxCPUs {
			return nil, fmt.Errorf("set of cpus %q: there is no kernel with more than %d", list, maxCPUs)
		}
		for n := first; n <= last; n++ {
			cpus = append(cpus, int(n))
		}
	}
	slices.Sort(cpus)
	return slices.Compact(cpus), nil
}

// mayUse reports processors that the systems' control groups do not have.
func (s *Service) mayUse(list string) error {
	if list == "" {
		return nil
	}
	group, err := sys.NewCgroup(s.group)
	if err != nil {
		return err
	}
	there, err := group.CPUs()
	if err != nil {
		return err
	}
	wanted, err := parseCPUs(list) // judged at the door
	if err != nil {
		return err
	}
	have, err := parseCPUs(there)
	if err != nil {
		return fmt.Errorf("read which processors there are: %w", err)
	}
	for _, n := range wanted {
		if !slices.Contains(have, n) {
			return fault(errdefs.ErrInvalidArgument, "run on cpus %s: there is no cpu %d here, but %s", list, n, there)
		}
	}
	return nil
}
