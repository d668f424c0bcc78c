package container_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// attackRole is set for this test's own program where it is to be a hostile
// process that owns a container's root. Its value is what the attacks need to
// know of the host.
const attackRole = "HCS_TEST_ATTACK"

// target is what a hostile process may know of the host.
type target struct {
	Socket string // the shim's
	Secret string // a file
}

// attack is one attempt: nil is a success.
type attack func(t target) error

// attacks are what a hostile process tries with what docker leaves to root.
// That each is refused is the test; how the kernel says it differs.
var attacks = map[string]attack{
	"trace the agent":          func(target) error { return unix.PtraceAttach(1) },
	"read the agent's memory":  func(target) error { return readAgent(unix.SYS_PROCESS_VM_READV) },
	"write the agent's memory": func(target) error { return readAgent(unix.SYS_PROCESS_VM_WRITEV) },
	"open the agent's memory":  opens(os.O_RDWR, "/proc/1/mem"),
	"take the agent's socket":  takeSocket,
	"see the agent's socket":   reads("/proc/1/fd/3"),
	"open the agent's streams": opens(os.O_WRONLY, "/proc/1/fd/1", "/proc/1/fd/2"),
	"read its environment": func(target) error {
		return readSome("/proc/1/environ", "/proc/1/auxv", "/proc/1/maps", "/proc/1/stack")
	},
	"enter by its root":      func(target) error { return unix.Chdir("/proc/1/root") },
	"enter by its directory": func(target) error { return unix.Chdir("/proc/1/cwd") },
	"find its program":       reads("/proc/1/exe"),
	"write to its program":   opens(os.O_WRONLY, "/proc/1/exe", "/dev/.hcs-agent"),
	"truncate its program":   func(target) error { return os.Truncate("/dev/.hcs-agent", 0) },
	"replace its program":    func(target) error { return os.Rename("/bin/sh", "/dev/.hcs-agent") },
	"remove its program":     func(target) error { return os.Remove("/dev/.hcs-agent") },
	"unmount its program":    func(target) error { return unix.Unmount("/dev/.hcs-agent", unix.MNT_DETACH) },
	"join its namespaces":    joinNamespaces,
	"change its limits":      func(target) error { return unix.Prlimit(1, unix.RLIMIT_NOFILE, &unix.Rlimit{}, nil) },
	"reach the shim":         reachShim,
	"read the host's files":  func(t target) error { return open(os.O_RDONLY, t.Secret) },
	"climb out":              climbOut,
	"climb out by a handle":  byHandle,
	"mount":                  func(target) error { return unix.Mount("none", "/mnt", "tmpfs", 0, "") },
	"remount":                func(target) error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
	"uncover":                func(target) error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) },
	"mount by descriptor":    func(target) error { _, err := unix.Fsopen("proc", 0); return err },
	"clone a mount":          func(target) error { _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); return err },
	"change a mount": func(target) error {
		return unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	},
	"pivot":                       func(target) error { return unix.PivotRoot("/", "/mnt") },
	"be root of a user namespace": func(target) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"have mounts of its own":      func(target) error { return unix.Unshare(unix.CLONE_NEWNS) },
	"be born in a user namespace": func(target) error {
		c := exec.Command("/proc/self/exe")
		c.Env = []string{attackRole + "={}"}
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		return c.Run()
	},
	"have every capability":      raiseCapabilities,
	"change the kernel":          writes("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/sys/kernel/hostname"),
	"change control groups":      changeGroups,
	"be told of released groups": writesAny("/sys/fs/cgroup/*/release_agent", "/sys/fs/cgroup/*/notify_on_release"),
	"leave its control group":    writesAny("/sys/fs/cgroup/*/cgroup.procs", "/sys/fs/cgroup/*/tasks"),
	"read the kernel's memory":   func(target) error { return readSome("/proc/kcore") },
	"make the disk":              func(target) error { return useDevice(unix.S_IFBLK, 254, 0) },
	"make /dev/mem":              func(target) error { return useDevice(unix.S_IFCHR, 1, 1) },
	"make /dev/kmsg":             func(target) error { return useDevice(unix.S_IFCHR, 1, 11) },
	"make a loop device":         func(target) error { return useDevice(unix.S_IFCHR, 10, 237) },
	"make fuse":                  func(target) error { return useDevice(unix.S_IFCHR, 10, 229) },
	"load a module":              func(target) error { return unix.InitModule([]byte{0}, "") },
	"load a program":             func(target) error { return ask(unix.SYS_BPF, 0, 0, 0) },
	"watch the machine":          func(target) error { return ask(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0) },
	"reboot":                     func(target) error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_ON) },
	"use keys": func(target) error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		return err
	},
	"have a ring":       func(target) error { return ask(unix.SYS_IO_URING_SETUP, 1, 0, 0) },
	"handle faults":     func(target) error { return ask(unix.SYS_USERFAULTFD, 0, 0, 0) },
	"set the clock":     func(target) error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"use ports":         func(target) error { return ask(unix.SYS_IOPL, 3, 0, 0) },
	"find a descriptor": findDescriptor,
}

func ask(nr, a, b, c uintptr) error {
	if _, _, e := syscall.Syscall(nr, a, b, c); e != 0 {
		return e
	}
	return nil
}

func open(flags int, paths ...string) error {
	for _, path := range paths {
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			f.Close()
			return nil
		}
		if len(paths) == 1 {
			return err
		}
	}
	return fs.ErrPermission
}

func opens(flags int, paths ...string) attack {
	return func(target) error { return open(flags, paths...) }
}

func reads(link string) attack {
	return func(target) error { _, err := os.Readlink(link); return err }
}

func writes(paths ...string) attack { return opens(os.O_WRONLY, append(paths, "")...) }

func writesAny(pattern ...string) attack {
	return func(t target) error {
		var paths []string
		for _, p := range pattern {
			found, _ := filepath.Glob(p)
			paths = append(paths, found...)
		}
		return writes(paths...)(t)
	}
}

func readAgent(nr uintptr) error {
	var b [1]byte
	local := unix.Iovec{Base: &b[0], Len: 1}
	remote := unix.RemoteIovec{Base: 0x400000, Len: 1}
	_, _, e := syscall.Syscall6(nr, 1, uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if e != 0 {
		return e
	}
	return nil
}

func takeSocket(target) error {
	agent, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return err
	}
	_, err = unix.PidfdGetfd(agent, 3, 0)
	return err
}

func joinNamespaces(target) error {
	for _, name := range []string{"mnt", "pid", "user", "net", "ipc", "uts", "cgroup"} {
		fd, err := unix.Open("/proc/1/ns/"+name, unix.O_RDONLY, 0)
		if err == nil && unix.Setns(fd, 0) == nil {
			return nil
		}
	}
	return fs.ErrPermission
}

// reachShim connects to the shim's socket by its path and by every name that
// the network namespace has.
func reachShim(t target) error {
	paths := []string{t.Socket, "/proc/1/root" + t.Socket, "/proc/self/root/../../.." + t.Socket}
	text, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.HasPrefix(f[len(f)-1], "@") || strings.Contains(line, "shim.sock") {
			paths = append(paths, f[len(f)-1])
		}
	}
	for _, p := range paths {
		if c, err := net.Dial("unixpacket", p); err == nil {
			c.Close()
			return nil
		}
	}
	return fs.ErrPermission
}

// climbOut is the old way out of a chroot: a root below the working directory.
func climbOut(t target) error {
	top, err := os.Open("/")
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/tmp/jail", 0o755); err != nil {
		return err
	}
	if err := unix.Chroot("/tmp/jail"); err != nil {
		return err
	}
	defer func() { _, _ = top.Chdir(), unix.Chroot(".") }()
	if err := top.Chdir(); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	return open(os.O_RDONLY, "."+t.Secret)
}

// byHandle opens the root of a file system by its number, which is 2 on ext4.
func byHandle(target) error {
	fd, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_, err = unix.OpenByHandleAt(fd, unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}), unix.O_RDONLY)
	return err
}

func raiseCapabilities(target) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	all := [2]unix.CapUserData{{Effective: ^uint32(0), Permitted: ^uint32(0)}, {Effective: 0x1ff, Permitted: 0x1ff}}
	return unix.Capset(&header, &all[0])
}

func changeGroups(target) error {
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, procs := range append(groups, "/sys/fs/cgroup/cgroup.procs") {
		d := filepath.Dir(procs)
		if _, err := os.Stat(procs); err == nil && os.Mkdir(d+"/mine", 0o755) == nil {
			return nil
		}
	}
	limits, _ := filepath.Glob("/sys/fs/cgroup/*/*limit*")
	return open(os.O_WRONLY, append(limits, "")...)
}

// readSome reads of the first of the files that has anything.
func readSome(paths ...string) error {
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			continue
		}
		n, _ := unix.Read(fd, make([]byte, 16))
		_ = unix.Close(fd)
		if n > 0 {
			return nil
		}
	}
	return fs.ErrPermission
}

func useDevice(kind, major, minor uint32) error {
	path := fmt.Sprintf("/tmp/device-%d-%d", major, minor)
	if err := unix.Mknod(path, kind|0o666, int(unix.Mkdev(major, minor))); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == unix.ENXIO { // there is no such device here, and this asked for it all the same
		err = nil
	}
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// findDescriptor looks for one that somebody let all the way down.
func findDescriptor(t target) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.Contains(to, filepath.Dir(t.Secret)) || strings.Contains(to, "sock") {
			return nil
		}
	}
	return fs.ErrNotExist
}

// beHostile tries everything and prints what was refused, and what not.
func beHostile() int {
	var t target
	if err := json.Unmarshal([]byte(os.Getenv(attackRole)), &t); err != nil {
		return 1
	}
	if t == (target{}) { // born where it should not have been
		return 0
	}
	runtime.LockOSThread()
	outcomes := make(map[string]string)
	for name, try := range attacks {
		if err := try(t); err != nil {
			outcomes[name] = err.Error()
		} else {
			outcomes[name] = ""
		}
	}
	if json.NewEncoder(os.Stdout).Encode(outcomes) != nil {
		return 1
	}
	return 0
}

// TestAttacks has a hostile process try to get out, of a container with a
// network of its own and of one with the host's.
func TestAttacks(t *testing.T) {
	for _, starter := range runtimes {
		for _, network := range []container.Network{container.NetworkNone, container.NetworkHost} {
			t.Run(starter+", network "+string(network), func(t *testing.T) { attackFrom(t, starter, container.Spec{Network: network}) })
		}
	}
	t.Run("native, ids of its own", func(t *testing.T) {
		testenv.NeedKernel(t, testenv.MappedMounts)
		attackFrom(t, "native", container.Spec{IDs: container.AutoIDs})
	})
}

func attackFrom(t *testing.T, starter string, spec container.Spec) {
	if starter != "native" {
		testenv.NeedCommand(t, starter)
	}
	f := newFixture(t)
	f.config.Runtime = starter
	f.open()
	secret := filepath.Join(t.TempDir(), "secret")
	f.must(os.WriteFile(secret, []byte("x"), 0o600))
	leak := leakDescriptor(t, secret)
	self, err := os.Executable()
	f.must(err)
	spec.Mounts = append(libraries(), container.Mount{Source: self, Target: "/opt/attack", ReadOnly: true})
	s := f.running(spec)
	before := f.agentDigest()
	order, err := json.Marshal(target{Socket: filepath.Join(f.config.Run, "containers", s.ID(), "shim.sock"), Secret: secret})
	f.must(err)
	out := f.ok(s, "exec /opt/attack", func(p *container.ProcessSpec) {
		p.Env = append(slices.Clone(p.Env), attackRole+"="+string(order))
	})
	outcomes := make(map[string]string)
	f.must(json.Unmarshal([]byte(out), &outcomes))
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		if said, tried := outcomes[name]; !tried || said == "" {
			t.Errorf("%s: tried %t, and not refused", name, tried)
		}
	}
	f.run(s, "kill -9 -1") // everybody but the agent
	f.ok(s, "true")
	if f.agentDigest() != before {
		t.Error("the agent's program has changed")
	}
	f.holdsNothing(s, leak)
}

// libraries are what a program that was built with cgo needs of the host.
func libraries() (list []container.Mount) {
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib"} {
		if _, err := os.Stat(dir); err == nil {
			list = append(list, container.Mount{Source: dir, Target: dir, ReadOnly: true})
		}
	}
	return list
}

// leakDescriptor opens a descriptor on the host that programs inherit, and
// returns what it is.
func leakDescriptor(t *testing.T, file string) string {
	dir := filepath.Dir(file)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return dir
}

// holdsNothing checks on the host what the agent's descriptors are.
func (f *fixture) holdsNothing(s *container.System, leak string) {
	f.t.Helper()
	st, err := s.Status(f.t.Context())
	f.must(err)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.Pid))
	f.must(err)
	for _, e := range entries {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", st.Pid, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have been let go of meanwhile
			f.t.Fatal(err)
		}
		if strings.HasPrefix(to, leak) {
			f.t.Errorf("the agent holds the host's %s", to)
		}
	}
}

// agentDigest identifies the agent's program on the host.
func (f *fixture) agentDigest() string {
	return fileDigest(f.t, filepath.Join(f.config.Libexec, "hcs-agent")).String()
}

// TestAgentsProgramStaysInPrivilegedHands has a process with every capability
// and no filter write to the agent's program by way of /proc, the agent's own
// and that of a second one that the process starts.
func TestAgentsProgramStaysInPrivilegedHands(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		before := f.agentDigest()
		s := f.running(container.Spec{Security: container.Security{CapAdd: []string{"all"}, Seccomp: container.SeccompUnconfined}})
		for _, script := range []string{
			"echo x > /proc/1/exe", "echo x > /dev/.hcs-agent", "exec 5</proc/1/exe; echo x > /proc/self/fd/5",
			"sleep 100 >/dev/null 2>&1 & cd /proc/1 && echo x > exe",
		} {
			if r := f.run(s, script); r.Code == 0 {
				t.Errorf("%s: worked", script)
			}
		}
		_, _ = s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"/proc/self/exe"}, Env: env})
		f.ok(s, "true")
		if f.agentDigest() != before {
			t.Error("the agent's program has changed")
		}
	})
}

// TestHostileRoots has images whose own directories are links, or something
// else, where the system's mounts go.
func TestHostileRoots(t *testing.T) {
	for _, starter := range runtimes {
		for name, prepare := range map[string]func(root, outside string) error{
			"links out":  linkAll,
			"links up":   func(root, outside string) error { return linkAll(root, "../../../../../../../.."+outside) },
			"magic link": func(root, _ string) error { return os.Symlink("/proc/self/root", filepath.Join(root, "data")) },
			"fifo":       func(root, _ string) error { return unix.Mkfifo(filepath.Join(root, "data"), 0o644) },
			"loop":       func(root, _ string) error { return os.Symlink("data", filepath.Join(root, "data")) },
		} {
			t.Run(starter+", "+name, func(t *testing.T) { hostileRoot(t, starter, prepare) })
		}
	}
}

// linkAll makes links of the directories that are mounted on.
func linkAll(root, outside string) error {
	for _, name := range []string{"dev", "proc", "sys", "data", "etc"} {
		if err := os.Symlink(outside, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// TestNativeSaysWhy has the first process find what it cannot make: it is its
// reason that is told, not that it ended.
func TestNativeSaysWhy(t *testing.T) {
	f := newFixture(t)
	f.config.Runtime = "native"
	f.open()
	for range 10 {
		for want, spec := range map[string]container.Spec{
			"make the mount point /etc/passwd/below: not a directory": {Mounts: []container.Mount{{Type: "tmpfs", Target: "/etc/passwd/below"}}},
			"make device /etc/passwd: file exists":                    {Devices: []container.Device{{Source: "/dev/null", Target: "/etc/passwd"}}},
		} {
			spec.Name = "unlucky"
			s := f.created(spec)
			if err := s.Start(t.Context()); err == nil || err.Error() != "start container unlucky: "+want {
				t.Errorf("got %v, want %q", err, want)
			}
			f.must(s.Delete(t.Context()))
		}
	}
}

func hostileRoot(t *testing.T, starter string, prepare func(root, outside string) error) {
	f := newFixture(t)
	f.config.Runtime = starter
	f.open()
	root, outside, source := t.TempDir(), t.TempDir(), t.TempDir()
	f.must(os.Chmod(outside, 0o755))
	f.must(prepare(root, outside))
	s := f.created(container.Spec{RootDir: root, Network: container.NetworkHost, Mounts: []container.Mount{
		{Type: "tmpfs", Target: "/data/sub"}, {Source: source, Target: "/data/bound"}, {Source: "/etc/passwd", Target: "/data/file"},
	}})
	err := s.Start(t.Context()) // refused or resolved inside: both are right
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %v", err)
	}
	for _, dir := range []string{outside, source} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("on the host: %v, %v", entries, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	f.must(err)
	if strings.Contains(string(mounts), outside) {
		t.Error("something is mounted on the host")
	}
}
