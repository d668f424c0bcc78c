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
)

var update = flag.Bool("update", false, "write the plans in testdata anew")

// TestBundles holds the plan for the runtime against what a person has read.
func TestBundles(t *testing.T) {
	for name, spec := range map[string]Spec{
		"plain": {Layers: []digest.Digest{digest.FromString("x")}},
		"all": {
			Layers: []digest.Digest{digest.FromString("x")}, Hostname: "box", ReadOnly: true, Network: NetworkHost,
			Resources: Resources{Memory: 64 << 20, CPUs: 1.5, Pids: 10},
			Mounts:    []Mount{{Source: "/src", Target: "/dst", ReadOnly: true}, {Type: "tmpfs", Target: "/tmp", Size: 1 << 20}},
		},
		"user": {Layers: []digest.Digest{digest.FromString("x")}, Network: NetworkHost},
	} {
		b := bundle{
			record: &Record{ID: "0123456789abcdef0123456789abcdef", Spec: spec}, runDir: "/run/hcs/containers/0123",
			cgroup: "/hcs/0123", agent: "/bin/hcs-agent", hybrid: name != "plain", ttyGroup: name != "user",
			seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno},
		}
		if name == "user" { // an ordinary one, with a single id and no control groups
			b.user, b.cgroup = true, ""
		}
		got, err := json.MarshalIndent(b.config(), "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		golden := filepath.Join("testdata", "bundle-"+name+".json")
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
}
