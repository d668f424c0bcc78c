package seccomp_test

import (
	"encoding/binary"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// profile returns docker's list for the capabilities.
func profile(t testing.TB, capabilities []string) *specs.LinuxSeccomp {
	t.Helper()
	c, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: capabilities},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func BenchmarkCompile(b *testing.B) {
	c := profile(b, nil)
	for b.Loop() {
		compile(b, c)
	}
}

// TestJumpsAreBound has the program checked as the kernel does before it takes
// it: jumps stay inside, and the last instruction returns.
func TestJumpsAreBound(t *testing.T) {
	t.Parallel()
	p := compile(t, profile(t, nil))
	n := len(p) / 8
	for pc := range n {
		i := p[8*pc:]
		code, k := binary.NativeEndian.Uint16(i), binary.NativeEndian.Uint32(i[4:])
		far := 0
		switch code & 7 {
		case 5:
			if far = max(int(i[2]), int(i[3])); code == 5 {
				far = int(k)
			}
		case 6:
			far = -1
		}
		if pc+far+1 >= n {
			t.Errorf("instruction %d of %d leads to %d", pc, n, pc+far+1)
		}
	}
	t.Logf("%d instructions", n)
}
