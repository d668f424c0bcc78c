package ntfs

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// maxMetaStream bounds what Take reads into memory: the biggest descriptor
// has two ACLs of 64 KiB, other metadata is smaller.
const maxMetaStream = 1 << 20

const dataSuffix = ":$DATA"

// StreamName returns the bare name of an alternate data stream, "name" of
// ":name:$DATA".
func (h *BackupHeader) StreamName() string {
	name := strings.TrimPrefix(h.Name, ":")
	if i := len(name) - len(dataSuffix); i >= 0 && strings.EqualFold(name[i:], dataSuffix) {
		name = name[:i]
	}
	return name
}

// AlternateHeader returns the header of an alternate data stream with a bare
// name.
func AlternateHeader(name string, size int64) *BackupHeader {
	return &BackupHeader{ID: StreamAlternate, Size: size, Name: ":" + name + dataSuffix}
}

// Take reads the reader's current stream into m if it is metadata, and reports
// whether it was: the content of StreamData, StreamAlternate and
// StreamSparseBlock is left to the caller. Attributes and times are not in a
// backup stream and stay as they are.
func (m *Meta) Take(r *BackupReader) (bool, error) {
	h := r.header
	switch h.ID {
	case StreamData, StreamAlternate, StreamSparseBlock:
		return false, nil
	}
	if h.Size > maxMetaStream {
		return false, r.fail(fmt.Errorf("%w: %d bytes of metadata, more than %d", ErrFormat, h.Size, maxMetaStream))
	}
	start := r.at
	b, err := r.content()
	if err != nil {
		return false, err
	}
	switch h.ID {
	case StreamSecurity:
		m.SecurityDescriptor = b
	case StreamReparse:
		m.Reparse = b
	case StreamObjectID:
		m.ObjectID = b
	case StreamEA:
		eas, err := ParseEA(b)
		if err != nil {
			return false, fmt.Errorf("read backup stream: %s at offset %d: %w", h.describe(), start, err)
		}
		m.EA = eas
	default:
		m.Kept = append(m.Kept, KeptStream{h.ID, h.Attributes, h.Name, b})
	}
	return true, nil
}

// content reads what is left of the current stream. What a lying header
// claims is not allocated before the bytes are there.
func (r *BackupReader) content() ([]byte, error) {
	if r.left > 64<<10 {
		var b bytes.Buffer
		_, err := io.Copy(&b, struct{ io.Reader }{r})
		return b.Bytes(), err
	}
	b := make([]byte, r.left)
	_, err := io.ReadFull(r, b)
	return b, err
}

// WriteMeta writes the streams that hold m, in the order that Windows'
// own layer tools use: security, extended attributes, reparse data; then
// object ID and what was kept. Content comes after it.
func (w *BackupWriter) WriteMeta(m *Meta) error {
	ea, err := AppendEA(nil, m.EA)
	if err != nil {
		return fmt.Errorf("write backup stream: %w", err)
	}
	for _, s := range []struct {
		id      StreamID
		content []byte
	}{
		{StreamSecurity, m.SecurityDescriptor},
		{StreamEA, ea},
		{StreamReparse, m.Reparse},
		{StreamObjectID, m.ObjectID},
	} {
		if len(s.content) == 0 {
			continue
		}
		if err := w.WriteStream(s.id, s.content); err != nil {
			return err
		}
	}
	for _, k := range m.Kept {
		if err := w.WriteHeader(&BackupHeader{ID: k.ID, Attributes: k.Attributes, Name: k.Name, Size: int64(len(k.Data))}); err != nil {
			return err
		}
		if _, err := w.Write(k.Data); err != nil {
			return err
		}
	}
	return w.Close()
}
