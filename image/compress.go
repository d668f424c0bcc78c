package image

import (
	"bytes"
	"io"

	"github.com/hostcompute/hcs/layer"
)

// sniff returns the suffix of a layer's media type by the content's first
// bytes: "+gzip" (RFC 1952), "+zstd" (RFC 8878), or nothing.
func sniff(magic []byte) string {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return "+gzip"
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "+zstd"
	}
	return ""
}

func decompress(r io.Reader) (io.ReadCloser, error) {
	plain, _, err := layer.Decompress(r, layer.Limits{})
	return plain, err
}
