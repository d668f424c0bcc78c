package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CgroupMeter reads a group's counters again and again, by descriptors that it
// keeps. It is for one goroutine at a time.
type CgroupMeter struct {
	files [meterFiles]int // descriptors, -1 for what there is not
	v1    struct{ memory, cpuacct, cpu, blkio bool }
	buf   []byte
}

// What a meter reads; of v1 and v2 where the names or contents differ.
const (
	memoryUsage = iota
	memoryPeak
	memoryLimit
	memoryStat
	memoryEvents // oom_control
	cpuStat
	cpuTotal // v1
	cpuUser  // v1
	cpuSystem
	pidsCurrent
	pidsMax
	agentThreads // a directory with one each
	ioStat       // v1: bytes
	ioOps        // v1
	meterFiles
)

// NewMeter opens the group's files. The error matches fs.ErrNotExist if there
// is no such group. Agent is the process whose threads are not to be counted.
func (c *Cgroup) NewMeter(agent int) (*CgroupMeter, error) {
	if c.path == "" {
		return nil, ErrNoCgroup
	}
	if _, err := os.Stat(c.file("memory", "", "")); err != nil {
		return nil, err
	}
	m := &CgroupMeter{buf: make([]byte, 8<<10)}
	_, m.v1.memory = c.h.v1["memory"]
	_, m.v1.cpuacct = c.h.v1["cpuacct"]
	_, m.v1.cpu = c.h.v1["cpu"]
	_, m.v1.blkio = c.h.v1["blkio"]
	names := [meterFiles]string{
		memoryUsage:  c.file("memory", "memory.usage_in_bytes", "memory.current"),
		memoryPeak:   c.file("memory", "memory.max_usage_in_bytes", "memory.peak"),
		memoryLimit:  c.file("memory", "memory.limit_in_bytes", "memory.max"),
		memoryStat:   c.file("memory", "memory.stat", "memory.stat"),
		memoryEvents: c.file("memory", "memory.oom_control", "memory.events"),
		cpuStat:      c.file("cpu", "cpu.stat", "cpu.stat"),
		pidsCurrent:  c.file("pids", "pids.current", "pids.current"),
		pidsMax:      c.file("pids", "pids.max", "pids.max"),
		agentThreads: fmt.Sprintf("/proc/%d/task", agent),
		ioStat:       c.file("blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat"),
	}
	if m.v1.cpuacct {
		names[cpuTotal] = c.file("cpuacct", "cpuacct.usage", "")
		names[cpuUser] = c.file("cpuacct", "cpuacct.usage_user", "")
		names[cpuSystem] = c.file("cpuacct", "cpuacct.usage_sys", "")
	} else { // where the same file has both
		names[cpuTotal] = filepath.Join(c.h.unified, c.path, "cpu.stat")
	}
	if m.v1.blkio {
		names[ioOps] = c.file("blkio", "blkio.throttle.io_serviced_recursive", "")
	}
	for i, name := range names {
		m.files[i] = -1
		if name == "" {
			continue
		}
		if fd, err := OpenAt(CWD, name, unix.O_RDONLY, 0); err == nil { // what the kernel does not keep is 0
			m.files[i] = fd
		}
	}
	return m, nil
}

// Close closes the files.
func (m *CgroupMeter) Close() error {
	var errs []error
	for i, fd := range m.files {
		if fd >= 0 {
			errs = append(errs, Close(fd))
			m.files[i] = -1
		}
	}
	return errors.Join(errs...)
}

// Read reads the counters. The error matches fs.ErrNotExist if the group is
// gone; one of the same path that was made since is another.
func (m *CgroupMeter) Read(s *CgroupStats) error {
	*s = CgroupStats{}
	if m.files[memoryUsage] >= 0 {
		if _, err := unix.Pread(m.files[memoryUsage], m.buf, 0); err == unix.ENODEV {
			return os.ErrNotExist
		}
	}
	m.memory(s)
	m.cpu(s)
	s.Tasks = m.number(pidsCurrent)
	s.Pids = s.Tasks - min(s.Tasks, m.threads())
	if limit := m.number(pidsMax); limit > 0 {
		s.PidsLimit = max(1, limit-min(limit, AgentThreads))
	}
	m.io(s)
	return nil
}

// text reads a file; it is valid until the next is read.
func (m *CgroupMeter) text(file int) []byte {
	if m.files[file] < 0 {
		return nil
	}
	for {
		n, err := unix.Pread(m.files[file], m.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if n < len(m.buf) || err != nil {
			return m.buf[:max(n, 0)]
		}
		m.buf = make([]byte, 2*len(m.buf))
	}
}

// number reads a file that holds one number; "max" and a file that is not
// there are 0.
func (m *CgroupMeter) number(file int) uint64 {
	n, _ := leadingNumber(m.text(file))
	return n
}

// threads returns how many threads the agent has: as many as there are
// directories in a directory, which has two links without them
// (proc_task_getattr in fs/proc/base.c).
func (m *CgroupMeter) threads() uint64 {
	var st unix.Stat_t
	if m.files[agentThreads] < 0 || unix.Fstat(m.files[agentThreads], &st) != nil {
		return 0
	}
	return uint64(st.Nlink) - 2 //nolint:unconvert // differs between architectures
}

// unlimited is how v1 says that there is no limit: the largest number of
// bytes in whole pages. Anything near it means the same.
const unlimited = 1 << 62

func (m *CgroupMeter) memory(s *CgroupStats) {
	s.MemoryUsage, s.MemoryPeak, s.MemoryLimit = m.number(memoryUsage), m.number(memoryPeak), m.number(memoryLimit)
	if s.MemoryLimit >= unlimited {
		s.MemoryLimit = 0
	}
	cache := "inactive_file"
	if m.v1.memory {
		cache = "total_inactive_file"
	}
	s.MemoryCache = keyed(m.text(memoryStat), cache)
	s.OOMKills = keyed(m.text(memoryEvents), "oom_kill")
}

func (m *CgroupMeter) cpu(s *CgroupStats) {
	stat := m.text(cpuStat)
	s.CPUPeriods, s.CPUThrottledPeriods = keyed(stat, "nr_periods"), keyed(stat, "nr_throttled")
	if m.v1.cpu {
		s.CPUThrottled = keyed(stat, "throttled_time")
	} else {
		s.CPUThrottled = keyed(stat, "throttled_usec") * 1e3
	}
	if m.v1.cpuacct {
		s.CPUTotal, s.CPUUser, s.CPUSystem = m.number(cpuTotal), m.number(cpuUser), m.number(cpuSystem)
		return
	}
	stat = m.text(cpuTotal)
	s.CPUTotal, s.CPUUser, s.CPUSystem = keyed(stat, "usage_usec")*1e3, keyed(stat, "user_usec")*1e3, keyed(stat, "system_usec")*1e3
}

// io adds up the devices. v1 has "8:0 Read 4096" lines and a total at the
// end, v2 "8:0 rbytes=4096 wbytes=0 rios=1 …".
func (m *CgroupMeter) io(s *CgroupStats) {
	if m.v1.blkio {
		s.ReadBytes, s.WriteBytes = readsAndWrites(m.text(ioStat))
		s.ReadOps, s.WriteOps = readsAndWrites(m.text(ioOps))
		return
	}
	for word := range bytes.FieldsSeq(m.text(ioStat)) {
		key, value, _ := bytes.Cut(word, []byte("="))
		n, _ := leadingNumber(value)
		switch string(key) {
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

func readsAndWrites(text []byte) (reads, writes uint64) {
	for line := range bytes.Lines(text) {
		_, rest, _ := bytes.Cut(line, []byte(" "))
		kind, value, _ := bytes.Cut(rest, []byte(" "))
		n, _ := leadingNumber(value)
		switch string(kind) {
		case "Read":
			reads += n
		case "Write":
			writes += n
		}
	}
	return reads, writes
}

// keyed returns the number of a key in "key number" lines, 0 if there is none.
func keyed(text []byte, key string) uint64 {
	for line := range bytes.Lines(text) {
		if len(line) > len(key) && line[len(key)] == ' ' && string(line[:len(key)]) == key {
			n, _ := leadingNumber(line[len(key)+1:])
			return n
		}
	}
	return 0
}

// leadingNumber reads the decimal number that the text begins with, after
// blanks, and returns what follows it.
func leadingNumber(b []byte) (n uint64, rest []byte) {
	b = bytes.TrimLeft(b, " ")
	for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		n = n*10 + uint64(b[0]-'0')
		b = b[1:]
	}
	return n, b
}

// OOMKills returns how many processes of the group the kernel has killed for
// lack of memory.
func (c *Cgroup) OOMKills() uint64 {
	if c.path == "" {
		return 0
	}
	text, _ := os.ReadFile(c.file("memory", "memory.oom_control", "memory.events"))
	return keyed(text, "oom_kill")
}

// number reads a file that holds one number.
func number(path string) uint64 {
	text, _ := os.ReadFile(path)
	n, _ := leadingNumber(text)
	return n
}
