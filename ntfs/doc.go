// Package ntfs holds what Windows keeps of a file beside its name, size and
// content, and the formats that it travels in: attributes and FILETIMEs,
// Win32 backup streams, self-relative security descriptors and SDDL, reparse
// buffers, lists of extended attributes, and the rules of names.
//
// It is not a file system: it neither reads volumes nor touches files, and it
// knows no layers; layer's NT encoding and the code that puts layers on disks
// build on it. It is pure bytes, the same on every system, and imports the
// standard library alone.
//
// # Bytes are kept
//
// What came from Windows goes back to Windows as the same bytes. So a Meta
// holds the security descriptor, the reparse buffer and the object ID as they
// were found; the typed forms (SecurityDescriptor, Link, WCI…) are views that
// callers ask for.
//
// # Alternate data streams
//
// An alternate stream may be as large as a file, and a layer is read in one
// pass, in which the streams' content follows the file's entry. So content is
// never part of a Meta: in a sequence of entries each alternate stream is an
// entry of its own, right after that of its file or directory, and its
// content is read there. Meta.Streams holds names and sizes where the source
// knows them beforehand (a backup stream that was scanned, a volume); it is
// nil where it does not.
//
// # Names
//
// Windows' names are UTF-16 that need not be well-formed. As Go strings they
// are WTF-8: UTF-8 in which a surrogate without its other half is encoded as
// if it were a character. DecodeUTF16 and AppendUTF16 convert both ways
// without loss.
//
// # Errors
//
// Input that breaks a format's rules is ErrFormat, SDDL that cannot be read is
// ErrSyntax, values that a format cannot hold are ErrRange, and what is valid
// but has no form here is ErrUnsupported. No input makes this package panic or
// allocate more than a small multiple of its own size.
package ntfs
