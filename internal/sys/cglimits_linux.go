package sys

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// setting is a file of a control group and what it is to hold.
type setting struct{ file, value string }

// none is the value of a limit that there is not, in most files.
const none = "max"

// settings returns what each limit is, for limits of the kernel's defaults too:
// those that l does not set. Files are of the v1 controllers where these are
// mounted (Documentation/admin-guide/cgroup-v1, cgroup-v2.rst).
func (c *Cgroup) settings(l *CgroupLimits) []setting {
	return slices.Concat(c.memorySettings(l), c.cpuSettings(l), []setting{
		{c.file("cpuset", "cpuset.cpus", "cpuset.cpus"), c.cpuset(l.CPUSet)},
		{c.file("pids", "pids.max", "pids.max"), orNone(l.Pids, none)},
	}, c.processesSettings(l), c.ioSettings(l))
}

func (c *Cgroup) processesSettings(l *CgroupLimits) []setting {
	dir, ok := c.countsProcesses()
	if !ok {
		return nil
	}
	return []setting{{filepath.Join(dir, "pids.max"), processesLimit(l.Pids)}}
}

func orNone(n int64, none string) string {
	if n == 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

func (c *Cgroup) memorySettings(l *CgroupLimits) []setting {
	if _, v1 := c.h.v1["memory"]; v1 {
		return []setting{
			{c.file("memory", "memory.limit_in_bytes", ""), orNone(l.Memory, "-1")},
			{c.file("memory", "memory.memsw.limit_in_bytes", ""), orNone(l.MemorySwap, "-1")},
		}
	}
	swap := none
	if l.MemorySwap > 0 {
		swap = strconv.FormatInt(l.MemorySwap-l.Memory, 10)
	}
	return []setting{
		{c.file("memory", "", "memory.max"), orNone(l.Memory, none)},
		{c.file("memory", "", "memory.swap.max"), swap},
	}
}

func (c *Cgroup) cpuSettings(l *CgroupLimits) []setting {
	period := max(l.CPUPeriod, 1000)
	if l.CPUPeriod == 0 {
		period = 100_000
	}
	if _, v1 := c.h.v1["cpu"]; v1 {
		shares := int64(1024)
		if l.CPUWeight > 0 {
			shares = max(2, l.CPUWeight*1024/100)
		}
		return []setting{
			{c.file("cpu", "cpu.cfs_period_us", ""), strconv.FormatUint(period, 10)},
			{c.file("cpu", "cpu.cfs_quota_us", ""), orNone(l.CPUQuota, "-1")},
			{c.file("cpu", "cpu.shares", ""), strconv.FormatInt(shares, 10)},
		}
	}
	return []setting{
		{c.file("cpu", "", "cpu.max"), orNone(l.CPUQuota, none) + " " + strconv.FormatUint(period, 10)},
		{c.file("cpu", "", "cpu.weight"), orNone(l.CPUWeight, "100")},
	}
}

// CPUs returns the processors of the group, or, where it is not made yet, of the next above that is, as a list of
// cpuset(7)'s.
func (c *Cgroup) CPUs() (string, error) {
	own := c.file("cpuset", "cpuset.effective_cpus", "cpuset.cpus.effective")
	for dir := filepath.Dir(own); len(dir) > 1; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, filepath.Base(own)))
		if cpus := strings.TrimSpace(string(text)); err == nil && cpus != "" {
			return cpus, nil
		}
	}
	text, err := os.ReadFile("/sys/devices/system/cpu/online") // where no group has any of its own
	return strings.TrimSpace(string(text)), err
}

// cpuset returns the processors; a v1 group that is given none has its
// parent's, which the kernel does not do by itself.
func (c *Cgroup) cpuset(cpus string) string {
	dir, v1 := c.h.v1["cpuset"]
	if cpus != "" || !v1 {
		return cpus + "\n" // the kernel takes an empty line, and no nothing
	}
	parents, _ := os.ReadFile(filepath.Join(dir, filepath.Dir(c.path), "cpuset.cpus"))
	return strings.TrimSpace(string(parents)) + "\n"
}

func (c *Cgroup) ioSettings(l *CgroupLimits) []setting {
	var list []setting
	for _, d := range l.disks() {
		list = append(list, c.diskSettings(d)...)
	}
	return list
}

// diskLimit is a limit of the use of a disk.
type diskLimit struct {
	device          string
	iops, bandwidth int64
}

// disks are all that there are limits for.
func (l *CgroupLimits) disks() []diskLimit {
	var list []diskLimit
	if l.IODevice != "" {
		list = append(list, diskLimit{l.IODevice, l.IOPS, l.Bandwidth})
	}
	for _, text := range l.Disks {
		var d diskLimit
		if _, err := fmt.Sscan(text, &d.device, &d.iops, &d.bandwidth); err == nil {
			list = append(list, d)
		}
	}
	return list
}

// unlimited are the limits that have none for the same disks.
func (l *CgroupLimits) unlimited() CgroupLimits {
	u := CgroupLimits{IODevice: l.IODevice}
	for _, text := range l.Disks {
		device, _, _ := strings.Cut(text, " ")
		u.Disks = append(u.Disks, device+" 0 0")
	}
	return u
}

// withDisksOf adds the disks that the others have limits for, and these have
// none for, in one order for both.
func (l *CgroupLimits) withDisksOf(others *CgroupLimits) CgroupLimits {
	all := *l
	if l.IODevice == "" {
		all.IODevice = others.IODevice
	}
	limits := make(map[string]string)
	for _, text := range slices.Concat(others.unlimited().Disks, l.Disks) { // of both for a disk its own
		device, _, _ := strings.Cut(text, " ")
		limits[device] = text
	}
	all.Disks = nil
	for _, device := range slices.Sorted(maps.Keys(limits)) {
		all.Disks = append(all.Disks, limits[device])
	}
	return all
}

func (c *Cgroup) diskSettings(d diskLimit) []setting {
	if _, v1 := c.h.v1["blkio"]; !v1 {
		bps, iops := orNone(d.bandwidth, none), orNone(d.iops, none)
		value := fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", d.device, bps, bps, iops, iops)
		return []setting{{c.file("blkio", "", "io.max"), value}}
	}
	of := func(name string, n int64) setting {
		return setting{c.file("blkio", "blkio.throttle."+name+"_device", ""), d.device + " " + strconv.FormatInt(n, 10)}
	}
	return []setting{
		of("read_bps", d.bandwidth), of("write_bps", d.bandwidth), of("read_iops", d.iops), of("write_iops", d.iops),
	}
}

// limit sets the limits of a new group.
func (c *Cgroup) limit(l CgroupLimits) error {
	unset := l.unlimited()
	_, err := c.set(&unset, &l)
	if err == nil && l.Devices != nil {
		err = c.limitDevices(l.Devices)
	}
	return err
}

// Update changes the limits from those that the group has: all, or none if
// there is an error. Memory that is in use and cannot be dropped cannot be
// limited away: ErrInUse.
func (c *Cgroup) Update(from, to CgroupLimits) error {
	if c.path == "" {
		return ErrNoCgroup
	}
	from, to = from.withDisksOf(&to), to.withDisksOf(&from)
	if err := c.makeRoom(from.Memory, to.Memory); err != nil {
		return err
	}
	done, err := c.set(&from, &to)
	if err == nil && !slices.Equal(from.Devices, to.Devices) {
		if err = c.changeDevices(from.Devices, to.Devices); err != nil {
			err = errors.Join(err, c.changeDevices(to.Devices, from.Devices))
		}
	}
	if err != nil {
		return c.wrap("limit", errors.Join(err, writeBack(done)))
	}
	return nil
}

// set writes what differs, and returns what takes back what it has written.
func (c *Cgroup) set(from, to *CgroupLimits) (back []setting, err error) {
	was, is := c.settings(from), c.settings(to)
	if from.Memory > 0 && (to.Memory == 0 || to.Memory > from.Memory) {
		// Memory may never be above memory and swap together.
		was[0], was[1], is[0], is[1] = was[1], was[0], is[1], is[0]
	}
	for i := range is {
		if was[i] == is[i] {
			continue
		}
		if err := writeFile(is[i].file, is[i].value); err != nil {
			return back, c.inUse(err)
		}
		back = append(back, was[i])
	}
	return back, nil
}

func writeBack(list []setting) error {
	var errs []error
	for _, s := range slices.Backward(list) {
		errs = append(errs, writeFile(s.file, s.value))
	}
	return errors.Join(errs...)
}

// inUse says so of a v1 group whose memory is.
func (c *Cgroup) inUse(err error) error {
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	return fmt.Errorf("%w: %d bytes", ErrInUse, number(c.file("memory", "memory.usage_in_bytes", "memory.current")))
}

// makeRoom has a v2 group drop what is above its new limit; the kernel would
// kill processes instead of refusing.
func (c *Cgroup) makeRoom(from, to int64) error {
	if _, v1 := c.h.v1["memory"]; v1 || to == 0 || from != 0 && to >= from {
		return nil
	}
	current := c.file("memory", "", "memory.current")
	if above := int64(number(current)) - to; above > 0 {
		// In vain where it cannot all be dropped, and on kernels before 5.19.
		_ = writeFile(c.file("memory", "", "memory.reclaim"), strconv.FormatInt(above, 10))
	}
	if used := number(current); used > uint64(to) {
		return c.wrap("limit", fmt.Errorf("%w: %d bytes", ErrInUse, used))
	}
	return nil
}

func (c *Cgroup) limitDevices(rules []string) error {
	if _, v1 := c.h.v1["devices"]; !v1 {
		return attachDeviceRules(filepath.Join(c.h.unified, c.path), rules)
	}
	if err := writeFile(c.file("devices", "devices.deny", ""), "a"); err != nil {
		return err
	}
	return c.allow(rules)
}

func (c *Cgroup) allow(rules []string) error {
	if err := writeEach(c.file("devices", "devices.allow", ""), rules); err != nil {
		return fmt.Errorf("allow devices: %w", err)
	}
	return nil
}

// changeDevices has other rules hold. What both lists have is not refused for
// a moment.
func (c *Cgroup) changeDevices(from, to []string) error {
	if _, v1 := c.h.v1["devices"]; !v1 {
		return replaceDeviceRules(filepath.Join(c.h.unified, c.path), to)
	}
	gone := slices.DeleteFunc(slices.Clone(from), func(rule string) bool { return slices.Contains(to, rule) })
	if err := writeEach(c.file("devices", "devices.deny", ""), gone); err != nil {
		return fmt.Errorf("refuse devices: %w", err)
	}
	return c.allow(to) // again those, too, that a refused rule was part of
}
