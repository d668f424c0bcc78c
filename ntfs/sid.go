package ntfs

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// SID is a security identifier (MS-DTYP 2.4.2). SIDs compare with ==; the zero
// SID is none.
type SID struct {
	b string // the binary form
}

const (
	sidHeader    = 8
	maxSubs      = 15
	maxAuthority = 1<<48 - 1
)

// NewSID returns the SID S-1-authority-sub-…. It panics if the authority has
// more than 48 bits or there are more than 15 subauthorities: it is for SIDs
// that the program knows.
func NewSID(authority uint64, subs ...uint32) SID {
	if authority > maxAuthority || len(subs) > maxSubs {
		panic("ntfs: SID out of range")
	}
	b := make([]byte, sidHeader, sidHeader+4*len(subs))
	binary.BigEndian.PutUint64(b, authority)
	b[0], b[1] = 1, byte(len(subs))
	for _, s := range subs {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return SID{string(b)}
}

// DecodeSID reads the binary SID that b starts with; Len says how long it is.
func DecodeSID(b []byte) (SID, error) {
	if len(b) < sidHeader || b[0] != 1 || b[1] > maxSubs || len(b) < sidHeader+4*int(b[1]) {
		return SID{}, fmt.Errorf("decode SID: %w: %.8x", ErrFormat, b)
	}
	return SID{string(b[:sidHeader+4*int(b[1])])}, nil
}

// IsZero reports whether s is no SID.
func (s SID) IsZero() bool { return s.b == "" }

// Len returns the length of the binary form.
func (s SID) Len() int { return len(s.b) }

// Append adds the binary form to b.
func (s SID) Append(b []byte) []byte { return append(b, s.b...) }

// Authority returns the identifier authority, 5 for Windows' own.
func (s SID) Authority() uint64 {
	if s.IsZero() {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(s.b)) & maxAuthority
}

// Subs returns the subauthorities.
func (s SID) Subs() []uint32 {
	var subs []uint32
	for i := sidHeader; i < len(s.b); i += 4 {
		subs = append(subs, binary.LittleEndian.Uint32([]byte(s.b[i:i+4])))
	}
	return subs
}

// String returns S-1-…, with authorities of more than 32 bits in hexadecimal;
// "" for no SID.
func (s SID) String() string {
	if s.IsZero() {
		return ""
	}
	b := []byte("S-1-")
	if a := s.Authority(); a < 1<<32 {
		b = strconv.AppendUint(b, a, 10)
	} else {
		b = fmt.Appendf(b, "0x%012x", a)
	}
	for _, sub := range s.Subs() {
		b = strconv.AppendUint(append(b, '-'), uint64(sub), 10)
	}
	return string(b)
}

// ParseSID reads S-1-…; numbers are decimal, or hexadecimal after "0x".
func ParseSID(text string) (SID, error) {
	parts := strings.Split(text, "-")
	if len(parts) < 3 || len(parts) > 3+maxSubs || !strings.EqualFold(parts[0], "S") || parts[1] != "1" {
		return SID{}, fmt.Errorf("parse SID %q: %w", text, ErrSyntax)
	}
	authority, err := parseNumber(parts[2], 48)
	if err != nil {
		return SID{}, fmt.Errorf("parse SID %q: authority: %w", text, err)
	}
	subs := make([]uint32, len(parts)-3)
	for i, part := range parts[3:] {
		sub, err := parseNumber(part, 32)
		if err != nil {
			return SID{}, fmt.Errorf("parse SID %q: subauthority %d: %w", text, i+1, err)
		}
		subs[i] = uint32(sub)
	}
	return NewSID(authority, subs...), nil
}

// parseNumber reads an unsigned number, decimal or hexadecimal after "0x".
func parseNumber(text string, bits int) (uint64, error) {
	digits, base := text, 10
	if len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' {
		digits, base = text[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, bits)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is no number of %d bits", ErrSyntax, text, bits)
	}
	return n, nil
}

// The names that SIDs of containers have; no SDDL alias stands for them.
var containerSIDs = map[SID]string{
	NewSID(5, 93, 2, 1): "ContainerAdministrator",
	NewSID(5, 93, 2, 2): "ContainerUser",
	NewSID(5, 80, 956008885, 3418522649, 1831038044, 1853292631, 2271478464): "TrustedInstaller",
}

// Name returns the account's name for people, "" if it is not one of those
// that containers' files belong to.
func (s SID) Name() string { return containerSIDs[s] }

// aliases are SDDL's names of SIDs (MS-DTYP 2.5.1.1, and sddl.h of the Windows
// SDK for those that came later).
var aliases = map[string]SID{
	"CO": NewSID(3, 0), "CG": NewSID(3, 1), "OW": NewSID(3, 4), "WD": NewSID(1, 0),
	"NU": NewSID(5, 2), "IU": NewSID(5, 4), "SU": NewSID(5, 6), "AN": NewSID(5, 7), "ED": NewSID(5, 9),
	"PS": NewSID(5, 10), "AU": NewSID(5, 11), "RC": NewSID(5, 12), "SY": NewSID(5, 18), "LS": NewSID(5, 19),
	"NS": NewSID(5, 20), "WR": NewSID(5, 33), "UD": NewSID(5, 84, 0, 0, 0, 0, 0),
	"BA": builtin(544), "BU": builtin(545), "BG": builtin(546), "PU": builtin(547), "AO": builtin(548),
	"SO": builtin(549), "PO": builtin(550), "BO": builtin(551), "RE": builtin(552), "RU": builtin(554),
	"RD": builtin(555), "NO": builtin(556), "MU": builtin(558), "LU": builtin(559), "IS": builtin(568),
	"CY": builtin(569), "ER": builtin(573), "CD": builtin(574), "RA": builtin(575), "ES": builtin(576),
	"MS": builtin(577), "HA": builtin(578), "AA": builtin(579), "RM": builtin(580), "HO": builtin(584),
	"LW": NewSID(16, 4096), "ME": NewSID(16, 8192), "MP": NewSID(16, 8448), "HI": NewSID(16, 12288), "SI": NewSID(16, 16384),
	"AC": NewSID(15, 2, 1), "AS": NewSID(18, 1), "SS": NewSID(18, 2),
}

// domainAliases are those whose SID is a domain's or machine's with one more
// subauthority.
var domainAliases = map[string]uint32{
	"RO": 498, "LA": 500, "LG": 501, "DA": 512, "DU": 513, "DG": 514, "DC": 515, "DD": 516, "CA": 517, "SA": 518,
	"EA": 519, "PA": 520, "CN": 522, "AP": 525, "KA": 526, "EK": 527, "RS": 553,
}

var aliasOf = func() map[SID]string {
	m := make(map[SID]string, len(aliases))
	for name, sid := range aliases {
		m[sid] = name
	}
	return m
}()

func builtin(group uint32) SID { return NewSID(5, 32, group) }
