package container

import (
	"math"
	"strings"
	"testing"

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
		{"neither", Spec{}, "give either layers or a root directory"},
		{"both", Spec{Layers: layers, RootDir: "/"}, "give either layers or a root directory"},
		{"relative directory", Spec{RootDir: "x"}, "not absolute"},
		{"name", Spec{RootDir: "/", Name: "../x"}, `name "../x"`},
		{"hostname", Spec{RootDir: "/", Hostname: "a b"}, `hostname "a b"`},
		{"long hostname", Spec{RootDir: "/", Hostname: strings.Repeat("a", 65)}, "hostname"},
		{"signal", Spec{RootDir: "/", StopSignal: 65}, "stop signal 65"},
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
		{"no number of cpus", Spec{RootDir: "/", Resources: Resources{CPUs: math.NaN()}}, "cpus"},
		{"too many pids", Spec{RootDir: "/", Resources: Resources{Pids: math.MaxInt64}}, "processes"},
		{"tmpfs", Spec{RootDir: "/", Mounts: []Mount{{Type: "tmpfs", Target: "/a", Size: 1}}}, ""},
	} {
		err := tt.spec.validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
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
