package container_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// probeRole is set for this test's own program where it is to look at a
// container from inside.
const probeRole = "HCS_TEST_PROBE"

// facts are what a container looks like from inside.
type facts map[string]string

// probe prints the facts.
func probe() int {
	f := make(facts)
	f.files()
	f.status("1")
	f.status("self")
	f.namespaces()
	f.mounts()
	f.devices("/dev")
	f.cgroups()
	f.calls()
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		return 1
	}
	return 0
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func (f facts) files() {
	for _, path := range []string{
		"/proc/self/limits", "/proc/self/oom_score_adj", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname",
		"/sys/class/net/lo/flags", "/proc/1/comm", "/proc/self/setgroups", "/proc/self/uid_map", "/proc/self/gid_map",
		"/proc/self/loginuid", "/proc/keys", "/proc/interrupts", "/proc/kcore", "/proc/timer_list", "/proc/1/limits", "/proc/self/attr/current",
	} {
		f["file "+path] = read(path)
	}
	f["environment"] = strings.Join(slices.Sorted(slices.Values(os.Environ())), "\n")
	dir, err := os.Getwd()
	f["working directory"] = fmt.Sprint(dir, err)
	entries, err := os.ReadDir("/sys/class/net")
	f["network devices"] = fmt.Sprint(len(entries), err)
	for _, pid := range []string{"1", "self"} {
		// proc_pid_stat(5): the process group, session and terminal are the third to fifth after the name.
		_, rest, _ := strings.Cut(read("/proc/"+pid+"/stat"), ") ")
		if fields := strings.Fields(rest); len(fields) > 5 {
			f["group, session, terminal of "+pid] = strings.Join(fields[2:5], " ")
		}
	}
	delete(f, "group, session, terminal of self") // numbers that depend on the agent's threads
	fds, err := os.ReadDir("/proc/self/fd")
	f["descriptors"] = fmt.Sprint(len(fds), err)
}

// status takes all but numbers that change by themselves.
func (f facts) status(pid string) {
	changing := regexp.MustCompile(`^(Pid|Tgid|NStgid|NSpid|NSpgid|NSsid|Ngid|PPid|Vm\w+|Rss\w+|Threads|\w*ctxt_switches|Sig\w+|Shd\w+|HugetlbPages|State|FDSize|Hugetlb\w+|Name|Mems_allowed\w*)$`)
	for line := range strings.Lines(read("/proc/" + pid + "/status")) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), ":"); !changing.MatchString(key) {
			f["status of "+pid+" "+key] = strings.TrimSpace(value)
		}
	}
}

func (f facts) namespaces() {
	entries, err := os.ReadDir("/proc/self/ns")
	if err != nil {
		f["namespaces"] = err.Error()
	}
	for _, e := range entries {
		f["namespace "+e.Name()], _ = os.Readlink("/proc/self/ns/" + e.Name())
	}
}

// mounts takes each mount as it is seen, with all that the kernel says of it
// but numbers and where its files are on the host.
func (f facts) mounts() {
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		options := strings.Split(left[5], ",")
		super := slices.DeleteFunc(strings.Split(right[2], ","), func(o string) bool {
			key, _, _ := strings.Cut(o, "=")
			return slices.Contains([]string{"lowerdir", "lowerdir+", "upperdir", "workdir"}, key)
		})
		slices.Sort(options)
		slices.Sort(super)
		f["mount "+left[4]] += fmt.Sprintf("%s, propagation %v\n", right[0], left[6:])
		f["options of mount "+left[4]] += fmt.Sprintln(options)
		f["file system of mount "+left[4]] += fmt.Sprintln(super)
	}
}

func (f facts) devices(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		f["device "+dir] = err.Error()
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			f["device "+path] = err.Error()
			continue
		}
		to, _ := os.Readlink(path)
		f["device "+path] = fmt.Sprintf("%#o %d:%d %#x %s", st.Mode, st.Uid, st.Gid, st.Rdev, to)
		if e.IsDir() {
			f.devices(path)
		}
	}
}

func (f facts) cgroups() {
	f["control groups"] = strings.Join(slices.DeleteFunc(names("/sys/fs/cgroup"), func(n string) bool { return n == "unified" }), " ")
	for _, name := range []string{
		"memory/memory.limit_in_bytes", "memory/memory.swappiness", "memory/memory.oom_control", "cpu/cpu.shares",
		"cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "pids/pids.max", "devices/devices.list", "cpuset/cpuset.cpus",
		"cpuset/cpuset.mems", "freezer/freezer.state", "memory.max", "cpu.max", "pids.max",
	} {
		lines := strings.Split(read("/sys/fs/cgroup/"+name), "\n")
		slices.Sort(lines)
		f["control group "+name] = strings.Join(lines, "\n")
	}
	lines := strings.Split(read("/proc/self/cgroup"), "\n")
	for i := range lines {
		_, lines[i], _ = strings.Cut(lines[i], ":")
	}
	slices.Sort(lines)
	f["own control group"] = strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, ":") }), "\n")
}

func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Name()
	}
	return list
}

// harmful are calls that do something to their caller even with senseless
// arguments, or do not come back.
var harmful = map[uintptr]bool{
	15: true /* rt_sigreturn */, 34: true /* pause */, 37: true /* alarm */, 56: true, 57: true, 58: true, /* clone, fork, vfork */
	60: true, 231: true /* exit, exit_group */, 112: true /* setsid */, 162: true /* sync */, 219: true, /* restart_syscall */
	335: true, 336: true, /* uretprobe, uprobe */
}

// newestKnown is the last call that the libseccomp of Debian 12 knows.
const newestKnown = 450

// calls makes every system call, with arguments that mean nothing: what a
// filter refuses, it refuses before the kernel looks at them.
func (f facts) calls() {
	if runtime.GOARCH != "amd64" {
		return
	}
	runtime.LockOSThread()
	const senseless = ^uintptr(0)
	for nr := range uintptr(newestKnown + 1) {
		if !harmful[nr] {
			_, _, e := syscall.RawSyscall6(nr, senseless, senseless, senseless, senseless, senseless, senseless)
			f["call "+strconv.Itoa(int(nr))] = strconv.Itoa(int(e))
		}
	}
	for family := range uintptr(46) {
		_, _, e := syscall.RawSyscall(syscall.SYS_SOCKET, family, senseless, senseless)
		f["socket of family "+strconv.Itoa(int(family))] = strconv.Itoa(int(e))
	}
	for _, p := range []uintptr{0, 8, 0x20000, 0x20008, 0xffffffff, 1, 0x40000, 0x8000000} {
		_, _, e := syscall.RawSyscall(syscall.SYS_PERSONALITY, p, 0, 0)
		f["personality "+strconv.FormatUint(uint64(p), 16)] = strconv.Itoa(int(e))
	}
}

// known are the differences there are to an OCI runtime: patterns of facts'
// names.
var known = map[string][]string{
	"crun": {
		`^control groups$`,                      // it makes directories for controllers that are not mounted
		`^control group devices/devices\.list$`, // and lets processes use /dev/console, which there is not
		`^device /dev/core$`,                    // and leads to /proc/kcore even where that is missing
		`mount /proc/(keys|interrupts|timer_list|latency_stats|sched_debug|timer_stats|kcore)$`, // hidden by the host's null device
		`^options of mount /proc/(bus|fs|irq|sys|sysrq-trigger)$`,                               // it loses nosuid, nodev and noexec
		`^(options|file system) of mount /sys/fs/cgroup$`,                                       // it leaves the directory of the hierarchies writable
		`^file system of mount (/proc/(acpi|asound|scsi)|/sys/firmware|/sys/devices/virtual/powercap)$`,
	},
	"runc": {
		`^control group devices/devices\.list$`, // it lets processes use tun devices
		`^options of mount /sys/fs/cgroup$`,
		`^file system of mount (/proc/(acpi|asound|scsi)|/sys/firmware|/sys/devices/virtual/powercap)$`,
		`^file system of mount /sys$`, // it makes sysfs as a whole read-only if it is the first to mount it
	},
}

// TestStartersMakeTheSame looks at containers of each starter from inside. The
// OCI runtimes are the oracle of our own.
func TestStartersMakeTheSame(t *testing.T) {
	limited := container.Resources{Memory: 256 << 20, CPUs: 0.5, Pids: 100}
	for name, spec := range map[string]container.Spec{
		"plain": {},
		"confined": {
			ReadOnly: true, Hostname: "box", Resources: limited,
			Security: container.Security{CapDrop: []string{"all"}, CapAdd: []string{"chown", "net_raw"}, NoNewPrivileges: true},
			Mounts: []container.Mount{
				{Type: "tmpfs", Target: "/tmp", Size: 1 << 20, NoExec: true},
				{Source: "/etc", Target: "/mnt", ReadOnly: true},
				{Source: "/etc/passwd", Target: "/srv/new/file"},
			},
			Ulimits: []container.Ulimit{{Name: "nofile", Soft: 64, Hard: 128}, {Name: "core", Soft: 0, Hard: 0}},
		},
		"privileged": {
			Network:  container.NetworkHost,
			Security: container.Security{CapAdd: []string{"all"}, Seccomp: container.SeccompUnconfined},
			Devices:  []container.Device{{Source: "/dev/fuse", Access: "rw"}, {Source: "/dev/null", Target: "/dev/sub/null"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.NeedCommand(t, "crun")
			testenv.NeedCommand(t, "runc")
			seen := make(map[string]facts)
			for _, r := range runtimes {
				seen[r] = lookInside(t, r, spec)
			}
			for _, other := range runtimes[1:] {
				for _, d := range differences(seen["native"], seen[other], known[other]) {
					t.Errorf("native and %s: %s", other, d)
				}
			}
		})
	}
}

// lookInside starts a container of the host's own files and has this program
// look around in it.
func lookInside(t *testing.T, runtime string, spec container.Spec) facts {
	f := newFixture(t)
	f.config.Runtime = runtime
	f.open()
	self, err := os.Executable()
	f.must(err)
	spec.RootDir, spec.Name = "/", "same"
	spec.Mounts = append(slices.Clone(spec.Mounts), container.Mount{Source: self, Target: "/opt/probe", ReadOnly: true})
	s := f.running(spec)
	out := f.ok(s, "exec /opt/probe", func(p *container.ProcessSpec) { p.Env = append(slices.Clone(p.Env), probeRole+"=1") })
	seen := make(facts)
	f.must(json.Unmarshal([]byte(out), &seen))
	for k, v := range seen { // what differs between any two containers
		v = strings.ReplaceAll(v, s.ID(), "ID")
		v = strings.ReplaceAll(v, container.ShortID(s.ID()), "ID")
		seen[k] = strings.ReplaceAll(v, f.config.CgroupParent, "/PARENT")
	}
	hideNamespaces(seen)
	f.must(s.Terminate(t.Context()))
	return seen
}

// groupOfRoot is the directory of one service's groups.
var groupOfRoot = regexp.MustCompile(`/PARENT/[0-9a-f]{12}/`)

// hideNamespaces says of each namespace only whether it is the host's.
func hideNamespaces(seen facts) {
	for k, v := range seen {
		seen[k] = groupOfRoot.ReplaceAllString(v, "/PARENT/")
		if name, ok := strings.CutPrefix(k, "namespace "); ok {
			host, _ := os.Readlink("/proc/self/ns/" + name)
			seen[k] = fmt.Sprintf("the host's: %t", v == host)
		}
	}
}

func differences(a, b facts, known []string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(union(a, b))) {
		expected := slices.ContainsFunc(known, func(p string) bool { return regexp.MustCompile(p).MatchString(k) })
		if a[k] != b[k] && !expected {
			list = append(list, fmt.Sprintf("%s: %q, and theirs %q", k, a[k], b[k]))
		}
	}
	return list
}

func union(a, b facts) facts {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}
