package rootfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// The extended attribute with Windows' metadata of a file. docs/formats/layer-directory.md has the layout.
const (
	ntXattr     = "trusted.hcs.nt"
	ntUserXattr = "user.hcs.nt"

	ntVersion     = 1
	ntSpilled     = 1    // flag: the backup stream is in a file of its own
	ntHeader      = 24   // bytes before the short name
	ntInline      = 1024 // bytes of backup stream that an attribute has room for: ext4 has 4 KiB for all of a file's together
	maxSpilled    = 64 << 20
	maxShortBytes = 64 // 8.3 characters, as WTF-8
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

// appendNTMeta encodes what Windows keeps of e and Linux does not. spill stores a big piece and returns its digest.
func appendNTMeta(e *layer.Entry, spill func([]byte) ([sha256.Size]byte, error)) ([]byte, error) {
	var stream bytes.Buffer
	if err := ntfs.NewBackupWriter(&stream).WriteMeta(e.NT); err != nil {
		return nil, fmt.Errorf("encode Windows metadata: %w", err)
	}
	short := e.NT.ShortName
	if len(short) > maxShortBytes {
		return nil, fmt.Errorf("the short name has %d bytes: %w", len(short), errdefs.ErrInvalidArgument)
	}
	var flags byte
	tail := stream.Bytes()
	if len(tail) > ntInline {
		sum, err := spill(tail)
		if err != nil {
			return nil, fmt.Errorf("store Windows metadata: %w", err)
		}
		flags, tail = ntSpilled, sum[:]
	}
	b := make([]byte, 0, ntHeader+len(short)+len(tail))
	b = append(b, ntVersion, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(short)))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.NT.Attributes))
	b = binary.LittleEndian.AppendUint64(b, fileTimeOf(e.NT.CreationTime))
	b = binary.LittleEndian.AppendUint64(b, fileTimeOf(e.ChangeTime))
	b = append(b, short...)
	return append(b, tail...), nil
}

// parseNTMeta decodes an attribute into e. spilled returns a piece by its digest.
func parseNTMeta(b []byte, e *layer.Entry, spilled func([sha256.Size]byte) ([]byte, error)) error {
	if len(b) < ntHeader || b[0] != ntVersion || b[1]&^ntSpilled != 0 {
		return fmt.Errorf("the form of Windows' metadata is unknown: %w", errdefs.ErrDataLoss)
	}
	short := int(binary.LittleEndian.Uint16(b[2:]))
	if short > maxShortBytes || short > len(b)-ntHeader {
		return fmt.Errorf("the attribute with Windows' metadata has a short name of %d bytes: %w", short, errdefs.ErrDataLoss)
	}
	m := &ntfs.Meta{
		Attributes:   ntfs.Attributes(binary.LittleEndian.Uint32(b[4:])),
		CreationTime: timeOf(binary.LittleEndian.Uint64(b[8:])),
		ShortName:    string(b[ntHeader : ntHeader+short]),
	}
	tail := b[ntHeader+short:]
	if b[1]&ntSpilled != 0 {
		if len(tail) != sha256.Size {
			return fmt.Errorf("the attribute with Windows' metadata has a digest of %d bytes: %w", len(tail), errdefs.ErrDataLoss)
		}
		var err error
		if tail, err = spilled([sha256.Size]byte(tail)); err != nil {
			return err
		}
	}
	if err := takeStreams(m, tail); err != nil {
		return fmt.Errorf("decode Windows metadata: %w: %w", err, errdefs.ErrDataLoss)
	}
	e.NT, e.ChangeTime = m, timeOf(binary.LittleEndian.Uint64(b[16:]))
	return nil
}

func takeStreams(m *ntfs.Meta, stream []byte) error {
	r := ntfs.NewBackupReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		taken, err := m.Take(r)
		if err != nil {
			return err
		}
		if !taken {
			return fmt.Errorf("stream %v is content", h.ID)
		}
	}
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
