package sys

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats reads the group's counters.
func (c *Cgroup) Stats() (CgroupStats, error) {
	var s CgroupStats
	if c.path == "" {
		return s, ErrNoCgroup
	}
	if _, err := os.Stat(c.file("memory", "", "")); err != nil {
		return s, err
	}
	c.memory(&s)
	c.cpu(&s)
	s.Pids = number(c.file("pids", "pids.current", "pids.current"))
	s.PidsLimit = number(c.file("pids", "pids.max", "pids.max"))
	c.io(&s)
	return s, nil
}

// unlimited is how v1 says that there is no limit: the largest number of
// bytes in whole pages. Anything near it means the same.
const unlimited = 1 << 62

func (c *Cgroup) memory(s *CgroupStats) {
	s.MemoryUsage = number(c.file("memory", "memory.usage_in_bytes", "memory.current"))
	s.MemoryPeak = number(c.file("memory", "memory.max_usage_in_bytes", "memory.peak"))
	s.MemoryLimit = number(c.file("memory", "memory.limit_in_bytes", "memory.max"))
	if s.MemoryLimit >= unlimited {
		s.MemoryLimit = 0
	}
	stat := fields(c.file("memory", "memory.stat", "memory.stat"))
	s.MemoryCache = stat["total_inactive_file"] + stat["inactive_file"]
	if v, v1 := stat["total_inactive_file"]; v1 {
		s.MemoryCache = v
	}
	s.OOMKills = c.OOMKills()
}

// OOMKills returns how many processes of the group the kernel has killed for
// lack of memory.
func (c *Cgroup) OOMKills() uint64 {
	return fields(c.file("memory", "memory.oom_control", "memory.events"))["oom_kill"]
}

func (c *Cgroup) cpu(s *CgroupStats) {
	if _, v1 := c.h.v1["cpuacct"]; !v1 {
		stat := fields(filepath.Join(c.h.unified, c.path, "cpu.stat"))
		s.CPUTotal, s.CPUUser, s.CPUSystem = stat["usage_usec"]*1e3, stat["user_usec"]*1e3, stat["system_usec"]*1e3
		return
	}
	s.CPUTotal = number(c.file("cpuacct", "cpuacct.usage", ""))
	s.CPUUser = number(c.file("cpuacct", "cpuacct.usage_user", ""))
	s.CPUSystem = number(c.file("cpuacct", "cpuacct.usage_sys", ""))
}

// io adds up the devices. v1 has "8:0 Read 4096" lines and a total at the
// end, v2 "8:0 rbytes=4096 wbytes=0 rios=1 …".
func (c *Cgroup) io(s *CgroupStats) {
	if _, v1 := c.h.v1["blkio"]; v1 {
		s.ReadBytes, s.WriteBytes = readsAndWrites(c.file("blkio", "blkio.throttle.io_service_bytes_recursive", ""))
		s.ReadOps, s.WriteOps = readsAndWrites(c.file("blkio", "blkio.throttle.io_serviced_recursive", ""))
		return
	}
	text, _ := os.ReadFile(filepath.Join(c.h.unified, c.path, "io.stat"))
	for word := range strings.FieldsSeq(string(text)) {
		key, value, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch key {
		case "rbytes":
			s.ReadBytes += n
		case "wbytes":
			s.WriteBytes += n
		case "rios":
			s.ReadOps += n
		case "wios":
			s.WriteOps += n
		}
	}
}

func readsAndWrites(path string) (reads, writes uint64) {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, _ := strconv.ParseUint(f[2], 10, 64)
		switch f[1] {
		case "Read":
			reads += n
		case "Write":
			writes += n
		}
	}
	return reads, writes
}

// number reads a file that holds one number; "max" and a file that is not
// there are 0.
func number(path string) uint64 {
	text, _ := os.ReadFile(path)
	n, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n
}

// fields reads a file of "key number" lines.
func fields(path string) map[string]uint64 {
	text, _ := os.ReadFile(path)
	m := make(map[string]uint64)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			m[key] = n
		}
	}
	return m
}
