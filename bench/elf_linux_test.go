package bench_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
)

// program is machine code without a libc, so that what is measured is the way
// to a program and not the program's own start.
type program struct {
	machine uint16 // as ELF has it
	exit    []byte // exit_group(0)
	wait    []byte // pause(), for ever
}

var programsByArch = map[string]program{
	"amd64": {
		machine: 62,
		exit:    []byte{0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05}, // mov eax, 231; xor edi, edi; syscall
		wait:    []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7},  // mov eax, 34; syscall; jmp -9
	},
	"arm64": {
		machine: 183,
		exit:    words(0xd2800bc8, 0xd2800000, 0xd4000001), // mov x8, 94; mov x0, 0; svc 0
		// ppoll(NULL, 0, NULL, NULL): mov x8, 73; mov x0 to x3, 0; svc 0; b -20
		wait: words(0xd2800928, 0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd4000001, 0x17fffffb),
	},
}

func words(list ...uint32) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func architecture(tb testing.TB) program {
	p, ok := programsByArch[runtime.GOARCH]
	if !ok {
		tb.Skipf("no machine code for %s", runtime.GOARCH)
	}
	return p
}

// trueProgram returns a program that does nothing, successfully.
func trueProgram(tb testing.TB) []byte {
	p := architecture(tb)
	return elf(tb, p.machine, p.exit)
}

// pauseProgram returns a program that waits for a signal to end it.
func pauseProgram(tb testing.TB) []byte {
	p := architecture(tb)
	return elf(tb, p.machine, p.wait)
}

// elf makes an executable of position-independent code.
func elf(tb testing.TB, machine uint16, code []byte) []byte {
	const base, header, program = 0x400000, 64, 56
	size := uint64(header + program + len(code))
	var b bytes.Buffer
	for _, v := range []any{
		[16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1},                         // 64 bits, little endian, version 1
		uint16(2), machine, uint32(1), uint64(base + header + program), // executable, entry point
		uint64(header), uint64(0), uint32(0), uint16(header), uint16(program), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000), // load it all, readable and executable
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			tb.Fatal(err)
		}
	}
	return append(b.Bytes(), code...)
}
