package regf

// minimalSecurity is O:BAG:SYD:P(A;CI;KA;;;BA)(A;CI;KA;;;SY)(A;CI;KR;;;BU)(A;CIIO;KA;;;CO): administrators and the system
// do all, users read, and who creates a key owns it.
var minimalSecurity = func() []byte {
	sid := func(authority byte, sub ...byte) []byte {
		b := []byte{1, byte(len(sub)), 0, 0, 0, 0, 0, authority}
		for _, s := range sub {
			b = append(b, s, 0, 0, 0)
		}
		return b
	}
	const domainInherit, inheritOnly = 2, 8
	administrators, system, users := sid(5, 32, 220), sid(5, 18), sid(5, 32, 0)
	users[12], users[13] = 0x21, 0x02
	administrators[12], administrators[13] = 0x20, 0x02
	acl := []byte{2, 0, 0, 0, 0, 0, 0, 0}
	allow := func(flags byte, mask uint32, sid []byte) {
		ace := make([]byte, 8, 8+len(sid))
		ace[1] = flags
		put16(ace[2:], uint16(8+len(sid))) //nolint:gosec // short
		put32(ace[4:], mask)
		acl = append(acl, append(ace, sid...)...)
		acl[4]++
	}
	allow(domainInherit, 0xF003F, administrators)
	allow(domainInherit, 0xF003F, system)
	allow(domainInherit, 0x20019, users)
	allow(domainInherit|inheritOnly, 0xF003F, sid(3, 0))
	put16(acl[2:], uint16(len(acl))) //nolint:gosec // short

	sd := make([]byte, 20)
	sd[0] = 1
	put16(sd[2:], 0x9004) // self-relative, DACL present and protected
	put32(sd[16:], 20)
	sd = append(sd, acl...)
	put32(sd[4:], uint32(len(sd))) //nolint:gosec // short
	sd = append(sd, administrators...)
	put32(sd[8:], uint32(len(sd))) //nolint:gosec // short
	return append(sd, system...)
}()

// Minimal returns a hive with a root key and nothing else, as every hive of a base layer may be: DEFAULT, SAM, SECURITY,
// SOFTWARE, SYSTEM. Written, it has 8 KiB.
func Minimal(name string, written Filetime) (*Tree, error) {
	t, err := NewTree(name, nil)
	if err != nil {
		return nil, err
	}
	t.FileName, t.Written = name, written
	t.root.modified = written
	return t, nil
}
