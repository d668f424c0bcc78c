package rootfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// The extended attribute with Windows' metadata of a file. docs/formats/layer-directory.md has the layout.
const (
	ntXattr     = "trusted.hcs.nt"
	ntUserXattr = "user.hcs.nt"

	ntVersion     = 2
	ntVersionOld  = 1    // has the change time as it is
	ntSpilled     = 1    // flag: the backup stream is in a file of its own
	ntHeader      = 24   // bytes before the short name
	ntInline      = 1024 // bytes of backup stream that an attribute has room for: ext4 has 4 KiB for all of a file's together
	maxShortBytes = 64   // 8.3 characters, as WTF-8
)

// ntAttrName returns the attribute's name.
func ntAttrName(user UserXattrs) string {
	if user {
		return ntUserXattr
	}
	return ntXattr
}

// UserXattrs says that marks and metadata are in attributes user.*, for processes that may not write trusted.*.
type UserXattrs bool

// appendNTMeta appends to b what Windows keeps of e and Linux does not, but for alternate streams. spill stores a big piece and
// returns its digest.
func appendNTMeta(b []byte, e *layer.Entry, spill func([]byte) ([sha256.Size]byte, error)) ([]byte, error) {
	var stream bytes.Buffer
	if err := ntfs.NewBackupWriter(&stream).WriteMeta(e.NT); err != nil {
		return nil, fmt.Errorf("encode Windows metadata: %w", err)
	}
	if stream.Len() <= ntInline {
		return appendNTAttr(b, e, 0, stream.Bytes())
	}
	sum, err := spill(stream.Bytes())
	if err != nil {
		return nil, fmt.Errorf("store Windows metadata: %w", err)
	}
	return appendNTAttr(b, e, ntSpilled, sum[:])
}

// appendNTAttr appends an attribute with a backup stream, or with the digest of one that is spilled.
func appendNTAttr(b []byte, e *layer.Entry, flags byte, tail []byte) ([]byte, error) {
	short := e.NT.ShortName
	if len(short) > maxShortBytes {
		return nil, fmt.Errorf("the short name has %d bytes: %w", len(short), errdefs.ErrInvalidArgument)
	}
	b = slices.Grow(b, ntHeader+len(short)+len(tail))
	b = append(b, ntVersion, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(short)))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.NT.Attributes))
	// Files that programs make have two equal times. Ext4 looks for blocks of attributes to share by a hash that turns by
	// half for each 32-bit word (ext4_xattr_hash_entry), so that equal times side by side would cancel out, all such files
	// have the same hash, and ext4 compare each with every other.
	created := fileTimeOf(e.NT.CreationTime)
	b = binary.LittleEndian.AppendUint64(b, created)
	b = binary.LittleEndian.AppendUint64(b, fileTimeOf(e.ChangeTime)-created)
	b = append(b, short...)
	return append(b, tail...), nil
}

// spills opens a piece that is too big for an attribute.
type spills func([sha256.Size]byte) (io.ReadCloser, error)

// parseNTMeta decodes an attribute into e. Of alternate streams that tells names and sizes.
func parseNTMeta(b []byte, e *layer.Entry, spilled spills) error {
	m, stream, err := splitNTMeta(b, spilled)
	if err != nil {
		return err
	}
	if err := errors.Join(takeStreams(m, stream), stream.Close()); err != nil {
		return fmt.Errorf("decode Windows metadata: %w: %w", err, errdefs.ErrDataLoss)
	}
	changed := binary.LittleEndian.Uint64(b[16:])
	if b[0] != ntVersionOld {
		changed += binary.LittleEndian.Uint64(b[8:])
	}
	e.NT, e.ChangeTime = m, timeOf(changed)
	return nil
}

// splitNTMeta decodes the head of an attribute and opens its backup stream.
func splitNTMeta(b []byte, spilled spills) (*ntfs.Meta, io.ReadCloser, error) {
	if len(b) < ntHeader || b[0] != ntVersion && b[0] != ntVersionOld || b[1]&^ntSpilled != 0 {
		return nil, nil, fmt.Errorf("the form of Windows' metadata is unknown: %w", errdefs.ErrDataLoss)
	}
	short := int(binary.LittleEndian.Uint16(b[2:]))
	if short > maxShortBytes || short > len(b)-ntHeader {
		return nil, nil, fmt.Errorf("the attribute with Windows' metadata has a short name of %d bytes: %w", short, errdefs.ErrDataLoss)
	}
	m := &ntfs.Meta{
		Attributes:   ntfs.Attributes(binary.LittleEndian.Uint32(b[4:])),
		CreationTime: timeOf(binary.LittleEndian.Uint64(b[8:])),
		ShortName:    string(b[ntHeader : ntHeader+short]),
	}
	tail := b[ntHeader+short:]
	if b[1]&ntSpilled == 0 {
		return m, io.NopCloser(bytes.NewReader(tail)), nil
	}
	if len(tail) != sha256.Size {
		return nil, nil, fmt.Errorf("the attribute with Windows' metadata has a digest of %d bytes: %w", len(tail), errdefs.ErrDataLoss)
	}
	stream, err := spilled([sha256.Size]byte(tail))
	return m, stream, err
}

// takeStreams reads a backup stream into m.
func takeStreams(m *ntfs.Meta, stream io.Reader) error {
	r := ntfs.NewBackupReader(stream)
	for h, err := range r.Streams() {
		if err != nil {
			return err
		}
		taken, err := m.Take(r)
		if err != nil {
			return err
		}
		if !taken {
			if h.ID != ntfs.StreamAlternate {
				return fmt.Errorf("stream %v is content", h.ID)
			}
			m.Streams = append(m.Streams, ntfs.Stream{Name: h.StreamName(), Size: h.Size})
		}
	}
	return nil
}

// alternateStreams calls f with the alternate streams that an attribute holds; the content is valid during the call.
func alternateStreams(b []byte, spilled spills, f func(ntfs.Stream, io.Reader) error) error {
	_, stream, err := splitNTMeta(b, spilled)
	if err != nil {
		return err
	}
	r := ntfs.NewBackupReader(stream)
	for h, err := range r.Streams() {
		if err == nil && h.ID == ntfs.StreamAlternate {
			err = f(ntfs.Stream{Name: h.StreamName(), Size: h.Size}, r)
		}
		if err != nil {
			return errors.Join(err, stream.Close())
		}
	}
	return stream.Close()
}

// fileTimeOf is 0 for a time that is not known.
func fileTimeOf(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(ntfs.FromTime(t))
}

func timeOf(v uint64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return ntfs.FileTime(v).Time()
}
