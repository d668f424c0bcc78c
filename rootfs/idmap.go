package rootfs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
)

// IDMap says that Size user or group ids from Container on, as layers have them, are those from Host on of this machine.
type IDMap struct{ Container, Host, Size uint32 }

// rootlessAttr keeps the owner of an object that could not be given away: a message of protocol buffers with the user id in
// field 1 and the group id in field 2 (rootlesscontaine.rs, proto/rootlesscontainers.proto).
const rootlessAttr = "user.rootlesscontainers"

// noopID stands for an id that stays what it is.
const noopID = 1<<32 - 1

// idMapper turns owners of layers into owners on disk and back.
type idMapper struct {
	uids, gids []IDMap
	rootless   bool
	uid, gid   uint32 // of this process
}

func newIDMapper(uids, gids []IDMap, rootless bool) idMapper {
	m := idMapper{uids: uids, gids: gids, rootless: rootless, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if rootless {
		m.uids, m.gids = nil, nil
	}
	return m
}

// toHost gives an entry, as a layer has it, the owner that it gets on disk.
func (m *idMapper) toHost(e *layer.Entry) error {
	if e.Kind == layer.Whiteout || e.Kind == layer.Opaque || e.Kind == layer.Hardlink {
		return nil
	}
	if m.rootless {
		m.keepOwner(e)
		return nil
	}
	var err error
	if e.UID, err = mapID("user", m.uids, e.UID, IDMap.toHost); err != nil {
		return err
	}
	e.GID, err = mapID("group", m.gids, e.GID, IDMap.toHost)
	if uid, _ := m.root(); err == nil && len(m.uids) > 0 && uid != 0 {
		bindCaps(e, uid)
	}
	if err == nil {
		err = m.mapACLs(e, IDMap.toHost)
	}
	return err
}

// keepOwner notes the owner beside the entry, and makes of devices what they can be.
func (m *idMapper) keepOwner(e *layer.Entry) {
	if e.UID != 0 || e.GID != 0 {
		e.Xattrs = maps.Clone(e.Xattrs)
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string, 1)
		}
		e.Xattrs[rootlessAttr] = marshalOwner(e.UID, e.GID)
	}
	if e.Kind == layer.CharDevice && (e.Major != 0 || e.Minor != 0) || e.Kind == layer.BlockDevice {
		e.Kind, e.Mode, e.Size, e.Major, e.Minor = layer.File, 0, 0, 0, 0
	}
	e.UID, e.GID = m.uid, m.gid
}

// root returns who root of the layers is on this machine, where they say so, and else this process's user.
func (m *idMapper) root() (uid, gid uint32) {
	uid, gid = m.uid, m.gid
	if id, err := mapID("user", m.uids, 0, IDMap.toHost); err == nil && len(m.uids) > 0 {
		uid = id
	}
	if id, err := mapID("group", m.gids, 0, IDMap.toHost); err == nil && len(m.gids) > 0 {
		gid = id
	}
	return uid, gid
}

// impliedDir is the entry of a directory that a layer needs but does not mention.
func (m *idMapper) impliedDir(name string) *layer.Entry {
	e := &layer.Entry{Name: name, Kind: layer.Dir, Mode: impliedMode, ModTime: time.Unix(0, 0)}
	e.UID, e.GID = m.root()
	return e
}

// toLayer gives an entry, as it is on disk, the owner that it gets in a layer.
func (m *idMapper) toLayer(e *layer.Entry) error {
	if m.rootless {
		return restoreOwner(e)
	}
	var err error
	if e.UID, err = mapID("user", m.uids, e.UID, IDMap.toContainer); err != nil {
		return err
	}
	e.GID, err = mapID("group", m.gids, e.GID, IDMap.toContainer)
	if uid, _ := m.root(); err == nil && len(m.uids) > 0 && uid != 0 {
		freeCaps(e, uid)
	}
	if err == nil {
		err = m.mapACLs(e, IDMap.toContainer)
	}
	return err
}

// restoreOwner gives an entry the owner that was kept for it, and else root:
// who something belongs to on this machine, if it is not this process's user
// but one of his groups or somebody else, has no meaning in a layer.
func restoreOwner(e *layer.Entry) error {
	e.UID, e.GID = 0, 0
	kept, is := e.Xattrs[rootlessAttr]
	if !is {
		return nil
	}
	delete(e.Xattrs, rootlessAttr)
	uid, gid, err := unmarshalOwner(kept)
	if err != nil {
		return fmt.Errorf("read owner from extended attribute %s: %w", rootlessAttr, err)
	}
	if uid != noopID {
		e.UID = uid
	}
	if gid != noopID {
		e.GID = gid
	}
	return nil
}

func mapID(kind string, ids []IDMap, id uint32, try func(IDMap, uint32) (uint32, bool)) (uint32, error) {
	if len(ids) == 0 {
		return id, nil
	}
	for _, m := range ids {
		if mapped, ok := try(m, id); ok {
			return mapped, nil
		}
	}
	return 0, fmt.Errorf("%s id %d is not mapped: %w", kind, id, errdefs.ErrFailedPrecondition)
}

func (m IDMap) toHost(id uint32) (uint32, bool) { return move(id, m.Container, m.Host, m.Size) }

func (m IDMap) toContainer(id uint32) (uint32, bool) { return move(id, m.Host, m.Container, m.Size) }

// move maps id from one range to the other. No result is 2^32-1, which chown takes for "unchanged".
func move(id, from, to, size uint32) (uint32, bool) {
	if id < from || id-from >= size {
		return 0, false
	}
	moved := uint64(to) + uint64(id-from)
	return uint32(moved), moved < noopID
}

func marshalOwner(uid, gid uint32) string {
	var b []byte
	for field, id := range []uint32{uid, gid} {
		if id != 0 {
			b = binary.AppendUvarint(append(b, byte(field+1)<<3), uint64(id))
		}
	}
	return string(b)
}

// unmarshalOwner reads the two fields; others, which the format does not have, are an error.
func unmarshalOwner(s string) (uid, gid uint32, err error) {
	for b := []byte(s); len(b) > 0; {
		tag := b[0]
		id, n := binary.Uvarint(b[1:])
		if n <= 0 || id > noopID || tag != 1<<3 && tag != 2<<3 {
			return 0, 0, fmt.Errorf("%q is no owner: %w", s, errdefs.ErrInvalidArgument)
		}
		if tag == 1<<3 {
			uid = uint32(id)
		} else {
			gid = uint32(id)
		}
		b = b[1+n:]
	}
	return uid, gid, nil
}
