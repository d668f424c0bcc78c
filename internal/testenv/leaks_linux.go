package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// take lists everything in the scope, one line each.
func take(s Scope) ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, m := range mounts {
		if s.covers(m.point) {
			all = append(all, fmt.Sprintf("mount %s (%s)", m.point, m.fstype))
		}
	}
	cgroups, err := s.cgroups(mounts)
	if err != nil {
		return nil, err
	}
	loops, err := s.loops()
	if err != nil {
		return nil, err
	}
	processes, err := s.processes()
	return slices.Concat(all, cgroups, loops, processes), err
}

type mount struct {
	point, fstype, super string
}

func readMounts() ([]mount, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(data))
}

// parseMounts reads the format that proc_pid_mountinfo(5) describes: after the mount point come options and any number
// of optional fields, a hyphen, and the file system's type, source and options.
func parseMounts(data string) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(data) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+4 {
			return nil, fmt.Errorf("parse mountinfo line %q", line)
		}
		mounts = append(mounts, mount{
			point:  unescape.Replace(fields[4]),
			fstype: fields[dash+1],
			super:  fields[dash+3],
		})
	}
	return mounts, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func (s Scope) cgroups(mounts []mount) ([]string, error) {
	if s.Cgroup == "" {
		return nil, nil
	}
	var all []string
	for _, m := range mounts {
		if m.fstype != "cgroup" && m.fstype != "cgroup2" {
			continue
		}
		tops, err := filepath.Glob(filepath.Join(m.point, s.Cgroup) + "*")
		if err != nil {
			return nil, err
		}
		for _, top := range tops {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // removed meanwhile
				}
				if err == nil && d.IsDir() {
					all = append(all, "cgroup "+path)
				}
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func (s Scope) loops() ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, f := range files {
		backing, err := os.ReadFile(f)
		if err != nil {
			continue // detached meanwhile
		}
		path := strings.TrimSpace(string(backing))
		if s.covers(path) {
			all = append(all, fmt.Sprintf("loop device %s of %s", strings.Split(f, "/")[3], path))
		}
	}
	return all, nil
}

// processes lists those which name the scope's directory, and, if the scope has them, own children, zombies too.
func (s Scope) processes() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		ours := s.Children && parent(stat) == os.Getpid()
		named := s.Dir != "" && bytes.Contains(cmdline, []byte(s.Dir))
		if !ours && !named {
			continue
		}
		all = append(all, fmt.Sprintf("process %d (%s)", pid, describe(stat, cmdline)))
	}
	return all, nil
}

// parent returns the fourth field of proc_pid_stat(5), counted from the end of the second, which may hold anything.
func parent(stat []byte) int {
	_, rest, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	fields := bytes.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(string(fields[1]))
	return pid
}

func describe(stat, cmdline []byte) string {
	if len(cmdline) == 0 {
		return strings.TrimSpace(string(stat[bytes.IndexByte(stat, '(')+1:bytes.LastIndexByte(stat, ')')])) + ", a zombie"
	}
	return strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte(" "))))
}
