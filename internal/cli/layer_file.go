package cli

import (
	"encoding/base64"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// layerFile is an entry of a layer as listings show it. The names of the
// fields are an interface that scanners rely on.
type layerFile struct {
	Name   string        `json:"name"`
	Stream string        `json:"stream,omitempty"`
	Kind   string        `json:"kind"`
	Size   int64         `json:"size,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"` // of the content, holes as zeros
	Link   string        `json:"link,omitempty"`

	// What of these is no UTF-8, which JSON cannot say, as it is.
	NameBytes   []byte `json:"nameBytes,omitempty"`
	StreamBytes []byte `json:"streamBytes,omitempty"`
	LinkBytes   []byte `json:"linkBytes,omitempty"`

	ModTime    *time.Time `json:"modTime,omitempty"`
	AccessTime *time.Time `json:"accessTime,omitempty"`
	ChangeTime *time.Time `json:"changeTime,omitempty"`

	Mode  string `json:"mode,omitempty"` // of POSIX layers, octal
	UID   uint32 `json:"uid,omitempty"`
	GID   uint32 `json:"gid,omitempty"`
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`

	Xattrs  map[string][]byte `json:"xattrs,omitempty"`
	Implied bool              `json:"implied,omitempty"`
	NT      *layerMeta        `json:"nt,omitempty"`
}

// layerMeta is what Windows keeps of a file. Bytes are base64 in JSON.
type layerMeta struct {
	Attributes         string     `json:"attributes"`
	AttributeBits      uint32     `json:"attributeBits"`
	CreationTime       *time.Time `json:"creationTime,omitempty"`
	SDDL               string     `json:"sddl,omitempty"` // "" where the language has no words for the descriptor
	SecurityDescriptor []byte     `json:"securityDescriptor,omitempty"`
	ReparseTag         string     `json:"reparseTag,omitempty"`
	Target             string     `json:"target,omitempty"` // of symbolic links and junctions
	Reparse            []byte     `json:"reparse,omitempty"`
	EA                 []layerEA  `json:"ea,omitempty"`
	ObjectID           []byte     `json:"objectID,omitempty"`
	ShortName          string     `json:"shortName,omitempty"`
}

type layerEA struct {
	Name  string `json:"name"`
	Flags uint8  `json:"flags,omitempty"`
	Value []byte `json:"value"`
}

// layerFiles makes them of entries. It remembers the text of descriptors: the
// files of a layer share a few.
type layerFiles struct{ sddl map[string]string }

// maxDescriptors is how many are remembered.
const maxDescriptors = 4096

func (l *layerFiles) file(e *layer.Entry) layerFile {
	f := layerFile{
		Name: e.Name, Stream: e.Stream, Kind: e.Kind.String(), Size: e.Size, Link: e.Link,
		ModTime: timeOrNone(e.ModTime), AccessTime: timeOrNone(e.AccessTime), ChangeTime: timeOrNone(e.ChangeTime),
		Major: e.Major, Minor: e.Minor, Implied: e.Implied,
		NameBytes: oddBytes(e.Name), StreamBytes: oddBytes(e.Stream), LinkBytes: oddBytes(e.Link),
	}
	for name, value := range e.Xattrs {
		if f.Xattrs == nil {
			f.Xattrs = make(map[string][]byte)
		}
		f.Xattrs[name] = []byte(value)
	}
	if e.NT != nil {
		f.NT = newLayerMeta(e.NT)
		f.NT.SDDL = l.text(e.NT.SecurityDescriptor)
		return f
	}
	if e.Kind != layer.Whiteout && e.Kind != layer.Opaque {
		f.Mode, f.UID, f.GID = fmt.Sprintf("%04o", e.Mode), e.UID, e.GID
	}
	return f
}

func newLayerMeta(m *ntfs.Meta) *layerMeta {
	l := &layerMeta{
		Attributes: m.Attributes.String(), AttributeBits: uint32(m.Attributes), CreationTime: timeOrNone(m.CreationTime),
		SecurityDescriptor: m.SecurityDescriptor,
		Reparse:            m.Reparse, ObjectID: m.ObjectID, ShortName: m.ShortName,
	}
	if p, err := ntfs.ParseReparse(m.Reparse); err == nil {
		l.ReparseTag = p.Tag.String()
	}
	if link, err := ntfs.ParseLink(m.Reparse); err == nil {
		l.Target = link.Target()
	}
	for _, ea := range m.EA {
		l.EA = append(l.EA, layerEA(ea))
	}
	return l
}

// text is sddl of what may have come before.
func (l *layerFiles) text(descriptor []byte) string {
	if len(descriptor) == 0 {
		return ""
	}
	text, ok := l.sddl[string(descriptor)]
	if !ok {
		if l.sddl == nil || len(l.sddl) == maxDescriptors {
			l.sddl = make(map[string]string)
		}
		text = sddl(descriptor)
		l.sddl[string(descriptor)] = text
	}
	return text
}

// sddl returns a descriptor as text, or nothing where that cannot be said:
// then its bytes tell.
func sddl(descriptor []byte) string {
	d, err := ntfs.ParseSecurityDescriptor(descriptor)
	if err != nil {
		return ""
	}
	text, err := d.SDDL()
	if err != nil {
		return ""
	}
	return text
}

func oddBytes(s string) []byte {
	if utf8.ValidString(s) {
		return nil
	}
	return []byte(s)
}

func timeOrNone(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// addDigest reads the content of a file or stream.
func (f *layerFile) addDigest(e *layer.Entry, r io.WriterTo) error {
	if e.Kind != layer.File && e.Kind != layer.Stream {
		return nil
	}
	d := digest.Canonical.Digester()
	if _, err := r.WriteTo(d.Hash()); err != nil {
		return err
	}
	f.Digest = d.Digest()
	return nil
}

// target is what a link of any kind leads to.
func (f *layerFile) target() string {
	if f.Link == "" && f.NT != nil {
		return f.NT.Target
	}
	return f.Link
}

// path is the entry's name as people write it, a stream's behind a colon.
func (f *layerFile) path() string {
	if f.Stream == "" {
		return quoted(f.Name)
	}
	return quoted(f.Name + ":" + f.Stream)
}

// quoted makes a string from a layer harmless for a terminal and one line.
func quoted(s string) string {
	if q := fmt.Sprintf("%q", s); q[1:len(q)-1] != s {
		return q
	}
	return s
}

// details are the lines that a long listing has below an entry.
func (f *layerFile) details() []string {
	m := f.NT
	if m == nil {
		return nil
	}
	var lines []string
	add := func(what, value string) {
		if value != "" {
			lines = append(lines, what+" "+value)
		}
	}
	if m.CreationTime != nil {
		add("created", m.CreationTime.Format(time.RFC3339Nano))
	}
	if m.SDDL != "" {
		add("sddl", quoted(m.SDDL))
	} else {
		add("descriptor", base64.StdEncoding.EncodeToString(m.SecurityDescriptor))
	}
	if m.Target == "" && m.ReparseTag != "" {
		add("reparse", fmt.Sprintf("%s, %d bytes", m.ReparseTag, len(m.Reparse)))
	}
	for _, ea := range m.EA {
		add("ea", fmt.Sprintf("%s=%s", quoted(ea.Name), quoted(string(ea.Value))))
	}
	return lines
}
