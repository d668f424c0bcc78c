package layer

import (
	"fmt"
	"math"

	"github.com/containerd/errdefs"
)

// Limits bound what a layer may cost. A zero field means its default, a
// negative one lifts the limit as far as the format allows. An exceeded limit
// is an error of class errdefs.ErrResourceExhausted that names the field.
type Limits struct {
	Bytes       int64 // content of all entries, holes included; default 1 TiB
	EntryBytes  int64 // content of one entry, holes included; default 1 TiB
	Entries     int64 // entries, those included that the reader skips; default 16 Mi
	HeaderBytes int64 // one entry's headers: names, PAX records, sparse map; default and maximum 1 MiB
	Depth       int   // components of a name; default 512
	NameBytes   int   // bytes of a name or link target; default 4096
	Xattrs      int   // extended attributes of one entry; default 1024
	XattrBytes  int   // bytes of one attribute's value, or of a security descriptor; default 64 KiB, Linux's own limit

	// Ratio bounds decompressed bytes per compressed byte, once a blob has
	// given more than 1 GiB: a small bomb is harmless, and a true layer may
	// well begin with zeros. Gzip cannot exceed 1032, so that the default of
	// 1100 concerns zstd alone.
	Ratio int64

	// Window bounds the memory that a zstd frame may ask for; default 128
	// MiB, as for the zstd command.
	Window int64
}

const (
	maxHeaderBytes = 1 << 20 // archive/tar reads no longer PAX header either
	ratioFloor     = 1 << 30
	maxWindow      = 1 << 31 // what RFC 8878 recommends at the most, and "zstd --ultra --long=31" makes
)

// effective returns l with every field set.
func (l Limits) effective() Limits {
	return Limits{
		Bytes:       limit(l.Bytes, 1<<40, math.MaxInt64),
		EntryBytes:  limit(l.EntryBytes, 1<<40, math.MaxInt64),
		Entries:     limit(l.Entries, 1<<24, math.MaxInt64),
		HeaderBytes: min(limit(l.HeaderBytes, maxHeaderBytes, maxHeaderBytes), maxHeaderBytes),
		Depth:       limit(l.Depth, 512, math.MaxInt),
		NameBytes:   limit(l.NameBytes, 4096, math.MaxInt),
		Xattrs:      limit(l.Xattrs, 1024, math.MaxInt),
		XattrBytes:  limit(l.XattrBytes, 64<<10, math.MaxInt),
		Ratio:       limit(l.Ratio, 1100, math.MaxInt64),
		Window:      min(limit(l.Window, 128<<20, maxWindow), maxWindow),
	}
}

func limit[T int | int64](v, standard, most T) T {
	switch {
	case v == 0:
		return standard
	case v < 0:
		return most
	}
	return v
}

// exceeded reports that field's limit is exceeded.
func exceeded[T int | int64](field string, most T) error {
	return fmt.Errorf("more than the limit %s of %d: %w", field, most, errdefs.ErrResourceExhausted)
}

// invalid makes an error of class errdefs.ErrInvalidArgument.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
