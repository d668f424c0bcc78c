package ntfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
)

// Control are the bits of a security descriptor's control word (MS-DTYP
// 2.4.6).
type Control uint16

// The control bits.
const (
	OwnerDefaulted     Control = 0x1
	GroupDefaulted     Control = 0x2
	DACLPresent        Control = 0x4
	DACLDefaulted      Control = 0x8
	SACLPresent        Control = 0x10
	SACLDefaulted      Control = 0x20
	DACLTrusted        Control = 0x40
	ServerSecurity     Control = 0x80
	DACLAutoInheritReq Control = 0x100
	SACLAutoInheritReq Control = 0x200
	DACLAutoInherited  Control = 0x400
	SACLAutoInherited  Control = 0x800
	DACLProtected      Control = 0x1000
	SACLProtected      Control = 0x2000
	RMControlValid     Control = 0x4000
	SelfRelative       Control = 0x8000
)

// SecurityDescriptor is a security descriptor taken apart.
//
// One that came from ParseSecurityDescriptor and was not changed appends as
// the bytes it was parsed from, whatever the order of its parts and the gaps
// between them.
type SecurityDescriptor struct {
	Control         Control
	ResourceManager byte // meaningful with RMControlValid
	Owner, Group    SID  // zero if there is none

	// DACL and SACL count where Control has DACLPresent and SACLPresent; nil
	// then is a null ACL, which in case of the DACL allows everything.
	DACL, SACL *ACL

	raw []byte // as parsed
}

// ACL is a list of access control entries (MS-DTYP 2.4.5).
type ACL struct {
	Revision byte // 2, or 4 if it has object entries; 0 lets Append choose
	ACEs     []ACE
}

// ACE is an access control entry (MS-DTYP 2.4.4).
type ACE struct {
	Type  ACEType
	Flags ACEFlags
	Mask  uint32
	SID   SID

	// Object ACEs alone have these; ObjectFlags says which GUIDs there are.
	ObjectFlags         ObjectFlags
	ObjectType          GUID
	InheritedObjectType GUID

	// Data is what follows the SID: the condition of a callback ACE
	// (ConditionText), the claim of a resource attribute ACE (ClaimText); of
	// unknown types all that follows the 4 bytes of their header.
	Data []byte
}

// ACEType says what an ACE does.
type ACEType byte

// The types of ACE.
const (
	AccessAllowed               ACEType = 0x0
	AccessDenied                ACEType = 0x1
	SystemAudit                 ACEType = 0x2
	SystemAlarm                 ACEType = 0x3
	AccessAllowedCompound       ACEType = 0x4
	AccessAllowedObject         ACEType = 0x5
	AccessDeniedObject          ACEType = 0x6
	SystemAuditObject           ACEType = 0x7
	SystemAlarmObject           ACEType = 0x8
	AccessAllowedCallback       ACEType = 0x9
	AccessDeniedCallback        ACEType = 0xA
	AccessAllowedCallbackObject ACEType = 0xB
	AccessDeniedCallbackObject  ACEType = 0xC
	SystemAuditCallback         ACEType = 0xD
	SystemAlarmCallback         ACEType = 0xE
	SystemAuditCallbackObject   ACEType = 0xF
	SystemAlarmCallbackObject   ACEType = 0x10
	MandatoryLabel              ACEType = 0x11
	ResourceAttribute           ACEType = 0x12
	ScopedPolicy                ACEType = 0x13
	ProcessTrustLabel           ACEType = 0x14
	AccessFilter                ACEType = 0x15
)

// ACEFlags say how an ACE is inherited and when it audits.
type ACEFlags byte

// The flags of ACEs.
const (
	ObjectInherit    ACEFlags = 0x1
	ContainerInherit ACEFlags = 0x2
	NoPropagate      ACEFlags = 0x4
	InheritOnly      ACEFlags = 0x8
	Inherited        ACEFlags = 0x10
	Critical         ACEFlags = 0x20 // of allowing ACEs
	SuccessfulAccess ACEFlags = 0x40 // of audits; "trust protected" of access filters
	FailedAccess     ACEFlags = 0x80

	inheritFlags = ObjectInherit | ContainerInherit | NoPropagate | InheritOnly
)

// ObjectFlags say which GUIDs an object ACE has.
type ObjectFlags uint32

// The flags of object ACEs.
const (
	HasObjectType          ObjectFlags = 1
	HasInheritedObjectType ObjectFlags = 2
)

// Object reports whether ACEs of the type have object flags and GUIDs.
func (t ACEType) Object() bool {
	return t >= AccessAllowedObject && t <= SystemAlarmObject ||
		t == AccessAllowedCallbackObject || t == AccessDeniedCallbackObject ||
		t == SystemAuditCallbackObject || t == SystemAlarmCallbackObject
}

// Callback reports whether ACEs of the type have a condition.
func (t ACEType) Callback() bool {
	return t >= AccessAllowedCallback && t <= SystemAlarmCallbackObject || t == AccessFilter
}

// known reports whether the layout of the type is known: mask and SID.
func (t ACEType) known() bool { return t <= AccessFilter && t != AccessAllowedCompound }

const (
	sdHeader  = 20
	aclHeader = 8
	aceHeader = 4
)

// ParseSecurityDescriptor takes a self-relative security descriptor apart. Its
// parts may lie in any order with gaps between them, but not over one another
// or over the header: that is ErrFormat, as are offsets that lead outside.
// Offsets of ACLs that the control word calls absent are not followed.
func ParseSecurityDescriptor(b []byte) (*SecurityDescriptor, error) {
	d, err := parseSecurityDescriptor(b)
	if err != nil {
		return nil, fmt.Errorf("parse security descriptor: %w", err)
	}
	d.raw = bytes.Clone(b)
	return d, nil
}

func parseSecurityDescriptor(b []byte) (*SecurityDescriptor, error) {
	if len(b) < sdHeader || b[0] != 1 {
		return nil, fmt.Errorf("%w: no header of revision 1 in %d bytes", ErrFormat, len(b))
	}
	d := &SecurityDescriptor{Control: Control(binary.LittleEndian.Uint16(b[2:])), ResourceManager: b[1]}
	if d.Control&SelfRelative == 0 {
		return nil, fmt.Errorf("%w: it is not self-relative", ErrFormat)
	}
	parts := parts{b: b, used: make([]Extent, 0, 4)}
	d.Owner = parts.sid("owner", 4)
	d.Group = parts.sid("group", 8)
	if d.Control&SACLPresent != 0 {
		d.SACL = parts.acl("SACL", 12)
	}
	if d.Control&DACLPresent != 0 {
		d.DACL = parts.acl("DACL", 16)
	}
	return d, parts.err
}

// parts reads the parts of a descriptor and keeps them apart.
type parts struct {
	b    []byte
	used []Extent
	err  error
}

// at returns the bytes from the offset that is at field, nil if it is zero.
func (p *parts) at(what string, field int) (int, []byte) {
	offset := binary.LittleEndian.Uint32(p.b[field:])
	if p.err != nil || offset == 0 {
		return 0, nil
	}
	if offset < sdHeader || int64(offset) >= int64(len(p.b)) {
		p.err = fmt.Errorf("%s at offset %d: %w: outside of %d to %d", what, offset, ErrFormat, sdHeader, len(p.b))
		return 0, nil
	}
	return int(offset), p.b[offset:]
}

func (p *parts) use(what string, offset, size int, err error) {
	x := Extent{int64(offset), int64(size)}
	switch {
	case err != nil:
		p.err = fmt.Errorf("%s at offset %d: %w", what, offset, err)
	case slices.ContainsFunc(p.used, func(u Extent) bool { return x.Offset < u.Offset+u.Length && u.Offset < x.Offset+x.Length }):
		p.err = fmt.Errorf("%s at offset %d: %w: it overlaps another part", what, offset, ErrFormat)
	}
	p.used = append(p.used, x)
}

func (p *parts) sid(what string, field int) SID {
	offset, b := p.at(what, field)
	if b == nil {
		return SID{}
	}
	s, err := DecodeSID(b)
	p.use(what, offset, s.Len(), err)
	return s
}

func (p *parts) acl(what string, field int) *ACL {
	offset, b := p.at(what, field)
	if b == nil {
		return nil
	}
	l, size, err := parseACL(b)
	p.use(what, offset, size, err)
	return l
}

func parseACL(b []byte) (*ACL, int, error) {
	if len(b) < aclHeader || b[0] < 2 || b[0] > 4 {
		return nil, 0, fmt.Errorf("%w: no ACL of revision 2 to 4", ErrFormat)
	}
	size, count := int(binary.LittleEndian.Uint16(b[2:])), int(binary.LittleEndian.Uint16(b[4:]))
	if size < aclHeader || size > len(b) || count > (size-aclHeader)/aceHeader {
		return nil, 0, fmt.Errorf("%w: an ACL of %d bytes with %d entries", ErrFormat, size, count)
	}
	l := &ACL{Revision: b[0], ACEs: make([]ACE, count)}
	at := aclHeader
	for i := range l.ACEs {
		n, err := l.ACEs[i].parse(b[at:size])
		if err != nil {
			return nil, 0, fmt.Errorf("entry %d at %d of the ACL: %w", i, at, err)
		}
		at += n
	}
	return l, size, nil
}

// parse reads the ACE that b starts with and returns its length.
func (a *ACE) parse(b []byte) (int, error) {
	if len(b) < aceHeader {
		return 0, fmt.Errorf("%w: %d bytes are left", ErrFormat, len(b))
	}
	size := int(binary.LittleEndian.Uint16(b[2:]))
	if size < aceHeader || size > len(b) || size%4 != 0 {
		return 0, fmt.Errorf("%w: %d bytes where %d are left", ErrFormat, size, len(b))
	}
	a.Type, a.Flags = ACEType(b[0]), ACEFlags(b[1])
	body := b[aceHeader:size]
	if !a.Type.known() {
		a.Data = bytes.Clone(body)
		return size, nil
	}
	r := cursor{b: body}
	a.Mask = r.uint32()
	if a.Type.Object() {
		a.ObjectFlags = ObjectFlags(r.uint32())
		if a.ObjectFlags&HasObjectType != 0 {
			copy(a.ObjectType[:], r.take(len(GUID{})))
		}
		if a.ObjectFlags&HasInheritedObjectType != 0 {
			copy(a.InheritedObjectType[:], r.take(len(GUID{})))
		}
	}
	if r.short {
		return 0, fmt.Errorf("%w: %d bytes are too few", ErrFormat, size)
	}
	sid, err := DecodeSID(r.b)
	if err != nil {
		return 0, err
	}
	a.SID = sid
	if rest := r.b[sid.Len():]; len(rest) > 0 {
		a.Data = bytes.Clone(rest)
	}
	return size, nil
}

// A cursor takes little-endian values off bytes; short says that there were
// too few.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.short, c.b = true, nil
		return nil
	}
	taken := c.b[:n:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Append adds the self-relative form to b: as parsed if it was not changed,
// else header, owner, group, SACL, DACL.
func (d *SecurityDescriptor) Append(b []byte) ([]byte, error) {
	if d.unchanged() {
		return append(b, d.raw...), nil
	}
	start := len(b)
	var header [sdHeader]byte
	header[0], header[1] = 1, d.ResourceManager
	binary.LittleEndian.PutUint16(header[2:], uint16(d.Control|SelfRelative))
	b = append(b, header[:]...)
	place := func(field, from int) {
		if len(b) > from {
			binary.LittleEndian.PutUint32(b[start+field:], uint32(from-start))
		}
	}
	from := len(b)
	b = d.Owner.Append(b)
	place(4, from)
	from = len(b)
	b = d.Group.Append(b)
	place(8, from)
	for _, part := range []struct {
		name    string
		list    *ACL
		present Control
		field   int
	}{
		{"SACL", d.SACL, SACLPresent, 12}, {"DACL", d.DACL, DACLPresent, 16},
	} {
		if d.Control&part.present == 0 || part.list == nil {
			continue
		}
		from = len(b)
		var err error
		if b, err = part.list.append(b); err != nil {
			return nil, fmt.Errorf("encode security descriptor: %s: %w", part.name, err)
		}
		place(part.field, from)
	}
	return b, nil
}

// unchanged reports whether d is still what its bytes say.
func (d *SecurityDescriptor) unchanged() bool {
	if d.raw == nil {
		return false
	}
	was, err := parseSecurityDescriptor(d.raw)
	if err != nil {
		return false
	}
	was.raw = d.raw
	return reflect.DeepEqual(was, d)
}

func (l *ACL) append(b []byte) ([]byte, error) {
	start := len(b)
	revision := l.Revision
	if revision == 0 {
		revision = 2
		if slices.ContainsFunc(l.ACEs, func(a ACE) bool { return a.Type.Object() }) {
			revision = 4
		}
	}
	b = append(b, revision, 0, 0, 0, 0, 0, 0, 0)
	for i := range l.ACEs {
		var err error
		if b, err = l.ACEs[i].append(b); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	size := len(b) - start
	if size > math.MaxUint16 {
		return nil, fmt.Errorf("%w: %d bytes of entries", ErrRange, size)
	}
	binary.LittleEndian.PutUint16(b[start+2:], uint16(size))
	binary.LittleEndian.PutUint16(b[start+4:], uint16(len(l.ACEs)))
	return b, nil
}

func (a *ACE) append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, byte(a.Type), byte(a.Flags), 0, 0)
	if a.Type.known() {
		if a.SID.IsZero() {
			return nil, fmt.Errorf("%w: no SID", ErrRange)
		}
		b = binary.LittleEndian.AppendUint32(b, a.Mask)
		b = a.appendObject(b)
		b = a.SID.Append(b)
	}
	b = append(b, a.Data...)
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	if len(b)-start > math.MaxUint16 {
		return nil, fmt.Errorf("%w: %d bytes", ErrRange, len(b)-start)
	}
	binary.LittleEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b, nil
}

func (a *ACE) appendObject(b []byte) []byte {
	if !a.Type.Object() {
		return b
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(a.ObjectFlags))
	if a.ObjectFlags&HasObjectType != 0 {
		b = append(b, a.ObjectType[:]...)
	}
	if a.ObjectFlags&HasInheritedObjectType != 0 {
		b = append(b, a.InheritedObjectType[:]...)
	}
	return b
}
