package container

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/wire"
)

var update = flag.Bool("update", false, "write the plans in testdata anew")

// TestBundles holds the plans, for an OCI runtime and for our own starter, against what a person has read.
func TestBundles(t *testing.T) {
	for name, spec := range map[string]Spec{
		"plain": {Layers: []digest.Digest{digest.FromString("x")}},
		"all": {
			Layers: []digest.Digest{digest.FromString("x")}, Hostname: "box", ReadOnly: true, Network: NetworkHost,
			Resources: Resources{Memory: 64 << 20, CPUs: 1.5, Pids: 10},
			Mounts:    []Mount{{Source: "/src", Target: "/dst", ReadOnly: true}, {Type: "tmpfs", Target: "/tmp", Size: 1 << 20}},
		},
		"user": {
			Layers: []digest.Digest{digest.FromString("x")}, Network: NetworkHost,
			Security: Security{CapDrop: []string{"all"}, CapAdd: []string{"chown"}, NoNewPrivileges: true},
			Devices:  []Device{{Source: "/dev/fuse", Access: "rw"}},
		},
		"allowed": {
			Layers: []digest.Digest{digest.FromString("x")}, Security: Security{CapAdd: []string{"SYS_ADMIN"}, CapDrop: []string{"NET_RAW"}},
			Devices: []Device{{Source: "/dev/fuse", Access: "rw"}}, Ulimits: []Ulimit{{"nofile", 64, 128}, {"core", 0, Unlimited}},
			Mounts: []Mount{{Type: "tmpfs", Target: "/t", Mode: 0o700, NoExec: true}},
		},
		"ids": {
			Layers: []digest.Digest{digest.FromString("x")}, IDs: AutoIDs, Sysctls: map[string]string{"kernel.msgmax": "1", "net.ipv4.conf.eth0/1.mtu": "2"},
			Devices: []Device{{Source: "/dev/fuse"}}, Mounts: []Mount{{Source: "/src", Target: "/dst", ReadOnly: true}},
		},
	} {
		b := bundle{
			record: &Record{ID: "0123456789abcdef0123456789abcdef", Spec: spec}, runDir: "/run/hcs/containers/0123",
			caps: spec.Security.capabilities(nil), devices: []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}[:len(spec.Devices)],
			cgroup: "/hcs/0123", agent: "/bin/hcs-agent", hybrid: name == "all" || name == "user" || name == "ids", ttyGroup: name != "user",
			seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno},
		}
		if name == "user" { // an ordinary one, with a single id and no control groups
			b.user, b.cgroup = true, ""
		}
		if name == "ids" {
			b.user, b.record.IDs = true, IDs{First: 100000, Size: 1000}
		}
		checkGolden(t, "bundle-"+name, b.config())
		v1 := map[string]string{}
		if b.hybrid && b.cgroup != "" {
			v1 = map[string]string{"cpu": "/sys/fs/cgroup/cpu/hcs/0123", "memory": "/sys/fs/cgroup/memory/hcs/0123"}
		}
		n, err := b.native(v1, []byte{1})
		if err != nil {
			t.Fatal(err)
		}
		var build wire.Build
		if err := build.Decode(n.Build); err != nil {
			t.Fatal(err)
		}
		n.Build, n.Birth = nil, b.birth() // the first follows, the second goes ahead
		checkGolden(t, "native-"+name, struct {
			Native *wire.Native
			Limits wire.Limits
			Build  wire.Build
		}{n, b.nativeLimits(b.resources()), build})
	}
}

// checkGolden holds a plan against the one in testdata.
func checkGolden(t *testing.T, name string, plan any) {
	t.Helper()
	got, err := json.MarshalIndent(plan, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s: %s", name, d)
	}
}
