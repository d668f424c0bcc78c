package ntfs

import "time"

// Meta is what Windows keeps of a file or directory beside its name, size,
// content, and last write, last access and change times, which an entry of a
// layer has itself. The zero Meta says nothing about the file.
type Meta struct {
	Attributes   Attributes
	CreationTime time.Time // to 100 ns; zero where the source does not say

	// SecurityDescriptor is self-relative, as it was found; nil if there is
	// none. ParseSecurityDescriptor looks into it.
	SecurityDescriptor []byte

	// Reparse is the whole reparse buffer, tag and lengths included, as it
	// was found; nil if there is none. ParseReparse looks into it.
	Reparse []byte

	// EA are the extended attributes in their order.
	EA []EA

	// Streams are the alternate data streams whose names and sizes the source
	// knows beforehand; the package documentation says where their content is.
	Streams []Stream

	ObjectID  []byte // 16 bytes, or 64 with the birth IDs; nil if there is none
	ShortName string // the 8.3 name; "" if there is none or the source does not say

	// Kept are streams of a backup stream that no field above stands for
	// (links, property data, transactions), so that writing what was read
	// loses nothing.
	Kept []KeptStream
}

// Stream describes an alternate data stream.
type Stream struct {
	Name string // without the colons and "$DATA"
	Size int64  // holes included
}

// KeptStream is a stream of a backup stream that is carried as it is.
type KeptStream struct {
	ID         StreamID
	Attributes StreamAttributes
	Name       string
	Data       []byte
}
