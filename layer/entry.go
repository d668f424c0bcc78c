package layer

import (
	"fmt"
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// Kind says what an Entry does to the tree below it.
type Kind uint8

// The kinds of entry. File to Fifo bring an object into being; Whiteout and
// Opaque take away what lower layers hold, and never what their own layer
// brings.
const (
	File        Kind = iota // a regular file
	Dir                     // a directory; merges with one that is there
	Symlink                 // a symbolic link; Link is its target as written
	Hardlink                // another name of an object of the tree; Link is that object's cleaned name
	CharDevice              // a character device; Major and Minor say which
	BlockDevice             // a block device; Major and Minor say which
	Fifo                    // a named pipe
	Whiteout                // Name is removed from the lower layers' tree
	Opaque                  // everything that lower layers hold below directory Name is removed

	// Stream is an alternate data stream, of the file or directory Name;
	// Entry.Stream is its own name. Windows layers alone have such, behind
	// the entry of what they belong to.
	Stream
)

var kindNames = [...]string{
	"file", "dir", "symlink", "hardlink", "char device", "block device", "fifo", "whiteout", "opaque", "stream",
}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Extent is a run of bytes in a sparse file's content.
type Extent struct {
	Offset, Length int64
}

// Entry is one object of a layer: the type that everything flows through,
// whatever the encoding it was read from.
//
// Invariant, established by the Reader and relied upon by everybody after it:
// Name and a hard link's Link are relative, slash separated, free of empty,
// "." and ".." components, of NUL bytes, and of components that start with
// the whiteout prefix ".wh."; "." is the layer's root, which is always a Dir
// (or Opaque). The path may still lead through symbolic links of the tree
// that it is applied to: only internal/inroot may resolve it.
//
// In a Windows layer Name and a hard link's Link begin with their part (Files,
// Hives or UtilityVM, see [Part]), as paths in a layer directory do; their
// components are names that NTFS can store and Win32 reaches; parents come
// before what is in them.
type Entry struct {
	Name string // whiteouts: the name that goes, without the prefix; opaque: the directory
	Kind Kind
	Size int64  // File, Stream: bytes of content, holes included
	Mode uint32 // permission, setuid, setgid and sticky bits only (07777)

	UID, GID uint32 // never 2^32-1, which chown takes for "unchanged"

	ModTime    time.Time // to the nanosecond where the encoding has it
	AccessTime time.Time // zero where the layer does not say
	ChangeTime time.Time // zero where the layer does not say

	Link         string // Symlink, Hardlink; empty for a Windows layer's Symlink means what NT.Reparse says
	Major, Minor uint32 // CharDevice, BlockDevice

	Xattrs map[string]string // by full name ("user.x", "security.capability"); values are bytes

	// Records are PAX records that no field above stands for, kept so that
	// writing what was read loses nothing.
	Records map[string]string

	// Data lists the parts of a sparse file that hold data, ascending and
	// apart; the rest are holes. Nil means that the file is not sparse; empty
	// and not nil that it is one hole.
	Data []Extent

	// NT is the metadata of a Windows layer's entry, and not nil for any of
	// these; it makes the Writer use the NT encoding. The reader shares
	// security descriptors between entries: they are replaced, not written to.
	NT     *ntfs.Meta
	Stream string // Stream: the stream's own name, without ":" and type

	// Implied says that the layer itself has no entry for this directory of a
	// Windows layer. Its metadata is a guess: where lower layers have the
	// directory, theirs stays.
	Implied bool

	source *source // the header as it was read, for writing the same bytes again
}

// Forget makes e an entry of no stream: the Writer encodes it anew, and what a
// reader mended is written as it should have been.
func (e *Entry) Forget() { e.source = nil }

// hasContent says whether bytes may follow the entry.
func (e *Entry) hasContent() bool { return e.Kind == File || e.Kind == Stream }

// EntryError reports what went wrong with one entry of a layer.
type EntryError struct {
	Op   string // "read", "write", "apply", "diff", …
	Name string // the entry's name, as far as it is known
	Err  error
}

// Error returns "op layer entry "name": cause".
func (e *EntryError) Error() string {
	if e.Name == "" {
		return e.Err.Error() // which is about the layer
	}
	return fmt.Sprintf("%s layer entry %q: %v", e.Op, e.Name, e.Err)
}

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }
