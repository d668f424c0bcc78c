package hcsshim

import (
	"context"
	"crypto/sha1"
	"fmt"

	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
)

// GUID is a globally unique identifier in the byte order of Windows' structures: the first three groups little endian.
type GUID [16]byte

// NewGUID makes a GUID of the first bytes of the SHA-1 digest of source. It is not what NameToGuid makes.
func NewGUID(source string) *GUID {
	sum := sha1.Sum([]byte(source))
	return (*GUID)(sum[:16])
}

// ToString returns the usual form, "bd9c3ef9-f239-59b5-a27e-15c523b1d149".
func (g *GUID) ToString() string {
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x", g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8:10], g[10:])
}

// NameToGuid returns the identifier that the Host Compute Service gives a layer by its name, the last element of its path.
func NameToGuid(name string) (id GUID, err error) {
	g, err := wclayer.NameToGuid(context.Background(), name)
	return g.ToWindowsArray(), err
}
