package seccomp_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestAgainstLibseccomp has crun make its program for docker's list, by
// libseccomp, and asks both about all calls, with arguments at every edge that
// the list has.
func TestAgainstLibseccomp(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "crun")
	testenv.NeedKernel(t, testenv.Seccomp, testenv.Cgroups, testenv.MountNamespaces)
	if runtime.GOARCH != "amd64" {
		t.Logf("the numbers below are amd64's")
		return
	}
	for _, capabilities := range [][]string{nil, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYSLOG"}} {
		list := profile(t, capabilities)
		theirs, ours := crunProgram(t, list), compile(t, list)
		t.Logf("%d instructions, theirs %d", len(ours)/8, len(theirs)/8)
		asked := 0
		for _, c := range everyCall() {
			asked++
			got, want := evaluate(t, ours, c), evaluate(t, theirs, c)
			if got == 0x00050026 && want == 0x00050001 { // newer than the list: ENOSYS instead of EPERM
				continue
			}
			if got != want {
				t.Errorf("%v: %#x, theirs %#x", c, got, want)
			}
		}
		if asked < 10_000 {
			t.Errorf("asked only %d times", asked)
		}
	}
}

// newest are the last calls that Debian 12's libseccomp knows, 2.5.4; names of
// later ones it passes over.
var newest = map[uint32]uint32{amd64: 450, i386: 450}

func everyCall() []call {
	edges := []uint64{
		0, 1, 2, 8, 37, 38, 39, 40, 41, 0x20000, 0x20008, 0xffffffff, 1 << 32, 1<<32 + 39, 0x7e020000, 0x10000000, 0x02000000,
		0x80, 1 << 63,
	}
	var list []call
	for arch, last := range newest {
		for nr := range last + 1 {
			if arch == amd64 && (nr == 335 || nr == 336) { // uretprobe, uprobe: young calls with old numbers
				continue
			}
			for _, e := range edges {
				for index := range 2 {
					c := call{arch: arch, nr: nr}
					if c.args[index] = e; arch == i386 { // whose arguments have 32 bits
						c.args[index] &= 0xffffffff
					}
					list = append(list, c)
				}
			}
		}
		list = append(list, call{arch: arch, nr: 0x40000000}, call{arch: arch, nr: 0x40000000 + 514}, call{arch: arch, nr: 0x40000000 + 39})
	}
	return append(list, call{arch: arm64, nr: 1}, call{arch: 0})
}

// crunProgram runs a container and takes the program out of crun's state.
func crunProgram(t *testing.T, list *specs.LinuxSeccomp) []byte {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "rootfs")
	must(t, os.Mkdir(root, 0o755))
	must(t, exec.Command("tar", "-C", root, "-xf", testenv.BusyboxLayer(t)).Run())
	text, err := json.Marshal(&specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: root},
		Process: &specs.Process{Args: []string{"/bin/cat"}, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}, Seccomp: list,
		},
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644))
	// crun refuses machines with v1 hierarchies and a v2 tree that has controllers.
	script := "mount -t tmpfs none /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager disabled --root " + dir +
		"/state run --bundle " + dir + " oracle"
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var said strings.Builder
	cmd.Stderr = &said
	must(t, cmd.Start())
	_, err = io.WriteString(in, "x")
	must(t, err)
	_, err = io.ReadFull(out, make([]byte, 1)) // it runs
	program, rerr := os.ReadFile(filepath.Join(dir, "state", "oracle", "seccomp.bpf"))
	must(t, in.Close())
	if werr := cmd.Wait(); err != nil || rerr != nil || werr != nil {
		t.Fatalf("%v, %v, %v: %s", err, rerr, werr, said.String())
	}
	return program
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
