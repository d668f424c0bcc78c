package container_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// newIDsFixture is for systems with ids of their own, which the native starter
// alone makes.
func newIDsFixture(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	testenv.NeedKernel(t, testenv.UserNamespaces, testenv.MappedMounts)
	f.config.Runtime = "native"
	f.open()
	return f
}

// owner returns who a file on the host belongs to.
func (f *fixture) owner(path string) string {
	f.t.Helper()
	var st syscall.Stat_t
	f.must(syscall.Lstat(path, &st))
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func TestOwnIDs(t *testing.T) {
	f := newIDsFixture(t)
	host := t.TempDir()
	f.must(os.Chmod(host, 0o700)) // nobody but root comes here
	f.must(os.WriteFile(filepath.Join(host, "users"), []byte("x"), 0o600))
	f.must(os.Chown(filepath.Join(host, "users"), 1000, 10))
	s := f.running(container.Spec{IDs: container.AutoIDs, Mounts: []container.Mount{
		{Source: host, Target: "/data"},
		{Type: "tmpfs", Target: "/memory", Mode: 0o755},
	}})
	ids := s.Record().IDs
	if ids.Size != container.DefaultIDs || ids.First < 1<<31 {
		t.Fatalf("got %+v", ids)
	}
	for _, tt := range []struct{ name, script, want string }{
		{"map", "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map", strings.Repeat(fmt.Sprintf(" 0 %d 65536\n", ids.First), 2)},
		{"root owns the root", "stat -c %u:%g / /bin/busybox /dev /memory /proc/1 | sort -u", "0:0"},
		{"owners in a mount", "stat -c %u:%g /data /data/users", "0:0\n1000:10"},
		{"a user's file", "su user -s /bin/sh -c 'cat /data/users 2>&1; id -u'", "cat: can't open '/data/users': Permission denied\n1000"},
		{"files of users", "mkdir -m 777 /srv; su user -s /bin/sh -c 'echo x > /srv/user; mkdir /srv/dir'; echo x > /srv/root; chown 65535:65535 /srv/root; stat -c %u:%g /srv/*", "1000:1000\n65535:65535\n1000:1000"},
		{"changed files of layers", "chmod 700 /etc/passwd; stat -c %a:%u:%g /etc/passwd; chmod 644 /etc/passwd", "700:0:0"},
		{"removed files of layers", "rm /etc/group; mv /etc/passwd /etc/p; mv /etc/p /etc/passwd; ls /etc/group 2>/dev/null || echo gone", "gone"},
		{"directories over removed ones", "mkdir /d; echo x > /d/f; rm -r /d; mkdir /d; ls /d", ""},
		{"devices", "echo x > /dev/null; head -c 2 /dev/zero | wc -c; ls -l /dev/null | cut -c 1-10", "2\ncrw-rw-rw-"},
		{"capabilities", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
		{"seccomp filter", "grep '^Seccomp:' /proc/self/status", "Seccomp:\t2"},
		{"no device nodes", "mknod /x c 1 3 2>/dev/null || echo refused", "refused"},
		{"read-only proc", "echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo refused", "refused"},
		{"masked file", "wc -c < /proc/interrupts", "0"},
		{"written to a mount", "echo new > /data/new; chown 7:8 /data/new; stat -c %u:%g /data/new", "7:8"},
		{"an id beyond", "chown 65536 /data/new 2>/dev/null || echo refused", "refused"},
		{"its agent", "echo x > /dev/.hcs-agent || kill -9 1; echo still here", "still here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := f.ok(s, tt.script), strings.TrimSpace(tt.want); got != want {
				t.Errorf("%s: got %q, want %q", tt.script, got, want)
			}
		})
	}
	if got := f.ok(s, "echo out > /dev/stdout", user("user")); got != "out" {
		t.Errorf("its streams by name: %q", got)
	}
	if got := f.ok(s, "tty; stat -c %u $(tty)", func(p *container.ProcessSpec) { p.Terminal, p.User = true, "user" }); got != "/dev/pts/0\r\n1000" {
		t.Errorf("in a terminal: %q", got)
	}
	if _, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"true"}, Env: env, User: "65536"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a user without an id: %v", err)
	}
	f.ownersOnDisk(s, host)
	f.idsOnHost(s)
}

// ownersOnDisk looks at what TestOwnIDs wrote: everything has the owner that
// the system sees.
func (f *fixture) ownersOnDisk(s *container.System, host string) {
	f.t.Helper()
	scratch, err := s.Scratch()
	f.must(err)
	for path, want := range map[string]string{
		scratch.Upper(): "0:0",
		filepath.Join(scratch.Upper(), "srv", "user"): "1000:1000",
		filepath.Join(scratch.Upper(), "srv", "dir"):  "1000:1000",
		filepath.Join(scratch.Upper(), "srv", "root"): "65535:65535",
		filepath.Join(scratch.Upper(), "etc/passwd"):  "0:0",
		filepath.Join(scratch.Upper(), "etc/group"):   "0:0",
		filepath.Join(host, "new"):                    "7:8",
		filepath.Join(host, "users"):                  "1000:10",
	} {
		if got := f.owner(path); got != want {
			f.t.Errorf("on disk: %s belongs to %s, want %s", path, got, want)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(scratch.Upper(), "etc/group"), &st); err != nil || st.Mode != syscall.S_IFCHR || st.Rdev != 0 {
		f.t.Errorf("on disk: the whiteout is %o, %x, %v", st.Mode, st.Rdev, err)
	}
}

// idsOnHost looks at the system's processes from outside.
func (f *fixture) idsOnHost(s *container.System) {
	f.t.Helper()
	st, err := s.Status(f.t.Context())
	f.must(err)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.Pid))
	f.must(err)
	first := strconv.FormatUint(uint64(s.Record().IDs.First), 10)
	if want := "\nUid:\t" + strings.Repeat(first+"\t", 3) + first + "\n"; !strings.Contains(string(text), want) {
		f.t.Errorf("the first process is not %q on the host: %s", want, text)
	}
	host, err := os.Readlink("/proc/self/ns/user")
	f.must(err)
	if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", st.Pid)); err != nil || ns == host {
		f.t.Errorf("user namespace %s, %v", ns, err)
	}
}

// TestSetUIDInMapped has set-uid programs in a mapped directory: one of the
// host's root's makes its users the container's root and nobody more; one that
// the container's root makes is, on the host, the host's root's, as
// docs/security.md warns.
func TestSetUIDInMapped(t *testing.T) {
	f := newIDsFixture(t)
	dir := t.TempDir()
	program, err := os.ReadFile("/bin/cat")
	f.must(err)
	cat := filepath.Join(dir, "cat")
	f.must(os.WriteFile(cat, program, 0o755))
	f.must(os.Chmod(cat, 0o755|os.ModeSetuid))
	mounts := append(libraries(), container.Mount{Source: dir, Target: "/data"})
	s := f.running(container.Spec{IDs: container.AutoIDs})
	f.must(s.Modify(t.Context(), container.Change{AddMounts: mounts}))
	uid := func(s *container.System) string {
		return f.ok(s, "/data/cat /proc/self/status | grep ^Uid:", user("user"))
	}
	if got := uid(s); got != "Uid:\t1000\t0\t0\t0" {
		t.Errorf("set-uid: got %q", got)
	}
	if got := f.ok(s, "cp /bin/busybox /data/made; chmod 4711 /data/made; mknod /data/null c 1 3 2>/dev/null || echo refused"); got != "refused" {
		t.Errorf("a device: got %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "made"))
	f.must(err)
	if info.Mode() != 0o711|os.ModeSetuid || f.owner(filepath.Join(dir, "made")) != "0:0" {
		t.Errorf("on the host: %v of %s", info.Mode(), f.owner(filepath.Join(dir, "made")))
	}
	held := f.running(container.Spec{IDs: container.AutoIDs, Mounts: mounts, Security: container.Security{NoNewPrivileges: true}})
	if got := uid(held); got != "Uid:\t1000\t1000\t1000\t1000" {
		t.Errorf("without new privileges: got %q", got)
	}
}

// TestFileCapabilitiesWithOwnIDs has a program's file capabilities, which name
// the host's root, work for the container's.
func TestFileCapabilitiesWithOwnIDs(t *testing.T) {
	f := newIDsFixture(t)
	testenv.NeedCommand(t, "setcap")
	root := filepath.Join(f.dir, "root directory")
	f.must(os.MkdirAll(filepath.Join(root, "bin"), 0o755))
	text, err := os.ReadFile(testenv.Busybox(t))
	f.must(err)
	f.must(os.WriteFile(filepath.Join(root, "bin/busybox"), text, 0o755))
	f.must(os.Symlink("busybox", filepath.Join(root, "bin/sh")))
	f.must(os.WriteFile(filepath.Join(root, "bin/cat"), text, 0o755))
	f.must(exec.Command("setcap", "cap_net_raw+ep", filepath.Join(root, "bin/cat")).Run())
	s := f.running(container.Spec{RootDir: root, IDs: container.AutoIDs})
	got := f.ok(s, "/bin/cat /proc/self/status | /bin/busybox grep CapEff", user("1000"))
	if got != "CapEff:\t0000000000002000" {
		t.Errorf("got %q", got)
	}
}

// TestOwnIDsInPlace has a directory of the host's be the root itself.
func TestOwnIDsInPlace(t *testing.T) {
	f := newIDsFixture(t)
	root := filepath.Join(f.dir, "in place")
	f.must(os.MkdirAll(filepath.Join(root, "bin"), 0o755))
	text, err := os.ReadFile(testenv.Busybox(t))
	f.must(err)
	f.must(os.WriteFile(filepath.Join(root, "bin/sh"), text, 0o755))
	s := f.running(container.Spec{RootDir: root, WriteInPlace: true, IDs: container.AutoIDs})
	f.ok(s, "echo x > /file")
	if got := f.owner(filepath.Join(root, "file")); got != "0:0" {
		t.Errorf("belongs to %s", got)
	}
}

func TestIDsAreOneSystemsAlone(t *testing.T) {
	f := newIDsFixture(t)
	ctx := t.Context()
	a, b := f.running(container.Spec{IDs: container.AutoIDs}), f.running(container.Spec{IDs: container.AutoIDs})
	if a.Record().IDs == b.Record().IDs {
		t.Fatalf("both have %v", a.Record().IDs)
	}
	first := a.Record().IDs
	again := container.Spec{Layers: f.layers, IDs: container.IDs{First: first.First + 5, Size: 1}}
	if _, err := f.Create(ctx, again); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), first.String()) {
		t.Errorf("some of another's: %v", err)
	}
	f.must(a.Terminate(ctx))
	if _, err := f.Create(ctx, again); !errdefs.IsAlreadyExists(err) {
		t.Errorf("some of one's that has stopped: %v", err)
	}
	f.must(a.Start(ctx))
	if a.Record().IDs != first || f.ok(a, "id -u") != "0" {
		t.Errorf("started again: %v", a.Record().IDs)
	}
	f.must(a.Terminate(ctx))
	f.must(a.Delete(ctx))
	chosen := f.running(container.Spec{IDs: first})
	if got := f.ok(chosen, "cut -c 12-21 /proc/self/uid_map"); got != strconv.FormatUint(uint64(first.First), 10) {
		t.Errorf("chosen %v: got %q", first, got)
	}
	f.must(chosen.Terminate(ctx))
	f.must(chosen.Delete(ctx))
	f.ephemeralGivesBack(first)
	f.lostGivesBack(first)
}

// ephemeralGivesBack has a system that leaves nothing end.
func (f *fixture) ephemeralGivesBack(ids container.IDs) {
	f.t.Helper()
	s := f.running(container.Spec{IDs: ids, Ephemeral: true})
	f.must(s.Terminate(f.t.Context()))
	f.eventually("the ids are given back", func() bool {
		_, err := os.Lstat(filepath.Join(f.config.Root, "ids", ids.String()))
		return errors.Is(err, os.ErrNotExist)
	})
}

// lostGivesBack has a system lose its record.
func (f *fixture) lostGivesBack(ids container.IDs) {
	f.t.Helper()
	lost := f.created(container.Spec{IDs: ids})
	f.must(lost.Close())
	f.must(os.Remove(filepath.Join(f.config.Root, "containers", lost.ID(), "record.json")))
	found := f.created(container.Spec{IDs: ids})
	f.must(found.Close())
	_, err := f.Prune(f.t.Context())
	f.must(err)
	entries, err := os.ReadDir(filepath.Join(f.config.Root, "ids"))
	f.must(err)
	if len(entries) != 1 { // b's
		f.t.Errorf("left: %v", entries)
	}
}

// TestIDsThatCannotBe has files that no mapped mount shows, and runtimes that
// make none.
func TestIDsThatCannotBe(t *testing.T) {
	f := newIDsFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{IDs: container.AutoIDs, Mounts: []container.Mount{{Source: "/proc/sys", Target: "/x"}}})
	if err := s.Start(ctx); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "/proc/sys") {
		t.Errorf("a mount of procfs: %v", err)
	}
	for _, runtime := range []string{"runc", "crun"} {
		testenv.NeedCommand(t, runtime)
		f.config.Runtime = runtime
		f.open()
		_, err := f.Create(ctx, container.Spec{Layers: f.layers, IDs: container.AutoIDs})
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), runtime) {
			t.Errorf("with %s: %v", runtime, err)
		}
	}
}

func TestSysctls(t *testing.T) {
	eachRuntime(t, func(_ *testing.T, f *fixture) {
		f.sysctls(container.IDs{})
		if f.config.Runtime == "native" {
			f.sysctls(container.AutoIDs)
		}
	})
}

func (f *fixture) sysctls(ids container.IDs) {
	f.t.Helper()
	s := f.running(container.Spec{IDs: ids, Sysctls: map[string]string{
		"net.core.somaxconn": "77", "kernel.msgmax": "1234", "net/ipv4/ip_forward": "1", "fs.mqueue.msg_max": "9",
	}})
	paths := "/proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward /proc/sys/fs/mqueue/msg_max"
	if got := f.ok(s, "cat "+paths); got != "77\n1234\n1\n9" {
		f.t.Errorf("got %q", got)
	}
	for name, value := range map[string]string{"net.no.such": "1", "net.core.somaxconn": "many"} {
		s := f.created(container.Spec{IDs: ids, Sysctls: map[string]string{name: value}})
		err := s.Start(f.t.Context())
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "/", "."), name) {
			f.t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
