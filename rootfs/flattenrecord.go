package rootfs

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/hostcompute/hcs/internal/mtree"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// nodeMeta is what a directory is to look like.
type nodeMeta struct {
	mode, uid, gid uint32
	atime, mtime   stamp
	xattrs         textRef
}

// stamp is a time without a pointer.
type stamp struct{ seconds, nanoseconds int64 }

func stampOf(t time.Time) stamp { return stamp{t.Unix(), int64(t.Nanosecond())} }

func (s stamp) time() time.Time { return time.Unix(s.seconds, s.nanoseconds) }

// describe keeps what the directory is to look like, in the place of what was kept before.
func (t *nodeTable) describe(n *node, e *layer.Entry) {
	atime, mtime := times(e)
	m := nodeMeta{e.Mode, e.UID, e.GID, stampOf(atime), stampOf(mtime), t.keepAttrs(e.Xattrs)}
	if n.meta == 0 {
		n.meta = int32(t.metas.Append(m))
		return
	}
	*t.metas.At(int(n.meta)) = m
}

// described is what was kept, as an entry.
func (t *nodeTable) described(n *node) *layer.Entry {
	m := t.metas.Get(int(n.meta))
	return &layer.Entry{
		Name: t.string(n.name), Kind: layer.Dir, Mode: m.mode, UID: m.uid, GID: m.gid,
		AccessTime: m.atime.time(), ModTime: m.mtime.time(), Xattrs: t.attrs(m.xattrs),
	}
}

// record is what the manifest will say of a node. Several names of one object share it.
type record struct {
	sum                    [sha256.Size]byte // of a file's content; a device's numbers
	inode                  uint64
	size, seconds, changed int64
	more                   textRef // a symbolic link's target; others' extended attributes
	mode, uid, gid, nlink  uint32  // mode with the type
	there, linked          bool
}

// take notes what the kernel says.
func (r *record) take(st *sys.Stat) {
	r.there = true
	r.mode, r.uid, r.gid, r.nlink = st.Mode, st.UID, st.GID, uint32(st.Nlink)
	r.size, r.seconds = st.Size, st.MTime.Unix()
	r.inode, r.changed = st.Ino, st.CTime.UnixNano()
	if t := st.Type(); t == sys.ModeChar || t == sys.ModeBlock {
		binary.LittleEndian.PutUint32(r.sum[:], st.Major)
		binary.LittleEndian.PutUint32(r.sum[4:], st.Minor)
	}
}

// record returns a node's record until the next trim, nil if it has none.
func (t *nodeTable) record(n *node) *record {
	if n.record == 0 {
		return nil
	}
	return t.records.At(int(n.record))
}

// newRecord gives the node a record of its own, and returns its number.
func (t *nodeTable) newRecord(n *node) int32 {
	if n.record == 0 || t.record(n).linked {
		n.record = int32(t.records.Append(record{}))
	}
	return n.record
}

// forgetRecord is for a node of which the object is gone. Others may have the record, too.
func (t *nodeTable) forgetRecord(n *node) {
	if r := t.record(n); r != nil && !r.linked {
		*r = record{}
		return
	}
	n.record = 0
}

// inManifest is what the manifest says of a node, whose name is the path here; nil if it says nothing.
func (t *nodeTable) inManifest(n namedNode) *mtree.Entry {
	r := t.records.Get(int(n.record))
	if !r.there {
		return nil
	}
	e := &mtree.Entry{
		Name: n.name, Type: manifestTypes[r.mode&sys.ModeType], Mode: r.mode & sys.ModePerm, UID: r.uid, GID: r.gid,
		Nlink: uint64(r.nlink), Size: r.size, Seconds: r.seconds, SHA256: r.sum, Inode: r.inode, Changed: time.Unix(0, r.changed),
	}
	if e.Type == mtree.Char || e.Type == mtree.Block {
		e.Major, e.Minor = binary.LittleEndian.Uint32(r.sum[:]), binary.LittleEndian.Uint32(r.sum[4:])
	}
	if e.Type == mtree.Link {
		e.Link = t.string(r.more)
	} else {
		e.Xattrs = t.attrs(r.more)
	}
	return e
}

// keepAttrs keeps extended attributes: names and values in turn, each after its length.
func (t *nodeTable) keepAttrs(attrs map[string]string) textRef {
	var b []byte
	for _, attr := range slices.Sorted(maps.Keys(attrs)) {
		for _, s := range []string{attr, attrs[attr]} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	if b == nil {
		return 0
	}
	return t.keep(string(b))
}

// attrs returns what keepAttrs kept.
func (t *nodeTable) attrs(r textRef) map[string]string {
	if r.len() == 0 {
		return nil
	}
	rest := []byte(t.string(r))
	next := func() string {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			rest = nil // the file could not be read; trim says why
			return ""
		}
		s := string(rest[size:][:n])
		rest = rest[size:][n:]
		return s
	}
	attrs := make(map[string]string)
	for len(rest) > 0 {
		attr := next()
		attrs[attr] = next()
	}
	return attrs
}
