package container

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestFreeIDs(t *testing.T) {
	t.Parallel()
	const half = uint32(firstAuto)
	for _, tt := range []struct {
		name  string
		size  uint32
		taken []IDs
		want  uint32 // 0 is none
	}{
		{"nobody has any", 100, nil, half},
		{"those below", 100, []IDs{{1, 1 << 20}, {half - 1, 1}}, half},
		{"the first", 100, []IDs{{half, 100}}, half + 100},
		{"one in the way", 100, []IDs{{half + 99, 1}}, half + 100},
		{"just none in the way", 100, []IDs{{half + 100, 1}}, half},
		{"a gap", 100, []IDs{{half + 300, 100}, {half, 100}}, half + 100},
		{"too small a gap", 100, []IDs{{half, 100}, {half + 199, 1}}, half + 200},
		{"overlapping others", 100, []IDs{{half - 5, 1000}, {half, 10}}, half + 995},
		{"the last", 100, []IDs{{half, 1<<31 - 101}}, 1<<32 - 101},
		{"one too few", 100, []IDs{{half, 1<<31 - 100}}, 0},
		{"all to one", 100, []IDs{{half, 1<<31 - 1}}, 0},
		{"more than there are", 1 << 31, nil, 0},
		{"all there are", 1<<31 - 1, nil, half},
	} {
		got, err := freeIDs(tt.size, tt.taken)
		if tt.want == 0 {
			if !errdefs.IsResourceExhausted(err) {
				t.Errorf("%s: got %v, %v", tt.name, got, err)
			}
		} else if err != nil || got != (IDs{tt.want, tt.size}) {
			t.Errorf("%s: got %v, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestParseIDs(t *testing.T) {
	t.Parallel()
	want := IDs{1, 4294967295}
	if got, ok := parseIDs(want.String()); !ok || got != want {
		t.Errorf("got %v, %t", got, ok)
	}
	for _, name := range []string{"", "1", "1-", "-1", "1-2-3", "1-2 ", "01-2", "1-4294967296", ".lock"} {
		if got, ok := parseIDs(name); ok {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

func TestSysctlPaths(t *testing.T) {
	t.Parallel()
	b := &bundle{record: &Record{}}
	for name, want := range map[string][2]string{
		"kernel.msgmax":           {"kernel/msgmax", "kernel.msgmax"},
		"kernel/msgmax":           {"kernel/msgmax", "kernel.msgmax"},
		"net.ipv4.conf.a/1.mtu":   {"net/ipv4/conf/a.1/mtu", "net.ipv4.conf.a/1.mtu"},
		"net/ipv4/conf/a.1/mtu":   {"net/ipv4/conf/a.1/mtu", "net.ipv4.conf.a/1.mtu"},
		"net.ipv4/neigh/default.": {"net/ipv4.neigh.default/", "net.ipv4/neigh/default."},
	} {
		if got := sysctlPath(name); got != want[0] {
			t.Errorf("%s: got %s, want %s", name, got, want[0])
		}
		b.record.Spec.Sysctls = map[string]string{name: "1"}
		if got := b.sysctls(); got[want[1]] != "1" {
			t.Errorf("%s: OCI runtimes get %v", name, got)
		}
	}
}
