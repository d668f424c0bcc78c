package seccomp_test

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// call is what the kernel asks a program about: struct seccomp_data.
type call struct {
	arch, nr uint32
	args     [6]uint64
}

func (c call) String() string { return fmt.Sprintf("arch %#x call %d %#x", c.arch, c.nr, c.args) }

func (c call) data() []byte {
	b := binary.NativeEndian.AppendUint32(nil, c.nr)
	b = binary.NativeEndian.AppendUint32(b, c.arch)
	b = append(b, make([]byte, 8)...)
	for _, a := range c.args {
		b = binary.NativeEndian.AppendUint64(b, a)
	}
	return b
}

// evaluate does what the kernel would: every instruction that filters have,
// nothing besides (seccomp_check_filter in kernel/seccomp.c).
func evaluate(t testing.TB, program []byte, c call) uint32 {
	t.Helper()
	data := c.data()
	var a uint32
	for pc := 0; ; pc++ {
		if pc < 0 || 8*pc+8 > len(program) {
			t.Fatalf("%v: the program is left at instruction %d", c, pc)
		}
		i := program[8*pc:]
		code, jt, jf, k := binary.NativeEndian.Uint16(i), int(i[2]), int(i[3]), binary.NativeEndian.Uint32(i[4:])
		holds := false
		switch code {
		case 0x20: // load
			a = binary.NativeEndian.Uint32(data[k:])
			continue
		case 0x54: // and
			a &= k
			continue
		case 0x05: // jump
			pc += int(k)
			continue
		case 0x06: // return
			return k
		case 0x15:
			holds = a == k
		case 0x25:
			holds = a > k
		case 0x35:
			holds = a >= k
		default:
			t.Fatalf("%v: instruction %d has code %#x", c, pc, code)
		}
		if holds {
			pc += jt
		} else {
			pc += jf
		}
	}
}
