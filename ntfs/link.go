package ntfs

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Link is the data of a symbolic link or a mount point (junction): MS-FSCC
// 2.1.2.4 and 2.1.2.5.
type Link struct {
	Tag            ReparseTag // TagSymlink or TagMountPoint
	SubstituteName string     // where the link leads, as the kernel names it: `\??\C:\dir`, or relative
	PrintName      string     // the same for people; may be empty
	Flags          uint32     // SymlinkRelative; mount points have none
}

// SymlinkRelative is the flag of symbolic links whose target starts at the
// link's own directory or volume.
const SymlinkRelative = 1

const ntPrefix = `\??\`

// NewLink returns a link to a target as people write it: `C:\dir`,
// `\\server\share`, `\\?\…`, and for symbolic links relative ones too.
func NewLink(tag ReparseTag, target string) Link {
	l := Link{Tag: tag, SubstituteName: target, PrintName: target}
	switch {
	case strings.HasPrefix(target, `\\?\`):
		l.SubstituteName = ntPrefix + target[4:]
	case strings.HasPrefix(target, `\\`):
		l.SubstituteName = ntPrefix + `UNC\` + target[2:]
	case len(target) >= 2 && target[1] == ':':
		l.SubstituteName = ntPrefix + target
	case tag == TagSymlink:
		l.Flags = SymlinkRelative
	}
	return l
}

// Target returns where the link leads, as people write it: the print name, or
// what the substitute name says where that is empty, as it is in junctions
// that PowerShell makes.
func (l Link) Target() string {
	if l.PrintName != "" {
		return l.PrintName
	}
	bare, isNT := strings.CutPrefix(l.SubstituteName, ntPrefix)
	switch {
	case !isNT:
		return l.SubstituteName
	case len(bare) >= 4 && strings.EqualFold(bare[:4], `UNC\`):
		return `\\` + bare[4:]
	case strings.HasPrefix(bare, "Volume{"):
		return `\\?\` + bare
	}
	return bare
}

// ParseLink reads a whole reparse buffer of a symbolic link or mount point;
// other tags are ErrUnsupported.
func ParseLink(b []byte) (Link, error) {
	p, err := ParseReparse(b)
	if err != nil {
		return Link{}, err
	}
	header := 8
	switch p.Tag {
	case TagMountPoint:
	case TagSymlink:
		header = 12
	default:
		return Link{}, fmt.Errorf("parse link: %w: %s", ErrUnsupported, p.Tag)
	}
	if len(p.Data) < header {
		return Link{}, fmt.Errorf("parse link: %s: %w: %d bytes of a header of %d", p.Tag, ErrFormat, len(p.Data), header)
	}
	l := Link{Tag: p.Tag}
	if p.Tag == TagSymlink {
		l.Flags = binary.LittleEndian.Uint32(p.Data[8:])
	}
	if l.SubstituteName, err = linkName(p.Data, header, 0); err == nil {
		l.PrintName, err = linkName(p.Data, header, 4)
	}
	if err != nil {
		return Link{}, fmt.Errorf("parse link: %s: %w", p.Tag, err)
	}
	return l, nil
}

// linkName reads the name whose offset and length are at offset at.
func linkName(data []byte, header, at int) (string, error) {
	offset, size := int(binary.LittleEndian.Uint16(data[at:])), int(binary.LittleEndian.Uint16(data[at+2:]))
	if path := data[header:]; size%2 == 0 && offset+size <= len(path) {
		return DecodeUTF16(path[offset : offset+size]), nil
	}
	return "", fmt.Errorf("%w: a name of %d bytes at %d", ErrFormat, size, offset)
}

// Append adds the link's reparse buffer to b: the substitute name first, then
// the print name, each with a NUL that its length does not count.
func (l Link) Append(b []byte) ([]byte, error) {
	substitute, printed := AppendUTF16(nil, l.SubstituteName), AppendUTF16(nil, l.PrintName)
	if len(substitute)+len(printed) > math.MaxUint16-4 {
		return nil, fmt.Errorf("encode link to %.40q: %w: the name is too long", l.SubstituteName, ErrRange)
	}
	data := make([]byte, 0, 16+len(substitute)+len(printed))
	for _, n := range []int{0, len(substitute), len(substitute) + 2, len(printed)} {
		data = binary.LittleEndian.AppendUint16(data, uint16(n))
	}
	switch l.Tag {
	case TagSymlink:
		data = binary.LittleEndian.AppendUint32(data, l.Flags)
	case TagMountPoint:
	default:
		return nil, fmt.Errorf("encode link: %w: %s", ErrUnsupported, l.Tag)
	}
	data = append(append(data, substitute...), 0, 0)
	data = append(append(data, printed...), 0, 0)
	return Reparse{Tag: l.Tag, Data: data}.Append(b)
}

// WCI is the data of the container isolation filter's reparse points: the file
// is that of another layer. The layout is from dumps of Windows' scratch volumes.
type WCI struct {
	Version uint32 // 1
	Flags   uint32
	Layer   GUID
	Path    string // relative to the layer's Files, with backslashes
}

const wciHeader = 26

// ParseWCI reads the data of a WCI reparse buffer, of any WCI tag that has
// some.
func ParseWCI(p Reparse) (WCI, error) {
	switch p.Tag {
	case TagWCI, TagWCI1, TagWCILink, TagWCILink1:
	default:
		return WCI{}, fmt.Errorf("parse container isolation data: %w: %s", ErrUnsupported, p.Tag)
	}
	if len(p.Data) < wciHeader {
		return WCI{}, fmt.Errorf("parse container isolation data: %w: %d bytes of a header of %d", ErrFormat, len(p.Data), wciHeader)
	}
	size := int(binary.LittleEndian.Uint16(p.Data[24:]))
	if size%2 != 0 || wciHeader+size != len(p.Data) {
		return WCI{}, fmt.Errorf("parse container isolation data: %w: a path of %d bytes in %d", ErrFormat, size, len(p.Data)-wciHeader)
	}
	return WCI{
		Version: binary.LittleEndian.Uint32(p.Data),
		Flags:   binary.LittleEndian.Uint32(p.Data[4:]),
		Layer:   GUID(p.Data[8:24]),
		Path:    DecodeUTF16(p.Data[wciHeader:]),
	}, nil
}

// Reparse returns the reparse buffer of the data under a WCI tag.
func (w WCI) Reparse(tag ReparseTag) (Reparse, error) {
	path := AppendUTF16(nil, w.Path)
	if len(path) > maxReparseData {
		return Reparse{}, fmt.Errorf("encode container isolation data: %w: a path of %d bytes", ErrRange, len(path))
	}
	data := binary.LittleEndian.AppendUint32(nil, w.Version)
	data = binary.LittleEndian.AppendUint32(data, w.Flags)
	data = append(data, w.Layer[:]...)
	data = binary.LittleEndian.AppendUint16(data, uint16(len(path)))
	return Reparse{Tag: tag, Data: append(data, path...)}, nil
}

// ParseLXSymlink returns the target of a symbolic link that the Windows
// subsystem for Linux made: bytes of a Linux path.
func ParseLXSymlink(p Reparse) (string, error) {
	if p.Tag != TagLXSymlink {
		return "", fmt.Errorf("parse Linux symlink: %w: %s", ErrUnsupported, p.Tag)
	}
	if len(p.Data) < 4 || binary.LittleEndian.Uint32(p.Data) != 2 {
		return "", fmt.Errorf("parse Linux symlink: %w: no version 2", ErrFormat)
	}
	return string(p.Data[4:]), nil
}

// NewLXSymlink returns the reparse buffer of a Linux symbolic link.
func NewLXSymlink(target string) Reparse {
	return Reparse{Tag: TagLXSymlink, Data: append([]byte{2, 0, 0, 0}, target...)}
}

// ParseAppExecLink returns the strings of an application's alias: package,
// entry point, executable and type of application.
func ParseAppExecLink(p Reparse) ([]string, error) {
	if p.Tag != TagAppExecLink {
		return nil, fmt.Errorf("parse app exec link: %w: %s", ErrUnsupported, p.Tag)
	}
	if len(p.Data) < 4 || len(p.Data)%2 != 0 {
		return nil, fmt.Errorf("parse app exec link: %w: %d bytes", ErrFormat, len(p.Data))
	}
	text := strings.TrimSuffix(DecodeUTF16(p.Data[4:]), "\x00")
	return strings.Split(text, "\x00"), nil
}

// WOF says where the Windows overlay filter has a file's content (MS-FSCC's
// WOF_EXTERNAL_INFO and what follows it).
type WOF struct {
	Provider  uint32 // 1 WIM, 2 file
	Algorithm uint32 // file: 0 XPRESS4K, 1 LZX, 2 XPRESS8K, 3 XPRESS16K
	Source    uint64 // WIM: number of the WIM
	Hash      [20]byte
}

// The providers of WOF.
const (
	WOFProviderWIM  = 1
	WOFProviderFile = 2
)

// ParseWOF reads the data of a WOF reparse buffer.
func ParseWOF(p Reparse) (WOF, error) {
	if p.Tag != TagWOF {
		return WOF{}, fmt.Errorf("parse overlay filter data: %w: %s", ErrUnsupported, p.Tag)
	}
	if len(p.Data) < 8 || binary.LittleEndian.Uint32(p.Data) != 1 {
		return WOF{}, fmt.Errorf("parse overlay filter data: %w: no version 1", ErrFormat)
	}
	w, rest := WOF{Provider: binary.LittleEndian.Uint32(p.Data[4:])}, p.Data[8:]
	switch {
	case w.Provider == WOFProviderFile && len(rest) >= 8:
		w.Algorithm = binary.LittleEndian.Uint32(rest[4:])
	case w.Provider == WOFProviderWIM && len(rest) >= 36:
		w.Source = binary.LittleEndian.Uint64(rest[8:])
		copy(w.Hash[:], rest[16:])
	default:
		return WOF{}, fmt.Errorf("parse overlay filter data: %w: provider %d with %d bytes", ErrFormat, w.Provider, len(rest))
	}
	return w, nil
}
