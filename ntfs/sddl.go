package ntfs

import (
	"fmt"
	"slices"
	"strings"
)

// Domain gives meaning to SDDL's names of accounts that every domain or
// machine has of its own ("DA", "LA"…): the SID that they are below. With the
// zero Domain they are refused in text, and printed as S-1-…
type Domain struct {
	SID SID // S-1-5-21-a-b-c
}

// ParseSDDL is Domain.ParseSDDL without a domain.
func ParseSDDL(text string) (*SecurityDescriptor, error) { return Domain{}.ParseSDDL(text) }

// SDDL is Domain.SDDL without a domain.
func (d *SecurityDescriptor) SDDL() (string, error) { return Domain{}.SDDL(d) }

// aceTypes are SDDL's names of the types of ACE. MS-DTYP 2.5.1.1 has none for
// ZD, XL, ZU and ZL: Windows does not read these.
var aceTypes = []struct {
	name string
	t    ACEType
}{
	{"A", AccessAllowed},
	{"D", AccessDenied},
	{"AU", SystemAudit},
	{"AL", SystemAlarm},
	{"OA", AccessAllowedObject},
	{"OD", AccessDeniedObject},
	{"OU", SystemAuditObject},
	{"OL", SystemAlarmObject},
	{"XA", AccessAllowedCallback},
	{"XD", AccessDeniedCallback},
	{"ZA", AccessAllowedCallbackObject},
	{"ZD", AccessDeniedCallbackObject},
	{"XU", SystemAuditCallback},
	{"XL", SystemAlarmCallback},
	{"ZU", SystemAuditCallbackObject},
	{"ZL", SystemAlarmCallbackObject},
	{"ML", MandatoryLabel},
	{"RA", ResourceAttribute},
	{"SP", ScopedPolicy},
	{"TL", ProcessTrustLabel},
	{"FL", AccessFilter},
}

type named struct {
	name string
	bits uint32
}

// The order of each table is that in which Windows prints the names.
var (
	aceFlagNames = []named{
		{"OI", 1}, {"CI", 2}, {"NP", 4}, {"IO", 8}, {"ID", 0x10}, {"CR", 0x20}, {"SA", 0x40}, {"FA", 0x80}, {"TP", 0x40},
	}
	wholeRights = []named{ // printed only where they are all of the mask
		{"FA", 0x1F01FF},
		{"FR", 0x120089},
		{"FW", 0x120116},
		{"FX", 0x1200A0},
		{"KA", 0xF003F},
		{"KR", 0x20019},
		{"KW", 0x20006},
		{"KX", 0x20019},
	}
	singleRights = []named{
		{"CC", 1},
		{"DC", 2},
		{"LC", 4},
		{"SW", 8},
		{"RP", 0x10},
		{"WP", 0x20},
		{"DT", 0x40},
		{"LO", 0x80},
		{"CR", 0x100},
		{"SD", 0x10000},
		{"RC", 0x20000},
		{"WD", 0x40000},
		{"WO", 0x80000},
		{"GA", 0x10000000},
		{"GX", 0x20000000},
		{"GW", 0x40000000},
		{"GR", 0x80000000},
	}
	labelRights = []named{{"NW", 1}, {"NR", 2}, {"NX", 4}}
)

// joinNames prints bits by the table's names, and returns what has none.
func joinNames(bits uint32, table []named) (string, uint32) {
	var b strings.Builder
	for _, n := range table {
		if bits&n.bits == n.bits {
			b.WriteString(n.name)
			bits &^= n.bits
		}
	}
	return b.String(), bits
}

// splitNames reads names of two letters written together.
func splitNames(text string, tables ...[]named) (uint32, error) {
	bits := uint32(0)
	for rest := text; rest != ""; rest = rest[2:] {
		found := false
		for _, table := range tables {
			i := slices.IndexFunc(table, func(n named) bool { return len(rest) >= 2 && strings.EqualFold(rest[:2], n.name) })
			if found = i >= 0; found {
				bits |= table[i].bits
				break
			}
		}
		if !found {
			return 0, fmt.Errorf("%w: %q", ErrSyntax, rest)
		}
	}
	return bits, nil
}

// SDDL returns the descriptor in the security descriptor definition language,
// owner, group, DACL, SACL, as Windows writes it. Control bits that the
// language has no letters for are left out; ACEs that it has none for are
// ErrUnsupported.
func (m Domain) SDDL(d *SecurityDescriptor) (string, error) {
	var b strings.Builder
	if !d.Owner.IsZero() {
		b.WriteString("O:" + m.sidText(d.Owner))
	}
	if !d.Group.IsZero() {
		b.WriteString("G:" + m.sidText(d.Group))
	}
	c := d.Control
	for _, l := range []struct {
		name                      string
		list                      *ACL
		present, p, ar, inherited Control
	}{
		{"D:", d.DACL, DACLPresent, DACLProtected, DACLAutoInheritReq, DACLAutoInherited},
		{"S:", d.SACL, SACLPresent, SACLProtected, SACLAutoInheritReq, SACLAutoInherited},
	} {
		if c&l.present == 0 {
			continue
		}
		b.WriteString(l.name)
		for _, flag := range []struct {
			bit  Control
			text string
		}{{l.p, "P"}, {l.ar, "AR"}, {l.inherited, "AI"}} {
			if c&flag.bit != 0 {
				b.WriteString(flag.text)
			}
		}
		if l.list == nil {
			b.WriteString("NO_ACCESS_CONTROL")
			continue
		}
		for i := range l.list.ACEs {
			if err := m.writeACE(&b, &l.list.ACEs[i]); err != nil {
				return "", fmt.Errorf("print security descriptor: entry %d of %s: %w", i, l.name, err)
			}
		}
	}
	return b.String(), nil
}

func (m Domain) sidText(s SID) string {
	if name, ok := aliasOf[s]; ok {
		return name
	}
	if !m.SID.IsZero() {
		for name, rid := range domainAliases {
			if s == m.SID.below(rid) {
				return name
			}
		}
	}
	return s.String()
}

// below returns the SID with one more subauthority.
func (s SID) below(rid uint32) SID { return NewSID(s.Authority(), append(s.Subs(), rid)...) }

func (m Domain) writeACE(b *strings.Builder, a *ACE) error {
	i := slices.IndexFunc(aceTypes, func(row struct {
		name string
		t    ACEType
	},
	) bool {
		return row.t == a.Type
	})
	if i < 0 {
		return fmt.Errorf("%w: type %#x", ErrUnsupported, byte(a.Type))
	}
	flags, _ := joinNames(uint32(a.Flags), aceFlagNames)
	if a.Type == AccessFilter {
		flags = strings.Replace(flags, "SA", "TP", 1)
	}
	fmt.Fprintf(b, "(%s;%s;%s;", aceTypes[i].name, flags, rightsText(a))
	if a.ObjectFlags&HasObjectType != 0 {
		b.WriteString(a.ObjectType.String())
	}
	b.WriteByte(';')
	if a.ObjectFlags&HasInheritedObjectType != 0 {
		b.WriteString(a.InheritedObjectType.String())
	}
	b.WriteString(";" + m.sidText(a.SID))
	text, err := m.dataText(a)
	if err != nil {
		return err
	}
	if text != "" {
		b.WriteString(";" + text)
	}
	b.WriteByte(')')
	return nil
}

func (m Domain) dataText(a *ACE) (string, error) {
	switch {
	case a.Type == ResourceAttribute:
		return m.ClaimText(a.Data)
	case a.Type.Callback() && len(a.Data) > 0:
		return m.ConditionText(a.Data)
	case len(a.Data) > 0:
		return "", fmt.Errorf("%w: %d bytes after the SID", ErrUnsupported, len(a.Data))
	}
	return "", nil
}

func rightsText(a *ACE) string {
	if a.Mask == 0 {
		return ""
	}
	table := singleRights
	if a.Type == MandatoryLabel {
		table = labelRights
	} else if i := slices.IndexFunc(wholeRights, func(n named) bool { return n.bits == a.Mask }); i >= 0 {
		return wholeRights[i].name
	}
	if text, rest := joinNames(a.Mask, table); rest == 0 {
		return text
	}
	return fmt.Sprintf("%#x", a.Mask)
}

// ParseSDDL reads a security descriptor in the security descriptor definition
// language (MS-DTYP 2.5.1.1): owner, group, DACL and SACL, each at most once,
// in any order.
func (m Domain) ParseSDDL(text string) (*SecurityDescriptor, error) {
	d := &SecurityDescriptor{Control: SelfRelative}
	p := &sddlParser{text: text, names: m}
	seen := ""
	for p.space(); p.at < len(text); p.space() {
		part := p.until(":")
		if len(part) != 1 || strings.Contains(seen, strings.ToUpper(part)) || !p.eat(":") {
			return nil, p.fail("want one each of O:, G:, D: and S:")
		}
		seen += strings.ToUpper(part)
		var err error
		switch strings.ToUpper(part) {
		case "O":
			d.Owner, err = p.sid()
		case "G":
			d.Group, err = p.sid()
		case "D":
			d.DACL, err = p.acl(&d.Control, DACLPresent, DACLProtected, DACLAutoInheritReq, DACLAutoInherited)
		case "S":
			d.SACL, err = p.acl(&d.Control, SACLPresent, SACLProtected, SACLAutoInheritReq, SACLAutoInherited)
		default:
			err = p.fail("want O:, G:, D: or S:")
		}
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// An sddlParser reads text from offset at.
type sddlParser struct {
	text  string
	at    int
	names Domain
	depth int
}

func (p *sddlParser) fail(format string, args ...any) error {
	return fmt.Errorf("parse SDDL at offset %d: %w: %s", p.at, ErrSyntax, fmt.Sprintf(format, args...))
}

func (p *sddlParser) rest() string { return p.text[p.at:] }

func (p *sddlParser) space() {
	p.at = len(p.text) - len(strings.TrimLeft(p.rest(), " \t\r\n"))
}

// eat moves over token, in whatever case, after white space if it is there.
func (p *sddlParser) eat(token string) bool {
	p.space()
	if rest := p.rest(); len(rest) >= len(token) && strings.EqualFold(rest[:len(token)], token) {
		p.at += len(token)
		return true
	}
	return false
}

// until returns the text before the first of the bytes in stops, or all.
func (p *sddlParser) until(stops string) string {
	p.space()
	rest := p.rest()
	if i := strings.IndexAny(rest, stops); i >= 0 {
		rest = rest[:i]
	}
	p.at += len(rest)
	return strings.TrimRight(rest, " \t\r\n")
}

// sid reads an alias or S-1-…
func (p *sddlParser) sid() (SID, error) {
	p.space()
	rest := p.rest()
	n := 2
	if len(rest) > 2 && strings.EqualFold(rest[:2], "S-") {
		for n < len(rest) && (rest[n] == '-' || isAlnum(rest[n])) {
			n++
		}
		// "D:" and "S:" follow without a space, and are hexadecimal digits or not.
		if n < len(rest) && rest[n] == ':' {
			n--
		}
	}
	if len(rest) < n {
		return SID{}, p.fail("want a SID")
	}
	s, err := p.names.parseSID(rest[:n])
	if err != nil {
		return SID{}, p.fail("%v", err)
	}
	p.at += n
	return s, nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func (m Domain) parseSID(text string) (SID, error) {
	name := strings.ToUpper(text)
	if s, ok := aliases[name]; ok {
		return s, nil
	}
	rid, ok := domainAliases[name]
	switch {
	case !ok:
		return ParseSID(text)
	case m.SID.IsZero() || len(m.SID.Subs()) == maxSubs:
		return SID{}, fmt.Errorf("%w: alias %s without a domain", ErrUnsupported, name)
	}
	return m.SID.below(rid), nil
}

func (p *sddlParser) acl(c *Control, present, protected, request, inherited Control) (*ACL, error) {
	*c |= present
	for {
		switch {
		case p.eat("NO_ACCESS_CONTROL"):
			return nil, nil
		case p.eat("P"):
			*c |= protected
		case p.eat("AR"):
			*c |= request
		case p.eat("AI"):
			*c |= inherited
		default:
			return p.aces()
		}
	}
}

func (p *sddlParser) aces() (*ACL, error) {
	l := &ACL{Revision: 2}
	for p.eat("(") {
		a, err := p.ace()
		if err != nil {
			return nil, err
		}
		if a.Type.Object() {
			l.Revision = 4
		}
		l.ACEs = append(l.ACEs, a)
	}
	return l, nil
}

// field reads up to and over the next semicolon.
func (p *sddlParser) field() (string, error) {
	text := p.until(";()")
	if !p.eat(";") {
		return "", p.fail("want a semicolon")
	}
	return text, nil
}

func (p *sddlParser) ace() (a ACE, err error) {
	var fields [5]string
	for i := range fields {
		if fields[i], err = p.field(); err != nil {
			return a, err
		}
	}
	i := slices.IndexFunc(aceTypes, func(row struct {
		name string
		t    ACEType
	},
	) bool {
		return strings.EqualFold(row.name, fields[0])
	})
	if i < 0 {
		return a, p.fail("type %q", fields[0])
	}
	a.Type = aceTypes[i].t
	flags, err := splitNames(fields[1], aceFlagNames)
	if err != nil {
		return a, p.fail("flags %q", fields[1])
	}
	a.Flags = ACEFlags(flags)
	if a.Mask, err = parseRights(fields[2]); err != nil {
		return a, p.fail("rights %q", fields[2])
	}
	if err := p.guids(&a, fields[3], fields[4]); err != nil {
		return a, err
	}
	if a.SID, err = p.sid(); err != nil {
		return a, err
	}
	if p.eat(";") {
		if a.Data, err = p.data(a.Type); err != nil {
			return a, err
		}
	}
	if !p.eat(")") {
		return a, p.fail("want the end of an entry")
	}
	return a, nil
}

func (p *sddlParser) data(t ACEType) ([]byte, error) {
	switch {
	case t == ResourceAttribute:
		return p.claim()
	case t.Callback():
		return p.condition()
	}
	return nil, p.fail("an entry of this type ends with its SID")
}

func (p *sddlParser) guids(a *ACE, object, inherited string) error {
	for _, g := range []struct {
		text string
		to   *GUID
		flag ObjectFlags
	}{
		{object, &a.ObjectType, HasObjectType}, {inherited, &a.InheritedObjectType, HasInheritedObjectType},
	} {
		if g.text == "" {
			continue
		}
		guid, err := ParseGUID(g.text)
		if err != nil || !a.Type.Object() {
			return p.fail("object type %q", g.text)
		}
		*g.to = guid
		a.ObjectFlags |= g.flag
	}
	return nil
}

func parseRights(text string) (uint32, error) {
	if text != "" && text[0] >= '0' && text[0] <= '9' {
		n, err := parseNumber(text, 32)
		return uint32(n), err
	}
	return splitNames(text, singleRights, wholeRights, labelRights)
}
