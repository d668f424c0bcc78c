package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
)

// ordinary is an ordinary user with a host of his own. Each command is in a
// session, and becomes root in a user namespace, of its own.
type ordinary struct {
	t    *testing.T
	user *testenv.User
	env  []string
}

func newOrdinary(t *testing.T, ids testenv.SubIDs, env ...string) *ordinary {
	t.Helper()
	testenv.NeedKernel(t, testenv.PidFD)
	if os.Geteuid() == 0 { // others may not ask
		testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	}
	testenv.NeedCommand(t, "runc", "crun", "nsenter")
	u := testenv.NewUser(t, ids)
	testenv.NoLeaks(t, testenv.Scope{Dir: u.Home, Settles: true})
	o := &ordinary{t: t, user: u, env: env}
	t.Cleanup(o.clean)
	o.ok("image", "load", "oci:"+testenv.Image(t, "busybox"))
	return o
}

// clean removes all containers and sees that they are gone without a trace.
func (o *ordinary) clean() {
	for id := range strings.FieldsSeq(o.ok("ps", "-aq")) {
		o.ok("rm", "-f", id)
	}
	o.ok("system", "prune", "-f")
	for _, dir := range []string{".local/share/hcs/containers", ".local/share/hcs/names", ".local/share/hcs/scratch", "run/hcs/containers"} {
		entries, err := os.ReadDir(filepath.Join(o.user.Home, dir))
		if err != nil {
			o.t.Error(err)
		}
		for _, e := range entries {
			if e.Name() != ".lock" {
				o.t.Errorf("left behind: %s/%s", dir, e.Name())
			}
		}
	}
	o.ok("image", "rm", "busybox")
	o.ok("system", "prune", "-f")
	left := o.ok("unshare", "find", ".local/share/hcs/layers", "-mindepth", "1", "-name", "sha256*")
	if left != "" {
		o.t.Errorf("left behind: %s", left)
	}
}

func (o *ordinary) command(args ...string) *exec.Cmd {
	return o.user.Command(o.env, append([]string{"hcs"}, args...)...)
}

// do returns what a command writes and its exit status.
func (o *ordinary) do(stdin string, args ...string) (out, errs string, status int) {
	o.t.Helper()
	cmd := o.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		status = x.ExitCode()
	} else if err != nil {
		o.t.Fatal(err)
	}
	return strings.TrimSpace(stdout.String()), strings.TrimSpace(stderr.String()), status
}

// ok is do for commands that must succeed.
func (o *ordinary) ok(args ...string) string {
	o.t.Helper()
	out, errs, status := o.do("", args...)
	if status != 0 {
		o.t.Errorf("hcs %s: exit status %d: %s", strings.Join(args, " "), status, errs)
	}
	return out
}

// gives checks what a command writes, both streams together, and its status.
func (o *ordinary) gives(want string, status int, args ...string) {
	o.t.Helper()
	out, errs, got := o.do("", args...)
	if out = strings.TrimSpace(out + "\n" + errs); out != want || got != status {
		o.t.Errorf("hcs %s: %q with status %d; want %q with status %d", strings.Join(args, " "), out, got, want, status)
	}
}

// fails checks that a command is refused with that reason.
func (o *ordinary) fails(reason string, args ...string) {
	o.t.Helper()
	_, errs, status := o.do("", args...)
	if status == 0 || !strings.Contains(errs, reason) || strings.Contains(errs, "\n") {
		o.t.Errorf("hcs %s: status %d, error %q; want one line with %q", strings.Join(args, " "), status, errs, reason)
	}
}

// TestRootless runs containers as an ordinary user. As root it makes one up;
// else it is the one who runs the test.
func TestRootless(t *testing.T) {
	for _, runtime := range []string{"native", "crun", "runc"} {
		t.Run(runtime+", one id", func(t *testing.T) {
			o := newOrdinary(t, testenv.OneID, "HCS_RUNTIME="+runtime)
			o.rootInside()
			o.session()
			o.gives("hcs: create a process in container c: start /usr/bin/id: the user has no id in the container's user namespace", 125,
				"run", "--rm", "--name", "c", "-u", "1000", "busybox", "id")
			o.gives("hcs: create a process in container g: add group wheel: the user namespace has one group, and lets nobody add others: "+
				"/etc/subgid has those of users who have more", 125, "run", "--rm", "--name", "g", "--group-add", "wheel", "busybox", "id")
			o.gives("0:0", 0, "run", "--rm", "busybox", "stat", "-c", "%u:%g", "/home/user")
		})
		t.Run(runtime+", many ids", func(t *testing.T) {
			o := newOrdinary(t, testenv.ManyIDs, "HCS_RUNTIME="+runtime)
			o.rootInside()
			o.usersInside()
			o.session()
		})
	}
}

// rootInside is what needs one id.
func (o *ordinary) rootInside() {
	o.t.Helper()
	o.gives("0 0\nout", 3, "run", "--rm", "busybox", "sh", "-c", "echo $(id -u) $(id -g); echo x >/f; chown 0:0 /f; echo out; exit 3")
	o.gives("hello", 0, "run", "--rm", "--network", "host", "busybox", "sh", "-c", "ls /sys/class >/dev/null && ls -A /sys/fs/cgroup && echo hello")
	o.gives("rw gone", 0, "run", "--rm", "-v", ".:/home:ro", "--tmpfs", "/t:size=1m", "busybox", "sh", "-c",
		"touch /t/x && rm -r /etc && echo >/dev/null && ! touch /home/x 2>/dev/null && test ! -e /etc/passwd && echo rw gone")
	o.gives("64 seen", 0, "run", "--rm", "--device", "/dev/zero:/dev/other", "--ulimit", "nofile=64:64", "busybox", "sh", "-c",
		"head -c 1 /dev/other | grep -q x || echo $(ulimit -n) seen")
	o.gives("192.0.2.1\tdb", 0, "run", "--rm", "--add-host", "db:192.0.2.1", "busybox", "tail", "-n", "1", "/etc/hosts")
	o.gives("5 5", 0, "run", "--rm", "--ulimit", "nofile=5", "busybox", "sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)")
	if out, _, status := o.do("some text", "run", "--rm", "-i", "busybox", "cat"); out != "some text" || status != 0 {
		o.t.Errorf("standard input came out as %q, status %d", out, status)
	}
	o.gives("hcs: create container: limit its resources: this user may not write to the control group /hcs, which root can "+
		"make and give to the user", 125, "run", "--rm", "-m", "64m", "busybox", "true")
}

// usersInside is what needs many.
func (o *ordinary) usersInside() {
	o.t.Helper()
	o.gives("1000 10 1000", 0, "run", "--rm", "-u", "user", "busybox", "sh", "-c", "cd /tmp && touch x && echo $(id -u) $(id -G | tr ' ' '\n' | sort | tr '\n' ' ')")
	o.gives("1000 1 10 44", 0, "run", "--rm", "-u", "user", "--group-add", "daemon", "--group-add", "44", "busybox", "sh", "-c", "echo $(id -G)")
	o.gives("1000 0000000000000000", 0, "run", "--rm", "-u", "user", "--cap-drop", "all", "--security-opt", "no-new-privileges", "busybox",
		"sh", "-c", "echo $(id -u) $(grep CapBnd /proc/self/status | cut -f2)")
	o.ok("run", "--name", "owners", "busybox", "sh", "-c", "touch /f; chown 7:8 /f; su user -c 'touch /tmp/g'")
	id := o.ok("ps", "-aq", "--no-trunc")
	upper := filepath.Join(".local/share/hcs/scratch", id, "upper")
	outside := fmt.Sprint(testenv.FirstSubID+7-1, ":", testenv.FirstSubID+8-1)
	if st := owner(o.t, filepath.Join(o.user.Home, upper, "f")); st != outside {
		o.t.Errorf("a file of 7:8 is %s outside, want %s", st, outside)
	}
	o.gives("7:8", 0, "unshare", "stat", "-c", "%u:%g", upper+"/f")
	o.ok("commit", "owners", "owners")
	o.ok("rm", "owners")
	o.gives("7:8\n1000:1000", 0, "run", "--rm", "owners", "stat", "-c", "%u:%g", "/f", "/tmp/g")
	o.ok("image", "rm", "owners")
}

func owner(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprint(st.Uid, ":", st.Gid)
}

// session is a container that several sessions have to do with.
func (o *ordinary) session() {
	o.t.Helper()
	o.ok("run", "-d", "--name", "web", "busybox", "sh", "-c", "rm -r /home/user; mkdir -p /home/user /new; echo ready; exec sleep 1000")
	o.gives("web", 0, "ps", "--format", "{{.Names}}")
	for deadline := time.Now().Add(testenv.Patience); o.ok("logs", "web") != "ready"; {
		if time.Now().After(deadline) {
			o.t.Fatal("the container is not ready")
		}
	}
	o.gives("new 0", 0, "exec", "web", "sh", "-c", "test -e /new && echo new $(id -u) | tee /from-exec")
	o.fails("control group", "pause", "web")
	o.fails("control group", "stats", "--no-stream", "web")
	o.ok("commit", "web", "copy")
	o.gives("new 0", 0, "run", "--rm", "copy", "sh", "-c", "cat /from-exec; ls -A /home/user")
	o.ok("stop", "-t", "1", "web")
	o.fails("is stopped", "exec", "web", "true")
	o.ok("start", "web")
	o.gives("new 0", 0, "exec", "web", "cat", "/from-exec")
	o.ok("rm", "-f", "web")
	o.ok("image", "rm", "copy")
}

// TestRootlessDebian unpacks what is for root: devices, owners, capabilities.
func TestRootlessDebian(t *testing.T) {
	testenv.NeedRoot(t)
	o := newOrdinary(t, testenv.ManyIDs)
	o.ok("image", "load", "oci:"+testenv.Image(t, "debian"))
	o.gives("0:42\n/usr/bin/ping cap_net_raw=ep\n4755", 0, "run", "--rm", "debian", "sh", "-c",
		"stat -c %u:%g /etc/shadow; getcap /usr/bin/ping; stat -c %a /bin/su")
	o.ok("image", "rm", "debian")
}

// TestRootlessCrash kills a shim: the container goes with it, and the next
// command of any session sees that.
func TestRootlessCrash(t *testing.T) {
	o := newOrdinary(t, testenv.OneID)
	o.ok("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	pid := o.ok("inspect", "--format", "{{.Status.ShimPid}}", "c")
	o.ok("unshare", "kill", "-9", pid)
	deadline := time.Now().Add(testenv.Patience)
	for !strings.Contains(o.ok("ps", "-a", "--format", "{{.Status}}"), "Lost") {
		if time.Now().After(deadline) {
			t.Fatal("the container is not lost")
		}
	}
	o.ok("start", "c")
	o.ok("rm", "-f", "c")
}

// TestRootlessSignal signals the process that was started: it must be the
// command itself, in its namespace, not somebody who waits for it.
func TestRootlessSignal(t *testing.T) {
	o := newOrdinary(t, testenv.OneID)
	cmd := o.command("run", "--rm", "busybox", "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := out.Read(buf)
	if err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("got %q, %v", buf[:n], err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	n, err = out.Read(buf)
	if err != nil || string(buf[:n]) != "got it\n" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	if x, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || x.ExitCode() != 5 {
		t.Errorf("ended with %v", x)
	}
}

// TestUnshare has the environment, arguments, directory and descriptors of a
// command reach it in the namespace.
func TestUnshare(t *testing.T) {
	o := newOrdinary(t, testenv.OneID, "X=y z")
	o.gives(o.user.Home+" y z 0 a b", 0, "unshare", "sh", "-c", `echo "$PWD $X $(id -u) $1"`, "sh", "a b")
	o.gives("1", 0, "unshare", "hcs", "unshare", "sh", "-c", "grep -c . /proc/self/uid_map")
	o.gives("mounted", 0, "unshare", "sh", "-c", "mkdir -p m && mount -t tmpfs x m && touch m/f && echo mounted")
	if _, err := os.Stat(filepath.Join(o.user.Home, "m", "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the mount is still there: %v", err)
	}
	o.gives("hcs: start missing: exec: \"missing\": executable file not found in $PATH", 127, "unshare", "missing")
	o.gives("", 4, "unshare", "sh", "-c", "exit 4")
	descriptors := []string{"sh", "-c", "ls /proc/self/fd"}
	want, err := o.user.Command(nil, descriptors...).Output()
	if err != nil {
		t.Fatal(err)
	}
	o.gives(strings.TrimSpace(string(want)), 0, append([]string{"unshare"}, descriptors...)...)
}

// TestRootlessDelegated has root give a control group to the user.
func TestRootlessDelegated(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.Cgroups)
	group := fmt.Sprint("hcs-given-", os.Getpid())
	for _, runtime := range []string{"native", "crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NoLeaks(t, testenv.Scope{Dir: "/nothing", Cgroup: "/" + group})
			giveCgroup(t, group)
			o := newOrdinary(t, testenv.ManyIDs, "HCS_RUNTIME="+runtime, "HCS_CGROUP_PARENT=/"+group)
			o.ok("run", "-d", "--name", "c", "-m", "64m", "--pids", "30", "busybox", "sleep", "1000")
			if out := o.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "c"); !strings.HasSuffix(out, " / 64MiB") {
				t.Errorf("memory: %q", out)
			}
			o.ok("pause", "c")
			o.ok("unpause", "c")
			o.ok("rm", "-f", "c")
			if _, errs, status := o.do("", "run", "--rm", "-m", "16m", "busybox", "tail", "/dev/zero"); status != 137 {
				t.Errorf("out of memory: status %d: %s", status, errs)
			}
		})
	}
}

// giveCgroup makes a group in every hierarchy and gives it to the user.
func giveCgroup(t *testing.T, name string) {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil || len(dirs) == 0 {
		dirs = []string{"/sys/fs/cgroup/cgroup.procs"}
	}
	for _, procs := range dirs {
		top := filepath.Dir(procs)
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // of v1, which new groups do not inherit
			if text, err := os.ReadFile(filepath.Join(top, f)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, f), text, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range append(files, dir) {
			if err := os.Chown(f, testenv.UserID, testenv.UserID); err != nil {
				t.Fatal(err)
			}
		}
	}
}
