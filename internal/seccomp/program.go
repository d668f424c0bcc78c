package seccomp

import (
	"encoding/binary"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// instruction is struct sock_filter (include/uapi/linux/filter.h).
type instruction struct {
	code   uint16
	jt, jf uint8 // how many instructions a jump goes over
	k      uint32
}

// Codes of classic BPF (Documentation/networking/filter.rst).
const (
	loadWord  = 0x20 // BPF_LD|BPF_W|BPF_ABS
	and       = 0x54 // BPF_ALU|BPF_AND|BPF_K
	jump      = 0x05 // BPF_JMP|BPF_JA
	equal     = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	greater   = 0x25 // BPF_JMP|BPF_JGT|BPF_K
	atLeast   = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	returning = 0x06 // BPF_RET|BPF_K
)

// Offsets in struct seccomp_data (seccomp(2)).
const (
	numberOffset = 0
	archOffset   = 4
	argsOffset   = 16
)

// program is written from its end, as jumps go forward only: where they lead
// is there already.
type program struct {
	reversed []instruction
	results  map[uint32]label
}

// label is a place in a program: how many instructions there were when it was
// written, itself included.
type label int

func (p *program) emit(i instruction) label {
	p.reversed = append(p.reversed, i)
	return label(len(p.reversed))
}

// distance is how many instructions a jump that is written next goes over.
func (p *program) distance(to label) int { return len(p.reversed) - int(to) }

// farthest is how far a conditional jump goes: two less than its field holds,
// as reaching one target may move the other.
const farthest = 253

// reach returns a place that leads to the label and can be jumped to.
func (p *program) reach(to label) label {
	if p.distance(to) <= farthest {
		return to
	}
	return p.emit(instruction{code: jump, k: uint32(p.distance(to))})
}

// either goes on at one of two places.
func (p *program) either(code uint16, k uint32, yes, no label) label {
	yes = p.reach(yes)
	no = p.reach(no)
	yes = p.reach(yes)
	return p.emit(instruction{code, uint8(p.distance(yes)), uint8(p.distance(no)), k})
}

func (p *program) load(offset uint32) label { return p.emit(instruction{code: loadWord, k: offset}) }

// result returns a place where the program ends with the value.
func (p *program) result(value uint32) label {
	if at, ok := p.results[value]; ok && p.distance(at) <= farthest {
		return at
	}
	if p.results == nil {
		p.results = make(map[uint32]label)
	}
	p.results[value] = p.emit(instruction{code: returning, k: value})
	return p.results[value]
}

// calls decides by the number of the call.
func (p *program) calls(t *table) label {
	places := make([]label, len(t.spans))
	for i := range t.spans {
		if s := &t.spans[i]; !s.plain() {
			places[i] = p.rules(s.rules, t.fallback)
		}
	}
	if top := p.search(t.spans, places); p.distance(top) > 0 {
		p.emit(instruction{code: jump, k: uint32(p.distance(top))})
	}
	return p.load(numberOffset)
}

// search finds the span of the number by halving.
func (p *program) search(spans []span, places []label) label {
	if len(spans) == 1 {
		if spans[0].plain() {
			return p.result(spans[0].rules[0].result)
		}
		return places[0]
	}
	half := len(spans) / 2
	above := p.search(spans[half:], places[half:])
	below := p.search(spans[:half], places[:half])
	return p.either(atLeast, spans[half].first, above, below)
}

// rules decides by the arguments.
func (p *program) rules(list []rule, fallback uint32) label {
	next := p.result(fallback)
	for i := len(list) - 1; i >= 0; i-- {
		yes := p.result(list[i].result)
		for j := len(list[i].conditions) - 1; j >= 0; j-- {
			yes = p.condition(&list[i].conditions[j], yes, next)
		}
		next = yes
	}
	return next
}

// comparison is how a condition is decided: by the words, the high one first.
type comparison struct {
	low    uint16 // of the low words, where the high ones are equal
	masked bool   // Value is a mask, ValueTwo what is left
	order  bool   // a greater high word decides
	negate bool
}

var comparisons = map[specs.LinuxSeccompOperator]comparison{
	specs.OpEqualTo:      {low: equal},
	specs.OpNotEqual:     {low: equal, negate: true},
	specs.OpMaskedEqual:  {low: equal, masked: true},
	specs.OpGreaterThan:  {low: greater, order: true},
	specs.OpGreaterEqual: {low: atLeast, order: true},
	specs.OpLessEqual:    {low: greater, order: true, negate: true},
	specs.OpLessThan:     {low: atLeast, order: true, negate: true},
}

// condition goes on at yes if the argument is as it says, else at no.
func (p *program) condition(c *specs.LinuxSeccompArg, yes, no label) label {
	how := comparisons[c.Op]
	if how.negate {
		yes, no = no, yes
	}
	mask, want := ^uint64(0), c.Value
	if how.masked {
		mask, want = c.Value, c.ValueTwo
	}
	low, high := words(uint32(c.Index))
	p.either(how.low, uint32(want), yes, no)
	p.mask(uint32(mask))
	lowWord := p.load(low)
	differs := no
	if how.order {
		differs = p.either(greater, uint32(want>>32), yes, no)
	}
	p.either(equal, uint32(want>>32), lowWord, differs)
	p.mask(uint32(mask >> 32))
	return p.load(high)
}

func (p *program) mask(m uint32) {
	if m != ^uint32(0) {
		p.emit(instruction{code: and, k: m})
	}
}

// words returns the offsets of an argument's words, which are in the machine's
// order.
func words(index uint32) (low, high uint32) {
	at := argsOffset + 8*index
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return at, at + 4
	}
	return at + 4, at
}

func (p *program) bytes() []byte {
	b := make([]byte, 0, 8*len(p.reversed))
	for i := len(p.reversed) - 1; i >= 0; i-- {
		x := p.reversed[i]
		b = binary.NativeEndian.AppendUint16(b, x.code)
		b = append(b, x.jt, x.jf)
		b = binary.NativeEndian.AppendUint32(b, x.k)
	}
	return b
}
