package seccomp_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/seccomp"
)

const (
	amd64 = 0xc000003e
	i386  = 0x40000003
	arm64 = 0xc00000b7
)

func compile(t testing.TB, c *specs.LinuxSeccomp) []byte {
	t.Helper()
	p, err := seccomp.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func calls(action specs.LinuxSeccompAction, names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: action}
}

func when(s specs.LinuxSyscall, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	s.Args = args
	return s
}

func arg(index uint, op specs.LinuxSeccompOperator, values ...uint64) specs.LinuxSeccompArg {
	a := specs.LinuxSeccompArg{Index: index, Op: op, Value: values[0]}
	if len(values) > 1 {
		a.ValueTwo = values[1]
	}
	return a
}

// Numbers: read 0, write 1, open 2, close 3, personality 135 (amd64); read 3, write 4 (i386); read 63 (arm64).
func TestCompile(t *testing.T) {
	t.Parallel()
	const allow, eperm, enosys, kill = 0x7fff0000, 0x00050001, 0x00050026, 0
	some := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			calls(specs.ActAllow, "read", "close", "no such call"),
			{Names: []string{"write"}, Action: specs.ActErrno, ErrnoRet: new(uint(7))},
			calls(specs.ActTrap, "statx"),
			calls(specs.ActKillProcess, "ioctl"),
		},
	}
	alone := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{calls(specs.ActTrace, "read"), calls(specs.ActLog, "write"), calls(specs.ActKill, "open")},
	}
	arm := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: new(uint(38)), Architectures: []specs.Arch{specs.ArchAARCH64, specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{calls(specs.ActAllow, "read")},
	}
	for _, tt := range []struct {
		name   string
		config *specs.LinuxSeccomp
		call   call
		want   uint32
	}{
		{"allowed", some, call{arch: amd64, nr: 0}, allow},
		{"its neighbour", some, call{arch: amd64, nr: 2}, eperm},
		{"own error", some, call{arch: amd64, nr: 1}, 0x00050007},
		{"trap", some, call{arch: amd64, nr: 332}, 0x00030000},
		{"newer than the list", some, call{arch: amd64, nr: 333}, enosys},
		{"no number", some, call{arch: amd64, nr: 0xffffffff}, enosys},
		{"other architecture", some, call{arch: i386, nr: 3}, allow},
		{"number of the first in the other", some, call{arch: i386, nr: 0}, eperm},
		{"x32", some, call{arch: amd64, nr: 0x40000000}, allow},
		{"x32 with its own number", some, call{arch: amd64, nr: 0x40000000 + 514}, 0x80000000},
		{"x32 with the number of its sibling", some, call{arch: amd64, nr: 0x40000000 + 16}, eperm},
		{"unknown architecture", some, call{arch: arm64, nr: 63}, kill},
		{"default", alone, call{arch: amd64, nr: 3}, allow},
		{"newer than the list where all is allowed", alone, call{arch: amd64, nr: 100000}, allow},
		{"trace", alone, call{arch: amd64, nr: 0}, 0x7ff00001},
		{"log", alone, call{arch: amd64, nr: 1}, 0x7ffc0000},
		{"kill", alone, call{arch: amd64, nr: 2}, kill},
		{"x32 that was not asked for", alone, call{arch: amd64, nr: 0x40000003}, kill},
		{"ARM", arm, call{arch: arm64, nr: 63}, allow},
		{"ARM, default", arm, call{arch: arm64, nr: 62}, enosys},
	} {
		if got := evaluate(t, compile(t, tt.config), tt.call); got != tt.want {
			t.Errorf("%s: %v: got %#x, want %#x", tt.name, tt.call, got, tt.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	base := func(change func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		c := &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{calls(specs.ActAllow, "read")},
		}
		change(c)
		return c
	}
	for _, tt := range []struct {
		name   string
		config *specs.LinuxSeccomp
		want   string
		class  error
	}{
		{"architecture", base(func(c *specs.LinuxSeccomp) { c.Architectures[0] = specs.ArchS390 }), "SCMP_ARCH_S390", errdefs.ErrNotImplemented},
		{"default action", base(func(c *specs.LinuxSeccomp) { c.DefaultAction = "x" }), "action x", errdefs.ErrNotImplemented},
		{"action", base(func(c *specs.LinuxSeccomp) { c.Syscalls[0].Action = specs.ActNotify }), "NOTIFY", errdefs.ErrNotImplemented},
		{"flag", base(func(c *specs.LinuxSeccomp) { c.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog} }), "flags", errdefs.ErrNotImplemented},
		{"argument", base(func(c *specs.LinuxSeccomp) { c.Syscalls[0].Args = []specs.LinuxSeccompArg{arg(6, specs.OpEqualTo, 1)} }), "argument 6", errdefs.ErrInvalidArgument},
		{"operator", base(func(c *specs.LinuxSeccomp) { c.Syscalls[0].Args = []specs.LinuxSeccompArg{arg(0, "x", 1)} }), "operator x", errdefs.ErrNotImplemented},
		{"error number", base(func(c *specs.LinuxSeccomp) { c.DefaultErrnoRet = new(uint(1 << 16)) }), "65536", errdefs.ErrInvalidArgument},
	} {
		_, err := seccomp.Compile(tt.config)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.class) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// operators are judged here without a thought of words.
var operators = map[specs.LinuxSeccompOperator]func(v, value, two uint64) bool{
	specs.OpEqualTo:      func(v, value, _ uint64) bool { return v == value },
	specs.OpNotEqual:     func(v, value, _ uint64) bool { return v != value },
	specs.OpLessThan:     func(v, value, _ uint64) bool { return v < value },
	specs.OpLessEqual:    func(v, value, _ uint64) bool { return v <= value },
	specs.OpGreaterThan:  func(v, value, _ uint64) bool { return v > value },
	specs.OpGreaterEqual: func(v, value, _ uint64) bool { return v >= value },
	specs.OpMaskedEqual:  func(v, value, two uint64) bool { return v&value == two },
}

// TestOperators tries each operator with values at the edges of words.
func TestOperators(t *testing.T) {
	t.Parallel()
	edges := []uint64{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<33 - 1, 1 << 63, 1<<64 - 2, 1<<64 - 1}
	for op, holds := range operators {
		for index := range uint(6) {
			for _, value := range edges {
				for _, two := range []uint64{0, value, value & 0xff} {
					p := compile(t, &specs.LinuxSeccomp{
						DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
						Syscalls: []specs.LinuxSyscall{when(calls(specs.ActAllow, "read"), arg(index, op, value, two))},
					})
					for _, v := range edges {
						c := call{arch: amd64}
						c.args[index] = v
						if got := evaluate(t, p, c) == 0x7fff0000; got != holds(v, value, two) {
							t.Fatalf("%s %#x %#x: argument %#x: %t", op, value, two, v, got)
						}
					}
				}
			}
		}
	}
}

// TestRandom compares programs of random configurations with what the
// configurations say.
func TestRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	names := map[string]uint32{"read": 0, "write": 1, "open": 2, "ioctl": 16, "socket": 41, "clone": 56, "personality": 135, "statx": 332}
	known := slices.Sorted(func(yield func(string) bool) {
		for n := range names {
			if !yield(n) {
				return
			}
		}
	})
	for range 300 {
		c := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}}
		for range 1 + r.IntN(60) {
			s := calls([]specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrap, specs.ActErrno}[r.IntN(4)], known[r.IntN(len(known))])
			for range r.IntN(4) {
				ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
				s.Args = append(s.Args, arg(uint(r.IntN(6)), ops[r.IntN(len(ops))], word(r), word(r)))
			}
			c.Syscalls = append(c.Syscalls, s)
		}
		p := compile(t, c)
		for range 300 {
			x := call{arch: amd64, nr: names[known[r.IntN(len(known))]]}
			for i := range x.args {
				x.args[i] = word(r)
			}
			if got, want := evaluate(t, p, x), decide(c, names, x); got != want {
				t.Fatalf("%v: got %#x, want %#x, by %+v", x, got, want, c.Syscalls)
			}
		}
	}
}

func word(r *rand.Rand) uint64 { return uint64(r.IntN(3)) | uint64(r.IntN(2))<<32 }

// decide reads the configuration as it stands.
func decide(c *specs.LinuxSeccomp, names map[string]uint32, x call) uint32 {
	results := map[specs.LinuxSeccompAction]uint32{
		specs.ActAllow: 0x7fff0000, specs.ActLog: 0x7ffc0000, specs.ActTrap: 0x00030000, specs.ActErrno: 0x00050001,
	}
	newest := uint32(0)
	for _, s := range c.Syscalls {
		newest = max(newest, names[s.Names[0]])
		if names[s.Names[0]] != x.nr {
			continue
		}
		var met, used int
		seen := make(map[uint]bool)
		for _, a := range s.Args {
			seen[a.Index] = true
			if operators[a.Op](x.args[a.Index], a.Value, a.ValueTwo) {
				met++
			}
		}
		if used = len(s.Args); met == used || met > 0 && len(seen) < used {
			return results[s.Action]
		}
	}
	if x.nr > newest {
		return 0x00050026
	}
	return results[c.DefaultAction]
}

// TestLong has more calls with conditions than a jump reaches over.
func TestLong(t *testing.T) {
	t.Parallel()
	c := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}}
	for value := range uint64(300) {
		c.Syscalls = append(c.Syscalls, when(calls(specs.ActAllow, "ioctl"), arg(1, specs.OpEqualTo, 3*value)))
	}
	p := compile(t, c)
	for v := range uint64(1000) {
		want := uint32(0x00050001)
		if v%3 == 0 && v < 900 {
			want = 0x7fff0000
		}
		if got := evaluate(t, p, call{arch: amd64, nr: 16, args: [6]uint64{0, v}}); got != want {
			t.Fatalf("argument %d: got %#x, want %#x", v, got, want)
		}
	}
	for value := range uint64(1000) {
		c.Syscalls = append(c.Syscalls, when(calls(specs.ActAllow, "ioctl"), arg(1, specs.OpEqualTo, value)))
	}
	if _, err := seccomp.Compile(c); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "4096") {
		t.Errorf("a program that is too long: %v", err)
	}
}
