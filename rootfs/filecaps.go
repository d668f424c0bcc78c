package rootfs

import (
	"encoding/binary"
	"maps"

	"github.com/hostcompute/hcs/layer"
)

// File capabilities are struct vfs_cap_data or, with the user id of the root whose user namespaces they count in, struct
// vfs_ns_cap_data (include/uapi/linux/capability.h). Layers have the first. On disk it would count on the host, and not
// where the layer's owners are mapped to.
const (
	capabilityAttr = "security.capability"

	capRevision  = 0xff000000
	capRevision2 = 0x02000000
	capRevision3 = 0x03000000
	capSize2     = 20
	capSize3     = 24
)

// bindCaps makes an entry's file capabilities those of the given root.
func bindCaps(e *layer.Entry, root uint32) {
	caps := []byte(e.Xattrs[capabilityAttr])
	if len(caps) != capSize2 || binary.LittleEndian.Uint32(caps)&capRevision != capRevision2 {
		return
	}
	setRevision(caps, capRevision3)
	e.Xattrs = maps.Clone(e.Xattrs)
	e.Xattrs[capabilityAttr] = string(binary.LittleEndian.AppendUint32(caps, root))
}

// freeCaps undoes bindCaps.
func freeCaps(e *layer.Entry, root uint32) {
	caps := []byte(e.Xattrs[capabilityAttr])
	if len(caps) != capSize3 || binary.LittleEndian.Uint32(caps)&capRevision != capRevision3 ||
		binary.LittleEndian.Uint32(caps[capSize2:]) != root {
		return
	}
	setRevision(caps, capRevision2)
	e.Xattrs[capabilityAttr] = string(caps[:capSize2])
}

func setRevision(caps []byte, revision uint32) {
	flags := binary.LittleEndian.Uint32(caps) &^ capRevision
	binary.LittleEndian.PutUint32(caps, flags|revision)
}
