package ntfs

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// EA is one extended attribute of a file. Windows compares names without
// regard to case and stores them in upper case; here they are as found.
type EA struct {
	Name  string // 1 to 255 bytes, without NUL
	Flags uint8  // FILE_NEED_EA is 0x80
	Value []byte
}

const eaHeader = 8

// AppendEA adds the attributes to b as a FILE_FULL_EA_INFORMATION list
// (MS-FSCC 2.4.16) in their order: each padded to 4 bytes, the last one too,
// and the last with a next offset of 0. No attributes are no bytes. b may
// end anywhere: the padding counts from where the list begins.
func AppendEA(b []byte, eas []EA) ([]byte, error) {
	for i, ea := range eas {
		if err := ea.check(); err != nil {
			return nil, fmt.Errorf("encode extended attribute %q: %w", ea.Name, err)
		}
		size := eaHeader + len(ea.Name) + 1 + len(ea.Value)
		padded := (size + 3) &^ 3
		next := uint32(padded)
		if i == len(eas)-1 {
			next = 0
		}
		b = binary.LittleEndian.AppendUint32(b, next)
		b = append(b, ea.Flags, byte(len(ea.Name)))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(ea.Value)))
		b = append(append(b, ea.Name...), 0)
		b = append(b, ea.Value...)
		b = append(b, make([]byte, padded-size)...)
	}
	return b, nil
}

func (ea EA) check() error {
	switch {
	case ea.Name == "" || len(ea.Name) > math.MaxUint8 || strings.IndexByte(ea.Name, 0) >= 0:
		return fmt.Errorf("%w: the name has 1 to 255 bytes and no NUL", ErrRange)
	case len(ea.Value) > math.MaxUint16:
		return fmt.Errorf("%w: a value of %d bytes, more than %d", ErrRange, len(ea.Value), math.MaxUint16)
	}
	return nil
}

// ParseEA reads a FILE_FULL_EA_INFORMATION list. The last attribute is the one
// whose next offset is 0, as Windows has it, or leads to the end of b, as
// ntfs-3g has it; it may lack its padding. Values are parts of b. No bytes
// are no attributes.
func ParseEA(b []byte) ([]EA, error) {
	var eas []EA
	for at := 0; at < len(b); {
		ea, next, err := parseEA(b[at:])
		if err != nil {
			return nil, fmt.Errorf("parse extended attributes at offset %d: %w", at, err)
		}
		eas = append(eas, ea)
		at += next
	}
	return eas, nil
}

func parseEA(b []byte) (ea EA, next int, err error) {
	if len(b) < eaHeader {
		return EA{}, 0, fmt.Errorf("%w: %d bytes of a header of %d", ErrFormat, len(b), eaHeader)
	}
	nameEnd := eaHeader + int(b[5])
	size := nameEnd + 1 + int(binary.LittleEndian.Uint16(b[6:]))
	next64 := int64(binary.LittleEndian.Uint32(b))
	switch {
	case size > len(b):
		return EA{}, 0, fmt.Errorf("%w: an attribute of %d bytes where %d are left", ErrFormat, size, len(b))
	case b[5] == 0 || b[nameEnd] != 0 || strings.IndexByte(string(b[eaHeader:nameEnd]), 0) >= 0:
		return EA{}, 0, fmt.Errorf("%w: the name does not end where its length says", ErrFormat)
	case next64 != 0 && (next64 < int64(size) || next64 > int64(len(b))):
		return EA{}, 0, fmt.Errorf("%w: the next attribute is at %d, outside of %d to %d", ErrFormat, next64, size, len(b))
	case next64 == 0 && len(b)-size > 3:
		return EA{}, 0, fmt.Errorf("%w: %d bytes after the last attribute", ErrFormat, len(b)-size)
	case next64 == 0:
		next64 = int64(len(b))
	}
	return EA{string(b[eaHeader:nameEnd]), b[4], b[nameEnd+1 : size : size]}, int(next64), nil
}
