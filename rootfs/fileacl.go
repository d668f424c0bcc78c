package rootfs

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/hostcompute/hcs/layer"
)

// Access control lists are a version and entries of a tag, permissions and an id, which has a meaning for two of the tags
// (include/uapi/linux/posix_acl_xattr.h). The ids in a layer are the layer's own, those on disk are of this machine, as an
// object's owner is.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8
	aclUser      = 0x02
	aclGroup     = 0x08
)

// mapACLs has the users and groups that an entry's access control lists name be the same as owners with these ids. What is
// no such list stays as it is: the kernel knows what to think of it.
func (m *idMapper) mapACLs(e *layer.Entry, move func(IDMap, uint32) (uint32, bool)) error {
	if len(m.uids) == 0 && len(m.gids) == 0 {
		return nil
	}
	cloned := false
	for _, attr := range []string{aclAccess, aclDefault} {
		list := []byte(e.Xattrs[attr])
		if len(list) < aclHeader || len(list)%aclEntrySize != aclHeader || binary.LittleEndian.Uint32(list) != aclVersion {
			continue
		}
		if err := m.mapACL(list[aclHeader:], move); err != nil {
			return fmt.Errorf("extended attribute %s: %w", attr, err)
		}
		if !cloned {
			e.Xattrs, cloned = maps.Clone(e.Xattrs), true
		}
		e.Xattrs[attr] = string(list)
	}
	return nil
}

func (m *idMapper) mapACL(entries []byte, move func(IDMap, uint32) (uint32, bool)) error {
	for ; len(entries) > 0; entries = entries[aclEntrySize:] {
		kind, ids := "user", m.uids
		switch binary.LittleEndian.Uint16(entries) {
		case aclUser:
		case aclGroup:
			kind, ids = "group", m.gids
		default:
			continue
		}
		id, err := mapID(kind, ids, binary.LittleEndian.Uint32(entries[4:]), move)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(entries[4:], id)
	}
	return nil
}
