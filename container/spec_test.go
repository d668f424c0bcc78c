package container

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestSpecsAreJudged(t *testing.T) {
	t.Parallel()
	layers := []digest.Digest{digest.FromString("x")}
	for _, tt := range []struct {
		name string
		spec Spec
		want string // part of the error; empty for none
	}{
		{"least", Spec{Layers: layers}, ""},
		{"directory", Spec{RootDir: "/"}, ""},
		{"neither", Spec{}, "nothing to stand on: name an image, layers or a root directory"},
		{"both", Spec{Layers: layers, RootDir: "/"}, "root directory /: there are layers, too"},
		{"relative directory", Spec{RootDir: "x"}, "not absolute"},
		{"in place", Spec{RootDir: "/", WriteInPlace: true}, ""},
		{"layers in place", Spec{Layers: layers, WriteInPlace: true}, "write in place"},
		{"name", Spec{RootDir: "/", Name: "../x"}, `name "../x"`},
		{"hostname", Spec{RootDir: "/", Hostname: "a b"}, `hostname "a b"`},
		{"long hostname", Spec{RootDir: "/", Hostname: strings.Repeat("a", 65)}, "hostname"},
		{"signal", Spec{RootDir: "/", StopSignal: 65}, "stop signal 65"},
		{"stop timeout", Spec{RootDir: "/", StopTimeout: new(0)}, ""},
		{"no stop timeout", Spec{RootDir: "/", StopTimeout: new(-1)}, ""},
		{"negative stop timeout", Spec{RootDir: "/", StopTimeout: new(-2)}, "stop timeout of -2 seconds: from 0 to 2147483647, or -1 for none"},
		{"long stop timeout", Spec{RootDir: "/", StopTimeout: new(1 << 31)}, "stop timeout of 2147483648 seconds"},
		{"network", Spec{RootDir: "/", Network: "bridge"}, `network "bridge"`},
		{"memory", Spec{RootDir: "/", Resources: Resources{Memory: 1 << 20}}, "memory limit"},
		{"negative memory", Spec{RootDir: "/", Resources: Resources{Memory: -1}}, "memory limit"},
		{"cpus", Spec{RootDir: "/", Resources: Resources{CPUs: 0.001}}, "cpus"},
		{"pids", Spec{RootDir: "/", Resources: Resources{Pids: -1}}, "processes"},
		{"mount over all", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/x/.."}}}, "other than /"},
		{"mount of nothing", Spec{RootDir: "/", Mounts: []Mount{{Target: "/a"}}}, `source ""`},
		{"mount twice", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/a"}, {Source: "/b", Target: "/a/"}}}, "given twice"},
		{"mount type", Spec{RootDir: "/", Mounts: []Mount{{Type: "nfs", Target: "/a"}}}, `type "nfs"`},
		{"mount over /dev", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/dev/"}}}, "own /dev"},
		{"mount on what is hidden", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/sys/firmware/"}}}, "/sys/firmware is hidden"},
		{"mount below what is read-only", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/proc/sys/kernel"}}}, "/proc/sys is read-only"},
		{"mount on a file of proc", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/proc/uptime"}, {Source: "/a", Target: "/proc/system"}}}, ""},
		{"disk on what is read-only", Spec{RootDir: "/", Disks: []Disk{{Source: "/a", Target: "/proc/irq"}}}, "/proc/irq is read-only"},
		{"disk of an image that another writes to", Spec{RootDir: "/", Disks: []Disk{{Source: "/a", Target: "/a", ReadOnly: true}, {Source: "//a", Target: "/b"}}}, "at /a, too"},
		{"disks that read one image", Spec{RootDir: "/", Disks: []Disk{{Source: "/a", Target: "/a", ReadOnly: true}, {Source: "/a", Target: "/b", ReadOnly: true}}}, ""},
		{"device on what is hidden", Spec{RootDir: "/", Devices: []Device{{Source: "/dev/null", Target: "/proc/kcore"}}}, "/proc/kcore is hidden"},
		{"no number of cpus", Spec{RootDir: "/", Resources: Resources{CPUs: math.NaN()}}, "cpus"},
		{"too many pids", Spec{RootDir: "/", Resources: Resources{Pids: math.MaxInt64}}, "processes"},
		{"mode of a bind mount", Spec{RootDir: "/", Mounts: []Mount{{Source: "/a", Target: "/a", Mode: 0o700}}}, "for a tmpfs"},
		{"mode", Spec{RootDir: "/", Mounts: []Mount{{Type: "tmpfs", Target: "/a", Mode: 0o10000}}}, "mode 010000"},
		{"log", Spec{RootDir: "/", Log: Log{MaxSize: -1, MaxFiles: 1000}}, ""},
		{"too many files of log", Spec{RootDir: "/", Log: Log{MaxFiles: 1001}}, "log of 1001 files"},
		{"capabilities", Spec{RootDir: "/", Security: Security{CapAdd: append([]string{"all"}, givable()...), CapDrop: []string{"Cap_Kill"}}}, ""},
		{"no such capability", Spec{RootDir: "/", Security: Security{CapDrop: []string{"CAP_ALL"}}}, `capability "CAP_ALL"`},
		{"seccomp", Spec{RootDir: "/", Security: Security{Seccomp: "profile.json"}}, `seccomp "profile.json"`},
		{"device", Spec{RootDir: "/", Devices: []Device{{Source: "/dev/null", Target: "/dev/x", Access: "rw"}}}, ""},
		{"relative device", Spec{RootDir: "/", Devices: []Device{{Source: "null"}}}, "absolute"},
		{"device in place of all", Spec{RootDir: "/", Devices: []Device{{Source: "/dev/null", Target: "/"}}}, "absolute"},
		{"device over /dev", Spec{RootDir: "/", Devices: []Device{{Source: "/dev/null", Target: "/dev"}}}, "own /dev"},
		{"access", Spec{RootDir: "/", Devices: []Device{{Source: "/dev/null", Access: "rx"}}}, `access "rx"`},
		{"ulimits", Spec{RootDir: "/", Ulimits: []Ulimit{{"core", 0, Unlimited}, {"nofile", Unlimited, Unlimited}}}, ""},
		{"no such ulimit", Spec{RootDir: "/", Ulimits: []Ulimit{{"as", 0, 0}}}, `ulimit "as"`},
		{"ulimit twice", Spec{RootDir: "/", Ulimits: []Ulimit{{"core", 0, 0}, {"core", 1, 1}}}, "given twice"},
		{"soft ulimit", Spec{RootDir: "/", Ulimits: []Ulimit{{"core", Unlimited, 5}}}, "above the hard one"},
		{"small ulimit", Spec{RootDir: "/", Ulimits: []Ulimit{{"nofile", 0, 5}}, Resources: Resources{Pids: 8}}, ""},
		{"small ulimit, few processes", Spec{RootDir: "/", Ulimits: []Ulimit{{"nofile", 5, 5}}, Resources: Resources{Pids: 7}}, "ulimit nofile: 5:5, and a limit of 7 processes: at least 8"},
		{"large ulimit, few processes", Spec{RootDir: "/", Ulimits: []Ulimit{{"nofile", 64, 64}}, Resources: Resources{Pids: 1}}, ""},
		{"negative ulimit", Spec{RootDir: "/", Ulimits: []Ulimit{{"core", -2, 5}}}, "at least 0"},
		{"hosts", Spec{RootDir: "/", Hosts: []Host{{"db", "192.0.2.1"}, {"db", "::1"}}}, ""},
		{"host without a name", Spec{RootDir: "/", Hosts: []Host{{"", "192.0.2.1"}}}, `host ""`},
		{"host of two lines", Spec{RootDir: "/", Hosts: []Host{{"db\n192.0.2.2 other", "192.0.2.1"}}}, "printable characters"},
		{"host in a comment", Spec{RootDir: "/", Hosts: []Host{{"#db", "192.0.2.1"}}}, `host "#db"`},
		{"host without an address", Spec{RootDir: "/", Hosts: []Host{{"db", "other"}}}, `host db: "other" is not`},
		{"host by a device", Spec{RootDir: "/", Hosts: []Host{{"db", "fe80::1%eth0"}}}, `"fe80::1%eth0" is not`},
		{"hosts and a mount", Spec{RootDir: "/", Hosts: []Host{{"db", "::1"}}, Mounts: []Mount{{Source: "/a", Target: "/etc/hosts/"}}}, "give one of both"},
		{"ids", Spec{RootDir: "/", IDs: IDs{1<<32 - 2, 1}}, ""},
		{"ids without a number", Spec{RootDir: "/", IDs: IDs{First: 1}}, "say how many"},
		{"too many ids", Spec{RootDir: "/", IDs: IDs{1<<32 - 2, 2}}, "the last is 4294967294"},
		{"sysctls", Spec{RootDir: "/", Sysctls: map[string]string{
			"kernel.msgmax": "1", "net.core.somaxconn": "2", "net/ipv4/conf/eth0.1/forwarding": "1", "fs.mqueue.msg_max": "3", "kernel/sem": "1 2 3 4",
		}}, ""},
		{"sysctl of the machine", Spec{RootDir: "/", Sysctls: map[string]string{"kernel.panic": "1"}}, "whole machine's"},
		{"the machine's by a detour", Spec{RootDir: "/", Sysctls: map[string]string{"net/../kernel/panic": "1"}}, "not the name"},
		{"the machine's by dots", Spec{RootDir: "/", Sysctls: map[string]string{"net.//.kernel.panic": "1"}}, "not the name"},
		{"sysctl of the host's network", Spec{RootDir: "/", Network: NetworkHost, Sysctls: map[string]string{"net.core.somaxconn": "1"}}, "the host's"},
		{"sysctl without a name", Spec{RootDir: "/", Sysctls: map[string]string{"": "1"}}, "not the name"},
		{"sysctl with two lines", Spec{RootDir: "/", Sysctls: map[string]string{"kernel.msgmax\nx": "1"}}, "not the name"},
		{"tmpfs", Spec{RootDir: "/", Mounts: []Mount{{Type: "tmpfs", Target: "/a", Size: 1}}}, ""},
	} {
		err := tt.spec.validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestStopTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		seconds *int
		want    time.Duration
	}{{nil, 10 * time.Second}, {new(0), 0}, {new(3), 3 * time.Second}, {new(-1), -time.Second}, {new(1<<31 - 1), (1<<31 - 1) * time.Second}} {
		if got := (&Spec{StopTimeout: tt.seconds}).StopTime(); got != tt.want {
			t.Errorf("got %v, want %v", got, tt.want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "sigkill": 9, "9": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "64": 64,
		"": 0, "0": 0, "65": 0, "-1": 0, "FOO": 0, "RTMIN+31": 0, "TERM+1": 0, "RTMIN+-1": 0,
	} {
		got, err := ParseSignal(s)
		if int(got) != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	may := []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"}
	for _, tt := range []struct {
		add, drop string
		want      string
	}{
		{"", "all", ""},
		{"chown,SYS_ADMIN", "ALL", "CAP_CHOWN CAP_SYS_ADMIN"},
		{"ALL", "", "CAP_CHOWN CAP_KILL CAP_NET_ADMIN"},
		{"all", "cap_kill", "CAP_CHOWN CAP_NET_ADMIN"},
		{"", "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_raw,sys_chroot,mknod,audit_write", "CAP_NET_BIND_SERVICE CAP_SETFCAP"},
		{"kill", "kill,chown,dac_override,fowner,fsetid,setgid,setuid,setpcap,net_raw,sys_chroot,mknod,audit_write,setfcap", "CAP_KILL CAP_NET_BIND_SERVICE"},
	} {
		s := Security{CapAdd: strings.Split(tt.add, ","), CapDrop: strings.Split(tt.drop, ",")}
		if got := strings.Join(s.capabilities(func() []string { return may }), " "); got != tt.want {
			t.Errorf("add %q, drop %q: got %q, want %q", tt.add, tt.drop, got, tt.want)
		}
	}
	if got := new(Security).capabilities(nil); !slices.Equal(got, defaultCapabilities) {
		t.Errorf("by default: got %q", got)
	}
}
