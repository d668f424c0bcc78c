package wclayer

import (
	"context"
	"encoding/binary"
	"path"
	"strings"
	"unicode/utf16"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// layerNamespace is the name space of layer identifiers: they are version 5 identifiers (RFC 4122) of names in UTF-16, little
// endian. Known from identifiers that Windows printed.
var layerNamespace = guid.GUID{Data1: 0x800872c5, Data2: 0x909c, Data3: 0x403a, Data4: [8]byte{0x89, 0xc9, 0x93, 0x1f, 0xe5, 0xe2, 0xfd, 0x08}}

// NameToGuid returns the identifier that the Host Compute Service gives the name. Upper case counts.
func NameToGuid(_ context.Context, name string) (_ guid.GUID, err error) {
	var encoded []byte
	for _, unit := range utf16.Encode([]rune(name)) {
		encoded = binary.LittleEndian.AppendUint16(encoded, unit)
	}
	return guid.NewV5(layerNamespace, encoded)
}

// LayerID returns the identifier of the layer at a path, which need not exist: that of its last element.
func LayerID(ctx context.Context, layerPath string) (_ guid.GUID, err error) {
	return NameToGuid(ctx, path.Base(strings.ReplaceAll(layerPath, `\`, "/")))
}
