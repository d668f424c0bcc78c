package layer

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// The PAX records of Windows' metadata: OCI image specification, layer.md
// ("Vendor extensions"), and go-winio's package backuptar.
const (
	ntPrefix    = "MSWINDOWS."
	fileAttr    = "MSWINDOWS.fileattr"
	rawSD       = "MSWINDOWS.rawsd"
	textSD      = "MSWINDOWS.sd" // SDDL; old layers have it
	mountPoint  = "MSWINDOWS.mountpoint"
	eaPrefix    = "MSWINDOWS.xattr."
	creationKey = "LIBARCHIVE.creationtime"
)

// ownNTRecord says whether a field of Meta stands for a PAX record.
func ownNTRecord(key string) bool {
	switch key {
	case fileAttr, rawSD, textSD, mountPoint, creationKey:
		return true
	}
	return strings.HasPrefix(key, eaPrefix)
}

// describe sets an entry's metadata.
func (n *ntReader) describe(e *Entry, hdr *tar.Header, block []byte) error {
	var err error
	e.Mode = uint32(hdr.Mode & 0o7777)
	if e.Kind == Hardlink && e.Mode == hardlinkMode {
		e.Mode = 0
	}
	if e.UID, err = owner("uid", hdr.Uid, hdr.PAXRecords, block[108:116]); err != nil {
		return err
	}
	if e.GID, err = owner("gid", hdr.Gid, hdr.PAXRecords, block[116:124]); err != nil {
		return err
	}
	if err := n.times(e, hdr); err != nil {
		return err
	}
	bare := e.Kind == Whiteout || e.Kind == Opaque || e.Kind == Stream // without metadata of Windows
	for _, r := range n.records {
		if bare && ownNTRecord(r.key) {
			continue
		}
		if err := n.record(e, r); err != nil {
			return err
		}
	}
	if !bare {
		return n.complete(e)
	}
	if e.Kind == Stream && slices.ContainsFunc(n.records, func(r record) bool { return ownNTRecord(r.key) }) {
		return n.flaw(StreamRecords, "that of stream %q is left out", e.Stream)
	}
	return nil
}

// times sets the times that the header has. What is not told is the
// modification time: the zero time would become one in 1754 on Windows.
func (n *ntReader) times(e *Entry, hdr *tar.Header) error {
	e.ModTime, e.AccessTime, e.ChangeTime = hdr.ModTime.UTC(), someTime(hdr.AccessTime), someTime(hdr.ChangeTime)
	if e.ModTime.IsZero() {
		e.ModTime = time.Unix(0, 0).UTC()
	}
	for _, t := range []*time.Time{&e.ModTime, &e.AccessTime, &e.ChangeTime} {
		if err := n.clamp(t); err != nil {
			return err
		}
	}
	if e.Kind == Whiteout || e.Kind == Opaque {
		return nil
	}
	if e.AccessTime.IsZero() {
		e.AccessTime = e.ModTime
	}
	if e.ChangeTime.IsZero() {
		e.ChangeTime = e.ModTime
	}
	return nil
}

// clamp brings a time into the range that Windows has numbers for.
func (n *ntReader) clamp(t *time.Time) error {
	if t.IsZero() {
		return nil
	}
	near := inRange(*t)
	if near.Equal(*t) {
		return nil
	}
	was := *t
	*t = near
	return n.flaw(TimeRange, "year %d becomes %d", was.Year(), near.Year())
}

// record sets what a PAX record tells.
func (n *ntReader) record(e *Entry, r record) (err error) {
	m := e.NT
	switch key := r.key; {
	case key == fileAttr:
		v, err := strconv.ParseUint(r.value, 10, 32)
		if err != nil {
			return invalid("PAX record %q is no number: %q", key, r.value)
		}
		m.Attributes = ntfs.Attributes(v)
	case key == rawSD || key == textSD && !n.has(rawSD):
		m.SecurityDescriptor, err = n.descriptor(key, r.value)
	case key == creationKey:
		return n.creationTime(e, r.value)
	case strings.HasPrefix(key, eaPrefix):
		return n.ea(e, key[len(eaPrefix):], r.value)
	case strings.HasPrefix(key, xattrPrefix):
		return n.limits.xattr(e, xattrUnescaper.Replace(key[len(xattrPrefix):]), r.value)
	case ownRecord(key), ownNTRecord(key):
	default:
		if e.Records == nil {
			e.Records = make(map[string]string)
		}
		e.Records[key] = r.value
	}
	return err
}

// has says whether the entry at hand has a record.
func (n *ntReader) has(key string) bool {
	return slices.ContainsFunc(n.records, func(r record) bool { return r.key == key })
}

// internBytes bounds the memory for texts of descriptors. A Windows image has
// a few hundred different ones.
const internBytes = 4 << 20

// descriptor decodes and judges a security descriptor, if it is new.
func (n *ntReader) descriptor(key, text string) ([]byte, error) {
	if sd, ok := n.descriptors[text]; ok {
		return sd, nil
	}
	sd, err := n.decodeDescriptor(key, text)
	if err != nil {
		return nil, fmt.Errorf("PAX record %q: %w", key, err)
	}
	if n.interned += len(text) + len(sd); n.interned > internBytes {
		clear(n.descriptors)
		n.interned = len(text) + len(sd)
	}
	n.descriptors[strings.Clone(text)] = sd
	return sd, nil
}

func (n *ntReader) decodeDescriptor(key, text string) (sd []byte, err error) {
	if base64.StdEncoding.DecodedLen(len(text))-2 > n.limits.XattrBytes {
		return nil, exceeded("XattrBytes", n.limits.XattrBytes)
	}
	if key == textSD {
		sd, err = encodeSDDL(text)
	} else if sd, err = decodeBase64(text); err == nil {
		_, err = ntfs.ParseSecurityDescriptor(sd)
	}
	if err != nil {
		return nil, invalid("no security descriptor: %w", err)
	}
	return sd, nil
}

func encodeSDDL(text string) ([]byte, error) {
	d, err := ntfs.ParseSDDL(text)
	if err != nil {
		return nil, err
	}
	return d.Append(nil)
}

func decodeBase64(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("no base64: %w", err)
	}
	return b, nil
}

// ea adds an extended attribute.
func (n *ntReader) ea(e *Entry, name, text string) error {
	if err := checkEA(name); err != nil {
		return err
	}
	if base64.StdEncoding.DecodedLen(len(text))-2 > n.limits.XattrBytes {
		return fmt.Errorf("extended attribute %q: %w", name, exceeded("XattrBytes", n.limits.XattrBytes))
	}
	value, err := decodeBase64(text)
	switch {
	case err != nil:
		return invalid("extended attribute %q: %w", name, err)
	case len(value) > maxEA:
		return invalid("extended attribute %q has %d bytes, where NTFS has at most %d", name, len(value), maxEA)
	case len(e.NT.EA) >= n.limits.Xattrs:
		return exceeded("Xattrs", n.limits.Xattrs)
	}
	e.NT.EA = append(e.NT.EA, ntfs.EA{Name: name, Value: value})
	return nil
}

// maxEA is the most bytes that FILE_FULL_EA_INFORMATION has a length for
// ([MS-FSCC] 2.4.16).
const maxEA = 1<<16 - 1

func checkEA(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsAny(name, "=\x00") {
		return invalid("extended attribute has no proper name: %q", name)
	}
	return nil
}

// creationTime reads the creation time. BuildKit prints it as seconds, a dot
// and nanoseconds without leading zeros: 5.000000042 is "5.42". It is a copy
// of the modification time there, and only if it is that very number, it is
// read so; otherwise it is a fraction as any.
func (n *ntReader) creationTime(e *Entry, text string) error {
	t, ok := parsePaxTime(text)
	if !ok {
		return invalid("PAX record %q is no time: %q", creationKey, text)
	}
	t = t.UTC()
	_, frac, _ := strings.Cut(text, ".")
	if m := e.ModTime; t.Unix() == m.Unix() && !t.Equal(m) && frac == strconv.Itoa(m.Nanosecond()) {
		if err := n.flaw(CreationTime, "%s is taken for %s", text, paxTime(m)); err != nil {
			return err
		}
		t = m
	}
	e.NT.CreationTime = t
	return n.clamp(&e.NT.CreationTime)
}

// complete fills in what follows from other things.
func (n *ntReader) complete(e *Entry) error {
	m := e.NT
	if m.CreationTime.IsZero() {
		m.CreationTime = e.ModTime
	}
	if e.Kind == Symlink {
		tag := ntfs.TagSymlink
		if n.has(mountPoint) {
			tag = ntfs.TagMountPoint
		}
		var err error
		if m.Reparse, err = encodeLink(tag, e.Link); err != nil {
			return err
		}
	}
	if _, path := SplitPart(e.Name); e.Kind == Dir && path != "." && !n.defaults && bytes.Equal(m.SecurityDescriptor, defaultDirSD()) {
		n.defaults = true
		if err := n.flaw(DefaultDescriptor, "it replaces that of lower layers, here and in other directories"); err != nil {
			return err
		}
	}
	return n.attributes(e)
}

// attributes makes the attributes agree with the type of the entry, from which
// go-winio takes them where they are not told.
func (n *ntReader) attributes(e *Entry) error {
	m := e.NT
	told, want := m.Attributes, m.Attributes
	switch e.Kind {
	case Dir:
		want = want&^ntfs.AttrReparse | ntfs.AttrDirectory
	case Symlink:
		want |= ntfs.AttrReparse
	case File:
		want &^= ntfs.AttrReparse | ntfs.AttrDirectory
	}
	if m.Attributes = want; told == want || told == 0 && !n.has(fileAttr) {
		return nil
	}
	return n.flaw(Attributes, "%#x of a %s becomes %#x", uint32(told), e.Kind, uint32(want))
}

func isJunction(e *Entry) bool {
	return e.Kind == Symlink && reparseTag(e.NT.Reparse) == ntfs.TagMountPoint
}

// reparseTag returns the tag of a reparse buffer, 0 if it has none.
func reparseTag(b []byte) ntfs.ReparseTag {
	if len(b) < 4 {
		return 0
	}
	return ntfs.ReparseTag(binary.LittleEndian.Uint32(b))
}

// encodeLink makes the reparse buffer of a link.
func encodeLink(tag ntfs.ReparseTag, target string) ([]byte, error) {
	b, err := ntfs.NewLink(tag, strings.ReplaceAll(target, "/", `\`)).Append(nil)
	if err != nil {
		return nil, invalid("no reparse point: %w", err)
	}
	return b, nil
}

// checkMeta finds what the encoding cannot tell.
func checkMeta(e *Entry) error {
	m := e.NT
	if m.Reparse != nil {
		if _, err := ntfs.ParseLink(m.Reparse); err != nil || e.Kind != Symlink {
			return errors.Join(invalid("a layer can tell links of symlinks' entries, but no reparse point %s of a %s", reparseTag(m.Reparse), e.Kind), err)
		}
	}
	for i, ea := range m.EA {
		if err := checkEA(ea.Name); err != nil {
			return err
		}
		if slices.ContainsFunc(m.EA[:i], func(o ntfs.EA) bool { return o.Name == ea.Name }) {
			return invalid("extended attribute %q is given twice", ea.Name)
		}
	}
	return nil
}

// equalNT compares metadata.
func equalNT(a, b *ntfs.Meta) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Attributes == b.Attributes && a.CreationTime.Equal(b.CreationTime) &&
		bytes.Equal(a.SecurityDescriptor, b.SecurityDescriptor) && bytes.Equal(a.Reparse, b.Reparse) &&
		slices.EqualFunc(a.EA, b.EA, func(x, y ntfs.EA) bool {
			return x.Name == y.Name && x.Flags == y.Flags && bytes.Equal(x.Value, y.Value)
		})
}

// builderDirSD is the descriptor that BuildKit and Buildah give to all
// directories: full control for administrators and the system, and for users
// to read and to create,
//
//	O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CI;DC;;;BU)
const builderDirSD = "AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAA" +
	"AgCoAAcAAAAAAxgA/wEfAAECAAAAAAAFIAAAACACAAAAAxQA/wEfAAEBAAAAAAAFEgAAAAAAGAD/AR8AAQIAAAAAAAUgAAAA" +
	"IAIAAAALFAAAAAAQAQEAAAAAAAMAAAAAAAMYAKkAEgABAgAAAAAABSAAAAAhAgAAAAIYAAQAAAABAgAAAAAABSAAAAAhAgAA" +
	"AAIYAAIAAAABAgAAAAAABSAAAAAhAgAA"

var defaultDirSD = sync.OnceValue(func() []byte {
	sd, err := decodeBase64(builderDirSD)
	if err != nil {
		panic(err) // a constant of ours
	}
	return sd
})

// defaultDirMeta is the metadata of a directory that nobody tells anything of.
func defaultDirMeta(at time.Time) ntfs.Meta {
	return ntfs.Meta{Attributes: ntfs.AttrDirectory, CreationTime: at, SecurityDescriptor: defaultDirSD()}
}
