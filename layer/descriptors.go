package layer

import (
	"fmt"
	"sync"

	"github.com/hostcompute/hcs/ntfs"
)

// Descriptors computes the security descriptors of objects that were made
// where nobody thinks of any: they inherit from their directory, as on Windows,
// and belong to the administrators. What nothing is inherited by gets what
// BuildKit and Buildah give to files. The zero value is ready; it remembers
// what it computed and is for one goroutine.
type Descriptors struct {
	inherited map[inheritance][]byte
}

// inheritance is what a new object's descriptor depends on.
type inheritance struct {
	parent string
	kind   ntfs.Kind
}

// Inherit returns the self-relative descriptor of a new object of the given
// kind in a directory that has the descriptor parent. Without one it returns
// what BuildKit and Buildah give to all directories, or to all files. The
// result is shared: it is replaced, not written to.
func (d *Descriptors) Inherit(parent []byte, kind ntfs.Kind) ([]byte, error) {
	switch {
	case parent == nil && kind == ntfs.Container:
		return defaultDirSD(), nil
	case parent == nil:
		return builder().Append(nil)
	}
	key := inheritance{string(parent), kind}
	if sd, ok := d.inherited[key]; ok {
		return sd, nil
	}
	above, err := ntfs.ParseSecurityDescriptor(parent)
	if err != nil {
		return nil, fmt.Errorf("inherit security descriptor: %w", err)
	}
	nobody := builder()
	sd, err := ntfs.Inheritance{
		Parent: above, Owner: nobody.Owner, Group: nobody.Group, DefaultDACL: nobody.DACL,
	}.For(kind).Append(nil)
	if err != nil {
		return nil, fmt.Errorf("inherit security descriptor: %w", err)
	}
	if d.inherited == nil {
		d.inherited = make(map[inheritance][]byte)
	}
	d.inherited[key] = sd
	return sd, nil
}

// builder is what objects have who inherit nothing, and who owns all others:
// what BuildKit and Buildah give to files.
var builder = sync.OnceValue(func() *ntfs.SecurityDescriptor {
	d, err := ntfs.ParseSDDL("O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)")
	if err != nil {
		panic(err) // a constant of ours
	}
	return d
})
