package ntfs

import (
	"encoding/binary"
	"fmt"
	"math"
)

// ReparseTag says who interprets a reparse point's data.
type ReparseTag uint32

// Tags of MS-FSCC 2.1.2.1 that layers and volumes of containers meet.
const (
	TagMountPoint    ReparseTag = 0xA0000003 // a junction or volume mount point: ParseLink
	TagSymlink       ReparseTag = 0xA000000C // ParseLink
	TagWIM           ReparseTag = 0x80000008
	TagDedup         ReparseTag = 0x80000013
	TagNFS           ReparseTag = 0x80000014
	TagFilePlace     ReparseTag = 0x80000015
	TagWOF           ReparseTag = 0x80000017 // content is compressed or in a WIM: ParseWOF
	TagWCI           ReparseTag = 0x80000018 // container isolation: ParseWCI
	TagWCI1          ReparseTag = 0x90001018
	TagWCITombstone  ReparseTag = 0xA000001F // no data
	TagUnhandled     ReparseTag = 0x80000020
	TagWCILink       ReparseTag = 0xA0000027
	TagWCILink1      ReparseTag = 0xA0001027
	TagGlobal        ReparseTag = 0xA0000019
	TagCloud         ReparseTag = 0x9000001A
	TagAppExecLink   ReparseTag = 0x8000001B // ParseAppExecLink
	TagProjFS        ReparseTag = 0x9000001C
	TagLXSymlink     ReparseTag = 0xA000001D // ParseLXSymlink
	TagStorageSync   ReparseTag = 0x8000001E
	TagProjTombstone ReparseTag = 0xA0000022
	TagAFUnix        ReparseTag = 0x80000023 // no data
	TagLXFIFO        ReparseTag = 0x80000024 // no data
	TagLXCharDevice  ReparseTag = 0x80000025 // no data
	TagLXBlockDevice ReparseTag = 0x80000026 // no data
)

var tagNames = map[ReparseTag]string{
	TagMountPoint: "mount point", TagSymlink: "symlink", TagWIM: "wim", TagDedup: "dedup", TagNFS: "nfs",
	TagFilePlace: "file placeholder", TagWOF: "wof", TagWCI: "wci", TagWCI1: "wci 1", TagWCITombstone: "wci tombstone",
	TagUnhandled: "unhandled", TagWCILink: "wci link", TagWCILink1: "wci link 1", TagGlobal: "global", TagCloud: "cloud",
	TagAppExecLink: "app exec link", TagProjFS: "projfs", TagLXSymlink: "lx symlink", TagStorageSync: "storage sync",
	TagProjTombstone: "projfs tombstone", TagAFUnix: "unix socket", TagLXFIFO: "lx fifo",
	TagLXCharDevice: "lx char device", TagLXBlockDevice: "lx block device",
}

// String returns the tag's name, or its number in hexadecimal.
func (t ReparseTag) String() string {
	if name, ok := tagNames[t]; ok {
		return name
	}
	return fmt.Sprintf("reparse tag %#08x", uint32(t))
}

// Microsoft reports whether the tag is one of Microsoft's; the buffers of all
// others have a GUID.
func (t ReparseTag) Microsoft() bool { return t&0x80000000 != 0 }

// Surrogate reports whether the file stands for another one, as links do.
func (t ReparseTag) Surrogate() bool { return t&0x20000000 != 0 }

// Directory reports whether a directory with the tag may have children.
func (t ReparseTag) Directory() bool { return t&0x10000000 != 0 }

// Reparse is a reparse buffer taken apart: what is in it depends on the tag.
type Reparse struct {
	Tag      ReparseTag
	Reserved uint16
	GUID     GUID   // of the owner, if the tag is not Microsoft's
	Data     []byte // at most 16 KiB
}

const (
	reparseHeader  = 8
	maxReparseData = 16 << 10 // MAXIMUM_REPARSE_DATA_BUFFER_SIZE, which counts the header
)

// ParseReparse takes a whole reparse buffer apart; Data is part of b. It must
// be as long as it says.
func ParseReparse(b []byte) (Reparse, error) {
	if len(b) < reparseHeader {
		return Reparse{}, fmt.Errorf("parse reparse buffer: %w: %d bytes of a header of %d", ErrFormat, len(b), reparseHeader)
	}
	p := Reparse{Tag: ReparseTag(binary.LittleEndian.Uint32(b)), Reserved: binary.LittleEndian.Uint16(b[6:])}
	size, start := int(binary.LittleEndian.Uint16(b[4:])), reparseHeader
	if !p.Tag.Microsoft() {
		start += copy(p.GUID[:], b[reparseHeader:])
	}
	if len(b) != start+size || !p.Tag.Microsoft() && start < reparseHeader+len(p.GUID) {
		return Reparse{}, fmt.Errorf("parse reparse buffer: %s: %w: %d bytes of data in %d", p.Tag, ErrFormat, size, len(b))
	}
	p.Data = b[start:]
	return p, nil
}

// Append adds the reparse buffer to b.
func (p Reparse) Append(b []byte) ([]byte, error) {
	if len(p.Data) > min(maxReparseData-reparseHeader, math.MaxUint16) {
		return nil, fmt.Errorf("encode reparse buffer: %s: %w: %d bytes of data", p.Tag, ErrRange, len(p.Data))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Tag))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(p.Data)))
	b = binary.LittleEndian.AppendUint16(b, p.Reserved)
	if !p.Tag.Microsoft() {
		b = append(b, p.GUID[:]...)
	}
	return append(b, p.Data...), nil
}
