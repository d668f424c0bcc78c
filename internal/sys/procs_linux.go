package sys

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Members returns the processes in the group and in the groups below it, by their numbers here. Only one hierarchy is
// asked: they are the same in all.
func (c *Cgroup) Members() ([]int, error) {
	if c.path == "" {
		return nil, ErrNoCgroup
	}
	var pids []int
	top := filepath.Dir(c.file("pids", "cgroup.procs", "cgroup.procs"))
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			if path != top && gone(err) {
				return nil
			}
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if path != top && (gone(err) || errors.Is(err, unix.EOPNOTSUPP)) { // of a v2 group of threads all are in that above it
			return nil
		}
		pids = append(pids, numbers(text)...)
		return err
	})
	if err != nil {
		return nil, c.wrap("list the processes of", err)
	}
	slices.Sort(pids) // one with threads in several groups is in each
	return slices.Compact(pids), nil
}

func numbers(text []byte) (list []int) {
	for field := range bytes.FieldsSeq(text) {
		if n, err := strconv.Atoi(string(field)); err == nil && n > 0 {
			list = append(list, n)
		}
	}
	return list
}

// Descendants returns the process, its children, theirs and so on: those there were all the time, and of the others some.
func Descendants(pid int) []int {
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		lists, _ := filepath.Glob("/proc/" + strconv.Itoa(list[i]) + "/task/*/children")
		for _, name := range lists {
			text, _ := os.ReadFile(name)
			list = append(list, numbers(text)...)
		}
	}
	return list
}

// ReadProcesses tells of the processes that have these numbers; those that have ended are left out.
func ReadProcesses(pids []int) ([]ProcessStat, error) {
	proc, err := OpenAt(CWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	defer func() { _ = Close(proc) }()
	r := procReader{dir: proc, buf: make([]byte, 16<<10)}
	list := make([]ProcessStat, 0, len(pids))
	for _, pid := range pids {
		p := ProcessStat{Pid: pid}
		err := r.read(&p)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// procReader reads small files of /proc without an allocation each.
type procReader struct {
	dir int
	buf []byte
}

func (r *procReader) read(p *ProcessStat) error {
	text, err := r.file(p.Pid, "stat")
	if err != nil {
		return err
	}
	p.parseStat(text)
	if text, err = r.file(p.Pid, "status"); err != nil {
		return err
	}
	p.parseStatus(text)
	if text, err = r.file(p.Pid, "cmdline"); err != nil {
		return err
	}
	p.Args = splitArgs(text)
	return nil
}

// file returns a file's content, which the next call overwrites.
func (r *procReader) file(pid int, name string) ([]byte, error) {
	path := strconv.Itoa(pid) + "/" + name
	fd, err := OpenAt(r.dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/" + path, Err: err}
	}
	defer func() { _ = Close(fd) }()
	for n := 0; ; {
		m, err := retry(func() (int, error) { return unix.Read(fd, r.buf[n:]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: "/proc/" + path, Err: err}
		}
		if n += m; m == 0 {
			return r.buf[:n], nil
		}
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, n)...)
		}
	}
}

// parseStat takes the fields after the name, which is in parentheses and may have any character, also those.
func (p *ProcessStat) parseStat(text []byte) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return
	}
	p.Name = string(text[open+1 : end])
	const state, parent, user, system, started = 0, 1, 11, 12, 19
	i := 0
	for field := range bytes.FieldsSeq(text[end+1:]) {
		switch i {
		case state:
			p.State = field[0]
		case parent:
			p.Parent, _ = strconv.Atoi(string(field))
		case user:
			p.User = ticks(field)
		case system:
			p.System = ticks(field)
		case started:
			p.Started = bootTime().Add(ticks(field))
			return
		}
		i++
	}
}

// ticks reads a time in USER_HZ, which is 100 to programs on every kernel.
func ticks(field []byte) time.Duration {
	n, _ := strconv.ParseInt(string(field), 10, 64)
	return time.Duration(n) * (time.Second / 100)
}

// bootTime is when the clock began that processes' starts are told by. It is looked at once, so that a process's start
// stays the same.
var bootTime = sync.OnceValue(func() time.Time {
	var since unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(since.Nano())).Round(0)
})

func (p *ProcessStat) parseStatus(text []byte) {
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch string(key) {
		case "Uid":
			p.UID = field(value, 0)
		case "NSpid":
			p.InnerPid = field(value, 1)
		case "VmSize":
			p.Virtual = kilobytes(value)
		case "VmRSS":
			p.Resident = kilobytes(value)
		case "RssAnon":
			p.Private = kilobytes(value)
		case "RssFile", "RssShmem":
			p.Shared += kilobytes(value)
		}
	}
}

// field returns the number in a list, or 0.
func field(text []byte, i int) int {
	for f := range bytes.FieldsSeq(text) {
		if i == 0 {
			n, _ := strconv.Atoi(string(f))
			return n
		}
		i--
	}
	return 0
}

func kilobytes(text []byte) uint64 { return uint64(field(text, 0)) << 10 }

// splitArgs splits a command line, each argument of which ends with a zero. A process may write there what it likes.
func splitArgs(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// InnerID returns an id of this process's user namespace as the process pid's has it; -1 if that has none for it.
func InnerID(pid, id int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/uid_map")
	if err != nil {
		return -1
	}
	return inner(text, id)
}

// inner looks an id up in a map: lines of the first id there, the first id here, and their number (user_namespaces(7)).
func inner(text []byte, id int) int {
	for line := range bytes.Lines(text) {
		first, here, count := field(line, 0), field(line, 1), field(line, 2)
		if id >= here && id-here < count {
			return first + id - here
		}
	}
	return -1
}
