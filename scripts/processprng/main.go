// Command processprng writes bcryptprimitives.dll, which Go's programs for Windows need and Wine before version 9 lacks. It
// forwards the one function, ProcessPrng, to an older one of the same arguments.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// Where the only section is, in the file and in memory.
const (
	sectionFile = 0x200
	sectionRVA  = 0x1000
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: processprng FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], library(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "processprng:", err)
		os.Exit(1)
	}
}

// library makes a PE image for x86-64 that has an export table and nothing else: "PE Format" in Microsoft's documentation.
func library() []byte {
	exports := exportTable()
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // to memory
		}
	}
	put([]byte("MZ"), make([]byte, 58), uint32(64)) // where the header is
	put([]byte("PE\x00\x00"), uint16(0x8664), uint16(1), make([]byte, 12), uint16(240), uint16(0x2022))
	put(uint16(0x20b), make([]byte, 18), uint32(sectionRVA)) // PE32+ without code
	put(uint64(0x180000000), uint32(0x1000), uint32(0x200))  // base, alignments
	put(uint16(6), make([]byte, 6), uint16(6), make([]byte, 6), uint32(2*sectionRVA), uint32(sectionFile), uint32(0))
	put(uint16(3), uint16(0x100))                                              // console, may be anywhere
	put(uint64(1<<20), uint64(1<<12), uint64(1<<20), uint64(1<<12), uint32(0)) // stack and heap
	put(uint32(16), uint32(sectionRVA), uint32(len(exports)), make([]byte, 15*8))
	put([]byte(".edata\x00\x00"), uint32(len(exports)), uint32(sectionRVA), uint32(0x200), uint32(sectionFile), make([]byte, 12), uint32(0x40000040))
	b.Write(make([]byte, sectionFile-b.Len()))
	b.Write(exports)
	b.Write(make([]byte, sectionFile+0x200-b.Len()))
	return b.Bytes()
}

// exportTable has one name, whose address is the name of another function.
func exportTable() []byte {
	const addresses, names, ordinals, texts = 40, 44, 48, 50
	const library, function, forward = "bcryptprimitives.dll\x00", "ProcessPrng\x00", "advapi32.SystemFunction036\x00"
	at := func(offset int) uint32 { return uint32(sectionRVA + offset) }
	b := make([]byte, 12, 128)
	for _, v := range []uint32{
		at(texts), 1, 1, 1, at(addresses), at(names), at(ordinals),
		at(texts + len(library) + len(function)), at(texts + len(library)),
	} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(append(b, 0, 0), library+function+forward...)
}
