package ntfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// The types of a claim's values and their SDDL names (MS-DTYP 2.4.10.1).
const (
	claimInt64  = 1
	claimUint64 = 2
	claimString = 3
	claimSID    = 5
	claimBool   = 6
	claimOctets = 16
)

var claimTypes = map[uint16]string{
	claimInt64: "TI", claimUint64: "TU", claimString: "TS", claimSID: "TD", claimBool: "TB", claimOctets: "TX",
}

const claimHeader = 16

// ClaimText prints a resource attribute, the data of a ResourceAttribute ACE
// (CLAIM_SECURITY_ATTRIBUTE_RELATIVE_V1), as SDDL: ("name",TS,0,"value",…).
func (m Domain) ClaimText(data []byte) (string, error) {
	c := cursor{b: data}
	name, kind, _ := c.uint32(), c.uint16(), c.uint16()
	flags, count := c.uint32(), c.uint32()
	if c.short || int64(count) > int64(len(c.b)/4) {
		return "", fmt.Errorf("print claim: %w: %d values in %d bytes", ErrFormat, count, len(data))
	}
	if claimTypes[kind] == "" {
		return "", fmt.Errorf("print claim: %w: values of type %d", ErrUnsupported, kind)
	}
	text, err := claimStringAt(data, name)
	if err != nil {
		return "", fmt.Errorf("print claim: name: %w", err)
	}
	b := fmt.Appendf(nil, `(%s,%s,%#x`, text, claimTypes[kind], flags)
	for i := range count {
		value, err := m.claimValue(data, kind, c.uint32())
		if err != nil {
			return "", fmt.Errorf("print claim: value %d: %w", i, err)
		}
		// Values may share their bytes: without a bound 64 KiB would print as gigabytes.
		if b = append(append(b, ','), value...); len(b) > 1<<20 {
			return "", fmt.Errorf("print claim: %w: values that overlap", ErrFormat)
		}
	}
	return string(append(b, ')')), nil
}

// claimStringAt returns the NUL-terminated string at offset, in quotes.
func claimStringAt(data []byte, offset uint32) (string, error) {
	if int64(offset) >= int64(len(data)) {
		return "", fmt.Errorf("%w: offset %d of %d", ErrFormat, offset, len(data))
	}
	for i := int(offset); i+1 < len(data); i += 2 {
		if data[i] == 0 && data[i+1] == 0 {
			return quote(DecodeUTF16(data[offset:i]))
		}
	}
	return "", fmt.Errorf("%w: the string at %d does not end", ErrFormat, offset)
}

// quote puts text between quotation marks; SDDL cannot hold those inside, nor
// NUL.
func quote(text string) (string, error) {
	if strings.ContainsAny(text, "\"\x00") {
		return "", fmt.Errorf("%w: a quotation mark or NUL in a string", ErrUnsupported)
	}
	return `"` + text + `"`, nil
}

func (m Domain) claimValue(data []byte, kind uint16, offset uint32) (string, error) {
	if kind == claimString {
		return claimStringAt(data, offset)
	}
	c := cursor{b: data}
	c.take(int(min(int64(offset), int64(len(data)))))
	switch kind {
	case claimSID, claimOctets:
		octets := c.take(int(min(int64(c.uint32()), int64(len(data)+1))))
		if c.short {
			return "", fmt.Errorf("%w: offset %d of %d", ErrFormat, offset, len(data))
		}
		if kind == claimOctets {
			return "#" + hex.EncodeToString(octets), nil
		}
		s, err := DecodeSID(octets)
		return m.sidText(s), err
	}
	low, high := c.uint32(), c.uint32()
	if c.short {
		return "", fmt.Errorf("%w: offset %d of %d", ErrFormat, offset, len(data))
	}
	n := uint64(high)<<32 | uint64(low)
	if kind == claimInt64 {
		return strconv.FormatInt(int64(n), 10), nil
	}
	return strconv.FormatUint(n, 10), nil
}

// claim reads a claim and returns its binary form: header, offsets, name,
// values, each at a multiple of 4.
func (p *sddlParser) claim() ([]byte, error) {
	if !p.eat("(") {
		return nil, p.fail("want a claim in parentheses")
	}
	name, err := p.quoted()
	if err != nil {
		return nil, err
	}
	if !p.eat(",") {
		return nil, p.fail("want a comma")
	}
	typeName, kind := p.until(",)"), uint16(0)
	for k, n := range claimTypes {
		if strings.EqualFold(n, typeName) {
			kind = k
		}
	}
	if kind == 0 || !p.eat(",") {
		return nil, p.fail("want a type of claim, not %q", typeName)
	}
	flags, err := parseNumber(p.until(",)"), 32)
	if err != nil {
		return nil, p.fail("want the claim's flags")
	}
	var values [][]byte
	for p.eat(",") {
		value, err := p.claimValue(kind)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	if !p.eat(")") {
		return nil, p.fail("want the end of a claim")
	}
	return layOutClaim(name, kind, uint32(flags), values), nil
}

func layOutClaim(name string, kind uint16, flags uint32, values [][]byte) []byte {
	parts := append([][]byte{append(AppendUTF16(nil, name), 0, 0)}, values...)
	offset := uint32(claimHeader + 4*len(values))
	offsets := make([]uint32, len(parts))
	var body []byte
	for i, part := range parts {
		offsets[i] = offset + uint32(len(body))
		body = append(body, part...)
		body = append(body, make([]byte, -len(body)&3)...)
	}
	b := binary.LittleEndian.AppendUint32(nil, offsets[0])
	b = binary.LittleEndian.AppendUint32(b, uint32(kind))
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(values)))
	for _, o := range offsets[1:] {
		b = binary.LittleEndian.AppendUint32(b, o)
	}
	return append(b, body...)
}

// quoted reads a string between quotation marks.
func (p *sddlParser) quoted() (string, error) {
	if !p.eat(`"`) {
		return "", p.fail("want a quotation mark")
	}
	text, _, ok := strings.Cut(p.rest(), `"`)
	if !ok || strings.IndexByte(text, 0) >= 0 {
		return "", p.fail("the string does not end")
	}
	p.at += len(text) + 1
	return text, nil
}

func (p *sddlParser) claimValue(kind uint16) ([]byte, error) {
	sized := func(b []byte) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	switch kind {
	case claimString:
		text, err := p.quoted()
		return append(AppendUTF16(nil, text), 0, 0), err
	case claimSID:
		wrapped := p.eat("SID(")
		s, err := p.sid()
		if err == nil && wrapped && !p.eat(")") {
			err = p.fail("want the end of SID(")
		}
		return sized(s.Append(nil)), err
	}
	text := p.until(",)")
	switch kind {
	case claimOctets:
		b, err := hex.DecodeString(strings.TrimPrefix(text, "#"))
		if err != nil {
			return nil, p.fail("want hexadecimal digits, not %q", text)
		}
		return bytes.Clone(sized(b)), nil
	case claimInt64:
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			return nil, p.fail("want a number, not %q", text)
		}
		return binary.LittleEndian.AppendUint64(nil, uint64(n)), nil
	}
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil || kind == claimBool && n > 1 {
		return nil, p.fail("want a number, not %q", text)
	}
	return binary.LittleEndian.AppendUint64(nil, n), nil
}
