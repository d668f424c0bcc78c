package layer

import (
	"fmt"
	"io"
	"strings"
)

// Encoding says in which way a tar stream tells of a layer's entries.
type Encoding uint8

// The encodings.
const (
	// POSIX is that of Linux images, and of all systems but Windows: a
	// change set of OCI's image specification.
	POSIX Encoding = iota

	// NT is that of Windows images: below Files, Hives and UtilityVM, with
	// Windows' metadata in PAX records. Entries have an NT field.
	NT

	// Auto lets the first entry decide: NT if it has a PAX record of
	// Windows' or lies in Hives or UtilityVM, otherwise POSIX. It is for
	// looking into a stream that nobody says anything about; an image tells
	// its system, see [EncodingOf].
	Auto
)

// EncodingOf returns the encoding of the layers of images for an operating
// system, by the name that an image's configuration has for it.
func EncodingOf(os string) Encoding {
	if strings.EqualFold(os, "windows") {
		return NT
	}
	return POSIX
}

// String returns the encoding's name.
func (e Encoding) String() string {
	switch e {
	case POSIX:
		return "POSIX"
	case NT:
		return "NT"
	case Auto:
		return "auto"
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

// ReadOptions say how a layer is read. The zero value reads the POSIX encoding
// with the default Limits.
type ReadOptions struct {
	Limits   Limits
	Encoding Encoding

	// Strict refuses what is malformed but known, as errors of class
	// [errdefs.ErrInvalidArgument]. Without it such an entry is mended and
	// Warn, if it is set, told. Only the NT encoding has such cases.
	Strict bool
	Warn   func(Warning)

	// Hollow is for a stream by [Writer.WriteHeader]: files have their size
	// and no content.
	Hollow bool
}

// NewReader returns a Reader of the uncompressed tar stream r.
func (o ReadOptions) NewReader(r io.Reader) *Reader {
	return o.reader(&readerFeed{r: r})
}

// OpenBlob starts to read a layer's blob, as the function of that name does.
func (o ReadOptions) OpenBlob(r io.Reader) (*Blob, error) {
	return openBlob(r, o)
}

func (o ReadOptions) reader(f feeder) *Reader {
	r := newReader(f, o.Limits.effective())
	r.hollow = o.Hollow
	switch o.Encoding {
	case NT:
		r.nt = newNTReader(o)
	case Auto:
		r.undecided = newNTReader(o)
	}
	return r
}

// Problem is a kind of flaw that Windows layers of some programs have.
type Problem string

// The problems that are mended, and how.
const (
	// MissingParent: a directory has no entry although something in it does,
	// which Windows cannot import. An Implied entry is made up for it.
	MissingParent Problem = "missing parent"

	// MissingHives: the layer is not a base layer and has no entry for
	// Hives, which Windows insists on. An Implied entry is made up for it.
	MissingHives Problem = "missing Hives"

	// HardLinkTarget: a hard link's target is not told with its part, as by
	// crane, or with backslashes. It is taken to be below Files.
	HardLinkTarget Problem = "hard link target"

	// SymlinkTarget: BuildKit and Buildah put "Files/" before the targets of
	// symbolic links, too. It is taken away.
	SymlinkTarget Problem = "symlink target"

	// LostTarget: a link has no target. Windows exports junctions without
	// print name so (PowerShell makes such), and the target is lost.
	LostTarget Problem = "lost link target"

	// CreationTime: BuildKit writes a time's nanoseconds without padding, so
	// that they look like another fraction. The time is corrected where the
	// modification time, of which it is a copy, proves it.
	CreationTime Problem = "creation time"

	// TimeRange: a time that Windows has no number for, before 1601 for
	// instance, becomes the nearest that it has.
	TimeRange Problem = "time out of range"

	// Attributes: the file attributes and the type of the entry contradict
	// each other. The type counts.
	Attributes Problem = "file attributes"

	// DefaultDescriptor: directories carry the descriptor that BuildKit and
	// Buildah give to all of them, parents which lower layers have included,
	// and so replace that of the lower layers. It is told once a layer, and
	// nothing is changed.
	DefaultDescriptor Problem = "default descriptor"

	// CaseVariant: two names differ in case alone. They are one name for
	// Windows; which spelling stays is the business of who applies the
	// layer.
	CaseVariant Problem = "names differ in case"

	// Repeated: a name has a second entry, where Windows knows one at most.
	// The last one counts.
	Repeated Problem = "repeated name"

	// LateStream: an alternate stream does not follow its file at once.
	LateStream Problem = "late stream"

	// StreamRecords: an alternate stream has metadata of a file, which it
	// cannot have. BuildKit makes that of a file with a colon in its name.
	StreamRecords Problem = "metadata of a stream"

	// OpaqueMarker: Windows knows no opaque directories, and would keep what
	// lower layers hold. The entry is of kind Opaque all the same, because
	// that is what the layer's maker meant.
	OpaqueMarker Problem = "opaque directory"

	// NameForm: a name has backslashes, or Files, Hives or UtilityVM in
	// another case. It is cleaned. An entry for the root, which is no place
	// in a Windows layer, is skipped.
	NameForm Problem = "name"

	// UnknownHive: Hives has something that is none of the five known.
	UnknownHive Problem = "unknown hive"
)

// Warning tells of something malformed that was mended.
type Warning struct {
	Name    string // of the entry
	Problem Problem
	Detail  string // what is wrong, and what was made of it
}

// String returns `"name": problem: detail`.
func (w Warning) String() string {
	return fmt.Sprintf("%q: %s: %s", w.Name, w.Problem, w.Detail)
}
