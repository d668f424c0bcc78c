package ntfs

import "slices"

// GenericMapping says which rights of an object its generic rights stand for.
type GenericMapping struct {
	Read, Write, Execute, All uint32
}

// FileMapping maps the generic rights of files and directories.
var FileMapping = GenericMapping{Read: 0x120089, Write: 0x120116, Execute: 0x1200A0, All: 0x1F01FF}

// Map replaces the generic rights in mask.
func (g GenericMapping) Map(mask uint32) uint32 {
	out := mask &^ 0xF0000000
	for _, m := range []struct{ bit, to uint32 }{
		{0x80000000, g.Read}, {0x40000000, g.Write}, {0x20000000, g.Execute}, {0x10000000, g.All},
	} {
		if mask&m.bit != 0 {
			out |= m.to
		}
	}
	return out
}

// Kind says what a new object is: only a container's entries are inherited
// further.
type Kind int

// The kinds of object.
const (
	Leaf      Kind = iota // a file
	Container             // a directory
)

// Inheritance computes the security descriptor of a new object as MS-DTYP
// 2.5.3.4 has it with automatic inheritance, which is how NTFS does it.
type Inheritance struct {
	Parent  *SecurityDescriptor // nil: nothing is inherited
	Creator *SecurityDescriptor // what the creator asks for; nil: nothing

	// Owner and Group are the creator's own, for a Creator without.
	Owner, Group SID

	// DefaultDACL is the DACL where neither Creator nor Parent gives one; nil
	// leaves the object without, which allows everything.
	DefaultDACL *ACL

	// ObjectTypes are the GUIDs that inherited object entries may be for.
	ObjectTypes []GUID

	// Mapping is FileMapping if it is zero.
	Mapping GenericMapping
}

// For returns the descriptor of a new object of the given kind. Entries that
// come from the parent are marked as inherited and follow those of Creator; a
// protected ACL of Creator takes none.
func (i Inheritance) For(kind Kind) *SecurityDescriptor {
	if i.Mapping == (GenericMapping{}) {
		i.Mapping = FileMapping
	}
	creator, parent := i.Creator, i.Parent
	if creator == nil {
		creator = &SecurityDescriptor{}
	}
	if parent == nil {
		parent = &SecurityDescriptor{}
	}
	if !creator.Owner.IsZero() {
		i.Owner = creator.Owner
	}
	if !creator.Group.IsZero() {
		i.Group = creator.Group
	}
	d := &SecurityDescriptor{Control: SelfRelative, Owner: i.Owner, Group: i.Group}
	i.list(d, kind, DACLPresent, DACLProtected, DACLAutoInherited, &d.DACL, parent.DACL, creator.DACL, creator.Control)
	i.list(d, kind, SACLPresent, SACLProtected, SACLAutoInherited, &d.SACL, parent.SACL, creator.SACL, creator.Control)
	if d.Control&DACLPresent == 0 && i.DefaultDACL != nil {
		d.Control |= DACLPresent
		d.DACL = i.own(i.DefaultDACL, kind)
	}
	return d
}

// list computes one of the two ACLs.
func (i *Inheritance) list(d *SecurityDescriptor, kind Kind, present, protected, auto Control, to **ACL, parent, creator *ACL, asked Control) {
	var inherited []ACE
	if asked&protected == 0 && parent != nil {
		for _, a := range parent.ACEs {
			inherited = append(inherited, i.inherit(a, kind)...)
		}
	}
	if asked&present == 0 && len(inherited) == 0 {
		return
	}
	d.Control |= present | asked&protected
	if asked&protected == 0 {
		d.Control |= auto
	}
	if asked&present != 0 && creator == nil {
		return // a null ACL was asked for
	}
	l := &ACL{}
	if asked&present != 0 {
		l = i.own(creator, kind)
	}
	l.ACEs = append(l.ACEs, inherited...)
	*to = l
}

// own returns the entries of an ACL that was given to the object itself.
func (i *Inheritance) own(given *ACL, kind Kind) *ACL {
	l := &ACL{Revision: given.Revision}
	for _, a := range given.ACEs {
		a.Flags &^= Inherited
		if kind == Leaf {
			if a.Flags&InheritOnly != 0 {
				continue
			}
			a.Flags &^= inheritFlags
		}
		l.ACEs = append(l.ACEs, i.settle(a)...)
	}
	return l
}

// inherit returns what an entry of the parent becomes: nothing, one entry, or
// two, one that is in force and one that is passed on.
func (i *Inheritance) inherit(a ACE, kind Kind) []ACE {
	here, further := a.Flags&ObjectInherit != 0, false
	if kind == Container {
		here = a.Flags&ContainerInherit != 0
		further = a.Flags&NoPropagate == 0 && a.Flags&(ObjectInherit|ContainerInherit) != 0
	}
	if a.ObjectFlags&HasInheritedObjectType != 0 && !slices.Contains(i.ObjectTypes, a.InheritedObjectType) {
		here = false
	}
	if !here && !further {
		return nil
	}
	a.Flags = a.Flags&^InheritOnly | Inherited
	switch {
	case !further:
		a.Flags &^= inheritFlags
	case !here:
		a.Flags |= InheritOnly
	}
	return i.settle(a)
}

// settle gives an entry that is in force its final rights and SID. If it is
// to be passed on as well, the original is kept beside it for that.
func (i *Inheritance) settle(a ACE) []ACE {
	if a.Flags&InheritOnly != 0 {
		return []ACE{a}
	}
	final := a
	if a.Type != MandatoryLabel && a.Type != ResourceAttribute && a.Type != ScopedPolicy {
		final.Mask = i.Mapping.Map(a.Mask)
	}
	switch a.SID {
	case aliases["CO"]:
		final.SID = i.Owner
	case aliases["CG"]:
		final.SID = i.Group
	}
	var out []ACE
	split := (final.Mask != a.Mask || final.SID != a.SID) && a.Flags&(ObjectInherit|ContainerInherit) != 0
	if split {
		final.Flags &^= inheritFlags
	}
	if !final.SID.IsZero() || !a.Type.known() {
		out = append(out, final)
	}
	if split {
		a.Flags |= InheritOnly
		out = append(out, a)
	}
	return out
}
