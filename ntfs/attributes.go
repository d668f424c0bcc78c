package ntfs

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Attributes are a file's FILE_ATTRIBUTE_ bits (MS-FSCC 2.6).
type Attributes uint32

// The attributes that Windows defines.
const (
	AttrReadonly          Attributes = 0x1
	AttrHidden            Attributes = 0x2
	AttrSystem            Attributes = 0x4
	AttrDirectory         Attributes = 0x10
	AttrArchive           Attributes = 0x20
	AttrDevice            Attributes = 0x40
	AttrNormal            Attributes = 0x80
	AttrTemporary         Attributes = 0x100
	AttrSparse            Attributes = 0x200
	AttrReparse           Attributes = 0x400
	AttrCompressed        Attributes = 0x800
	AttrOffline           Attributes = 0x1000
	AttrNotIndexed        Attributes = 0x2000
	AttrEncrypted         Attributes = 0x4000
	AttrIntegrity         Attributes = 0x8000
	AttrVirtual           Attributes = 0x10000
	AttrNoScrub           Attributes = 0x20000
	AttrEA                Attributes = 0x40000 // also "recall on open"
	AttrPinned            Attributes = 0x80000
	AttrUnpinned          Attributes = 0x100000
	AttrRecallOnAccess    Attributes = 0x400000
	AttrStrictlySequenced Attributes = 0x20000000
)

var attributeNames = []struct {
	bit  Attributes
	name string
}{
	{AttrReadonly, "readonly"},
	{AttrHidden, "hidden"},
	{AttrSystem, "system"},
	{AttrDirectory, "directory"},
	{AttrArchive, "archive"},
	{AttrDevice, "device"},
	{AttrNormal, "normal"},
	{AttrTemporary, "temporary"},
	{AttrSparse, "sparse"},
	{AttrReparse, "reparse"},
	{AttrCompressed, "compressed"},
	{AttrOffline, "offline"},
	{AttrNotIndexed, "not-indexed"},
	{AttrEncrypted, "encrypted"},
	{AttrIntegrity, "integrity"},
	{AttrVirtual, "virtual"},
	{AttrNoScrub, "no-scrub"},
	{AttrEA, "ea"},
	{AttrPinned, "pinned"},
	{AttrUnpinned, "unpinned"},
	{AttrRecallOnAccess, "recall-on-access"},
	{AttrStrictlySequenced, "strictly-sequenced"},
}

// String returns the names of the bits that are set, lowest first, with "|"
// between them, and unnamed bits as one hexadecimal number at the end; "0" if
// there is none.
func (a Attributes) String() string {
	var names []string
	for _, n := range attributeNames {
		if a&n.bit != 0 {
			names = append(names, n.name)
			a &^= n.bit
		}
	}
	if a != 0 || names == nil {
		names = append(names, fmt.Sprintf("%#x", uint32(a)))
	}
	return strings.Join(names, "|")
}

// BasicInfoSize is the length of a FILE_BASIC_INFO, its padding included.
const BasicInfoSize = 40

// BasicInfo is Windows' FILE_BASIC_INFO: the four times and the attributes.
type BasicInfo struct {
	Creation, LastAccess, LastWrite, Change FileTime
	Attributes                              Attributes
}

// Append adds the 40 bytes of the FILE_BASIC_INFO to b.
func (i BasicInfo) Append(b []byte) []byte {
	for _, t := range [...]FileTime{i.Creation, i.LastAccess, i.LastWrite, i.Change} {
		b = binary.LittleEndian.AppendUint64(b, uint64(t))
	}
	return binary.LittleEndian.AppendUint64(b, uint64(i.Attributes))
}

// ParseBasicInfo reads a FILE_BASIC_INFO of exactly 40 bytes; its padding may
// hold anything.
func ParseBasicInfo(b []byte) (BasicInfo, error) {
	if len(b) != BasicInfoSize {
		return BasicInfo{}, fmt.Errorf("parse basic info: %w: %d bytes, want %d", ErrFormat, len(b), BasicInfoSize)
	}
	at := func(i int) FileTime { return FileTime(binary.LittleEndian.Uint64(b[i:])) }
	return BasicInfo{at(0), at(8), at(16), at(24), Attributes(binary.LittleEndian.Uint32(b[32:]))}, nil
}
