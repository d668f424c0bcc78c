package seccomp

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Compile returns the program: struct sock_filter after struct sock_filter, in
// this machine's byte order.
//
// Names that this package does not know are passed over, as OCI runtimes do.
// Of a call's rules the first one that matches counts. A call that is newer
// than all that the list has is answered with ENOSYS where others get an
// error: so programs fall back to older calls, as on an older kernel. The same
// is done by runc. What is called by way of an architecture that is not in the
// list ends the thread.
//
// The error is of class errdefs.ErrNotImplemented for what the configuration
// may say and this package cannot do.
func Compile(c *specs.LinuxSeccomp) ([]byte, error) {
	fallback, err := result(c.DefaultAction, c.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	if len(c.Flags) > 0 || c.ListenerPath != "" {
		return nil, unsupported("flags and listeners")
	}
	names := c.Architectures
	if len(names) == 0 {
		names = []specs.Arch{native[runtime.GOARCH]}
	}
	byAudit := make(map[uint32][]architecture)
	for _, name := range names {
		a, ok := architectures[name]
		if !ok {
			return nil, unsupported("architecture " + string(name))
		}
		byAudit[a.audit] = append(byAudit[a.audit], a)
	}
	var p program
	next := p.result(killThread)
	for _, audit := range slices.Sorted(maps.Keys(byAudit)) {
		table, err := newTable(c, byAudit[audit], fallback)
		if err != nil {
			return nil, err
		}
		next = p.either(equal, audit, p.calls(table), next)
	}
	p.load(archOffset)
	if len(p.reversed) > maxInstructions {
		return nil, fmt.Errorf("compile seccomp filter: %d instructions, the kernel takes %d: %w",
			len(p.reversed), maxInstructions, errdefs.ErrInvalidArgument)
	}
	return p.bytes(), nil
}

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

func unsupported(what string) error {
	return fmt.Errorf("compile seccomp filter: %s: %w", what, errdefs.ErrNotImplemented)
}

// What a program returns (include/uapi/linux/seccomp.h).
const (
	killProcess = 0x80000000
	killThread  = 0x00000000
	trap        = 0x00030000
	errno       = 0x00050000
	trace       = 0x7ff00000
	log         = 0x7ffc0000
	allow       = 0x7fff0000

	actionBits = 0xffff0000
	ePERM      = 1
	eNOSYS     = 38
)

var actions = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill: killThread, specs.ActKillThread: killThread, specs.ActKillProcess: killProcess, specs.ActTrap: trap,
	specs.ActErrno: errno, specs.ActTrace: trace, specs.ActLog: log, specs.ActAllow: allow,
}

// result returns what the program returns for an action.
func result(a specs.LinuxSeccompAction, number *uint) (uint32, error) {
	value, ok := actions[a]
	if !ok {
		return 0, unsupported("action " + string(a))
	}
	if value != errno && value != trace {
		return value, nil
	}
	n := uint(ePERM)
	if number != nil {
		n = *number
	}
	if n > 0xffff {
		return 0, fmt.Errorf("compile seccomp filter: error number %d: %w", n, errdefs.ErrInvalidArgument)
	}
	return value | uint32(n), nil
}

// rule is one rule for one call.
type rule struct {
	result     uint32
	conditions []specs.LinuxSeccompArg // all of them must hold
}

// span is a run of numbers, up to the next one's first, that are decided alike.
type span struct {
	first uint32
	rules []rule // without conditions: of the last one
}

// table says what happens to each number of one audit architecture.
type table struct {
	spans    []span // by first, the first of which is 0
	fallback uint32
}

// newTable collects what the configuration says of the architectures, which
// share an audit number.
func newTable(c *specs.LinuxSeccomp, list []architecture, fallback uint32) (*table, error) {
	t := &table{fallback: fallback}
	for _, a := range list {
		rules, err := collect(c, a)
		if err != nil {
			return nil, err
		}
		t.add(a, rules)
	}
	if slices.ContainsFunc(list, func(a architecture) bool { return a.audit == architectures[specs.ArchX32].audit }) &&
		!slices.ContainsFunc(list, func(a architecture) bool { return a.x32 }) {
		t.spans = append(t.spans, span{x32Bit, []rule{{result: killThread}}}) // not asked for
	}
	slices.SortFunc(t.spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	t.join()
	return t, nil
}

// collect returns the rules of each number.
func collect(c *specs.LinuxSeccomp, a architecture) (map[uint32][]rule, error) {
	rules := make(map[uint32][]rule)
	for i := range c.Syscalls {
		s := &c.Syscalls[i]
		value, err := result(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, err
		}
		alternatives, err := split(s.Args)
		if err != nil {
			return nil, err
		}
		for _, name := range s.Names {
			nr, ok := a.number(name)
			if !ok {
				continue
			}
			for _, conditions := range alternatives {
				rules[nr] = append(rules[nr], rule{value, conditions})
			}
		}
	}
	return rules, nil
}

// split returns the conditions as alternatives of which each must hold as a
// whole. Several for one argument are alternatives, by a habit of runc's that
// profiles have come to rely upon.
func split(args []specs.LinuxSeccompArg) ([][]specs.LinuxSeccompArg, error) {
	var seen [6]bool
	twice := false
	for _, a := range args {
		if a.Index >= uint(len(seen)) {
			return nil, fmt.Errorf("compile seccomp filter: argument %d: %w", a.Index, errdefs.ErrInvalidArgument)
		}
		if _, ok := comparisons[a.Op]; !ok {
			return nil, unsupported("operator " + string(a.Op))
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return [][]specs.LinuxSeccompArg{args}, nil
	}
	var list [][]specs.LinuxSeccompArg
	for i := range args {
		list = append(list, args[i:i+1])
	}
	return list, nil
}

// add enters the rules of one architecture, and what is between and behind
// them.
func (t *table) add(a architecture, rules map[uint32][]rule) {
	base := uint32(0)
	if a.x32 {
		base = x32Bit
	}
	next := base
	for _, nr := range slices.Sorted(maps.Keys(rules)) {
		if nr > next {
			t.spans = append(t.spans, span{next, []rule{{result: t.fallback}}})
		}
		t.spans = append(t.spans, span{nr, rules[nr]})
		next = nr + 1
	}
	t.spans = append(t.spans, span{next, []rule{{result: t.unknown()}}})
}

// unknown is the result for calls that are newer than the list.
func (t *table) unknown() uint32 {
	if t.fallback&actionBits == errno {
		return errno | eNOSYS
	}
	return t.fallback
}

// join makes one span of neighbours that are decided alike, whatever the
// arguments.
func (t *table) join() {
	var joined []span
	for _, s := range t.spans {
		if n := len(joined); n > 0 && s.plain() && joined[n-1].plain() && joined[n-1].rules[0].result == s.rules[0].result {
			continue
		}
		joined = append(joined, s)
	}
	t.spans = joined
}

// plain reports whether the first rule always counts.
func (s *span) plain() bool { return len(s.rules[0].conditions) == 0 }
