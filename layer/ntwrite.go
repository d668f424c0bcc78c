package layer

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// The bits of a Unix mode that tell the type. Windows' exporter sets them,
// and none for permissions.
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000

	hardlinkMode = 0o644 // of hard links alone
)

// ntMode returns the mode in the header of an entry. A stream has its owner's.
func (w *Writer) ntMode(e *Entry) uint32 {
	mode := e.Mode
	switch e.Kind {
	case File:
		if e.Size > 0 { // an empty file has no data stream
			mode |= modeRegular
		}
	case Dir:
		mode |= modeDir
	case Symlink:
		mode |= modeSymlink
		if e.NT.Attributes&ntfs.AttrDirectory != 0 {
			mode |= modeDir
		}
	case Hardlink:
		if mode == 0 {
			mode = hardlinkMode
		}
	case Stream:
		if e.Name != w.owner {
			return mode | modeRegular
		}
		return mode | w.ownerMode
	}
	return mode
}

// ntHeader makes the headers of an entry as go-winio's backuptar and
// hcsshim's ociwclayer make them with Go's archive/tar: PAX records in the
// order of their keys, and no ustar prefix where there are any.
func (w *Writer) ntHeader(e *Entry) error {
	h := &w.head
	*h = header{records: h.records[:0]}
	name := ntStoredName(e)
	w.ntRecords(h, e)
	h.metadata(e, e.Size)
	h.octal(100, 8, int64(w.ntMode(e)))
	// Whiteouts alone have no records; archive/tar then splits a long name.
	if prefix, base, ok := splitName(name); ok && len(h.records) == 0 {
		copy(h.block[345:], prefix)
		copy(h.block[:100], base)
	} else {
		h.ntText(0, "path", name)
	}
	h.ntText(157, "linkpath", ntStoredLink(e))
	if w.buf = h.appendNT(w.buf[:0], name); len(w.buf) > maxHeaderBytes {
		return exceeded("HeaderBytes", int64(maxHeaderBytes))
	}
	return nil
}

// ntStoredLink returns the link name. Windows' exporter loses the target of a
// junction that has no print name; it is in the reparse point all the same.
func ntStoredLink(e *Entry) string {
	switch {
	case e.Kind != Symlink && e.Kind != Hardlink:
		return ""
	case e.Kind == Hardlink || e.Link != "" || e.NT.Reparse == nil:
		return e.Link
	}
	l, err := ntfs.ParseLink(e.NT.Reparse)
	if err != nil {
		return "" // checkMeta has looked at it
	}
	return l.Target()
}

// ntStoredName is storedName for the NT encoding: directories have no slash.
func ntStoredName(e *Entry) string {
	switch e.Kind {
	case Dir:
		return e.Name
	case Stream:
		return e.Name + ":" + e.Stream
	}
	return storedName(e)
}

// ntRecords adds the records of Windows' metadata.
func (w *Writer) ntRecords(h *header, e *Entry) {
	m := e.NT
	if e.Kind != Whiteout && e.Kind != Opaque && e.Kind != Stream {
		if t := m.CreationTime; !t.IsZero() {
			h.add(creationKey, paxTime(t))
		}
		if m.Attributes != 0 {
			h.add(fileAttr, strconv.FormatUint(uint64(m.Attributes), 10))
		}
		if isJunction(e) {
			h.add(mountPoint, "1")
		}
		if len(m.SecurityDescriptor) > 0 {
			h.add(rawSD, w.base64(m.SecurityDescriptor))
		}
		for _, ea := range m.EA {
			h.add(eaPrefix+ea.Name, base64.StdEncoding.EncodeToString(ea.Value))
		}
	}
	for k, v := range e.Xattrs {
		h.add(xattrPrefix+xattrEscaper.Replace(k), v)
	}
	for k, v := range e.Records {
		h.add(k, v)
	}
}

// base64Texts is how many descriptors' texts are kept: files share a few.
const base64Texts = 1024

func (w *Writer) base64(b []byte) string {
	if text, ok := w.texts[string(b)]; ok {
		return text
	}
	if w.texts == nil || len(w.texts) >= base64Texts {
		w.texts = make(map[string]string)
	}
	text := base64.StdEncoding.EncodeToString(b)
	w.texts[string(b)] = text
	return text
}

// splitName splits a long name for the two fields of ustar, where archive/tar
// does.
func splitName(name string) (prefix, base string, ok bool) {
	if len(name) <= 100 || !isASCII(name) {
		return "", "", false
	}
	i := strings.LastIndexByte(name[:min(156, len(name))], '/')
	if i <= 0 || i > 155 || len(name)-i-1 > 100 || i == len(name)-1 {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

// ntText stores a text, and as a record if it is not ASCII or too long. The
// field then has what fits of its ASCII.
func (h *header) ntText(at int, key, s string) {
	if len(s) > 100 || !isASCII(s) {
		h.add(key, s)
	}
	copy(h.block[at:at+100], truncateASCII(s))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == 0 {
			return false
		}
	}
	return true
}

// truncateASCII returns up to a hundred bytes of s's ASCII; slashes do not end
// it if it is cut.
func truncateASCII(s string) string {
	if !isASCII(s) {
		ascii := make([]byte, 0, len(s))
		for i := range len(s) {
			if c := s[i]; c < 0x80 && c != 0 {
				ascii = append(ascii, c)
			}
		}
		s = string(ascii)
	}
	if len(s) > 100 {
		s = s[:100]
		if s[99] == '/' {
			s = strings.TrimRight(s, "/")
		}
	}
	return s
}

// appendNT appends the PAX header, if there is one, and the header block.
func (h *header) appendNT(b []byte, name string) []byte {
	if len(h.records) > 0 {
		i := strings.LastIndexByte(name, '/') + 1
		size := h.sortRecords()
		x := recordsHeader(strings.TrimRight(truncateASCII(name[:i]+"PaxHeaders.0/"+name[i:]), "/"), size)
		x.octal(100, 8, 0)
		x.finish()
		b = h.appendRecordText(append(b, x.block[:]...), size)
	}
	h.finish()
	return append(b, h.block[:]...)
}

// CheckNT returns what keeps an entry out of a Windows layer: its name, its
// kind, its link's target or its metadata. The error is of class
// [errdefs.ErrInvalidArgument]. A Writer that is given the entry would say so
// too.
func CheckNT(e *Entry) error {
	if e.NT == nil {
		return invalid("a %s without Windows' metadata", e.Kind)
	}
	return checkWritable(e)
}

// checkNT finds what would make an entry break [Entry]'s invariant, beyond
// what concerns all.
func checkNT(e *Entry) error {
	if err := checkNTName(e.Name); err != nil {
		return err
	}
	switch e.Kind {
	case Whiteout:
		return checkPlace("whiteout", e.Name)
	case Opaque:
		return checkPlace("opaque directory", e.Name+"/")
	case Stream:
		if err := checkStream(e.Stream); err != nil {
			return err
		}
	case Hardlink:
		if err := checkNTLink(e); err != nil {
			return err
		}
	case Symlink:
		if err := anything.ntTarget(e.Link); err != nil {
			return err
		}
	}
	if e.Kind != Stream {
		return checkNTKind(e)
	}
	return nil
}

func checkNTLink(e *Entry) error {
	if err := checkNTName(e.Link); err != nil {
		return invalid("hard link target: %w", err)
	}
	if err := checkPlace("hard link", e.Name); err != nil {
		return err
	}
	return checkPlace("hard link target", e.Link)
}

// inRange returns the nearest time to t that Windows has a number for.
func inRange(t time.Time) time.Time {
	switch {
	case t.Before(ntEpoch):
		return ntEpoch
	case t.After(ntEnd):
		return ntEnd
	}
	return t
}

// FILETIME counts from 1601 on, and Windows takes no negative ones.
var (
	ntEpoch = time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC)
	ntEnd   = time.Unix(910_692_730_085, 0) // 2^63 units of 100 ns later
)
