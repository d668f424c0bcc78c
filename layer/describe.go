package layer

import (
	"archive/tar"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

const xattrPrefix = "SCHILY.xattr."

// identify sets an entry's kind, name and link, and says what its name means.
func (l *Limits) identify(e *Entry, hdr *tar.Header) (meaning, error) {
	name, err := l.cleanName(hdr.Name)
	if err != nil {
		return 0, err
	}
	what, name, err := judge(name)
	if err != nil {
		return 0, err
	}
	e.Name = name
	switch what {
	case forgotten:
		return what, nil
	case whiteout:
		e.Kind = Whiteout
		return what, nil
	case opaque:
		e.Kind = Opaque
		return what, nil
	}
	if e.Kind, err = kindOf(hdr.Typeflag); err != nil {
		return 0, err
	}
	if name == "." && e.Kind != Dir {
		return 0, invalid("the layer's root is a %s", e.Kind)
	}
	return what, l.link(e, hdr.Linkname)
}

func kindOf(flag byte) (Kind, error) {
	switch flag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return File, nil
	case tar.TypeLink:
		return Hardlink, nil
	case tar.TypeSymlink:
		return Symlink, nil
	case tar.TypeChar:
		return CharDevice, nil
	case tar.TypeBlock:
		return BlockDevice, nil
	case tar.TypeDir:
		return Dir, nil
	case tar.TypeFifo:
		return Fifo, nil
	}
	return 0, invalid("unknown tar type %q", flag)
}

// link sets and judges a link's target.
func (l *Limits) link(e *Entry, target string) error {
	switch e.Kind {
	case Symlink:
		if target == "" {
			return invalid("symlink has no target")
		}
		if strings.IndexByte(target, 0) >= 0 {
			return invalid("symlink target contains a NUL byte")
		}
		if len(target) > l.NameBytes {
			return fmt.Errorf("symlink target: %w", exceeded("NameBytes", l.NameBytes))
		}
		e.Link = target
	case Hardlink:
		name, err := l.cleanName(target)
		if err != nil {
			return fmt.Errorf("hard link target %q: %w", target, err)
		}
		what, _, err := judge(name)
		switch {
		case err != nil:
			return fmt.Errorf("hard link target %q: %w", target, err)
		case what != ordinary:
			return invalid("hard link target %q is a whiteout name", target)
		case name == ".":
			return invalid("hard link to the layer's root")
		case name == e.Name:
			return invalid("hard link to itself")
		}
		e.Link = name
	}
	return nil
}

// describe sets an entry's metadata.
func (l *Limits) describe(e *Entry, hdr *tar.Header, block []byte) error {
	var err error
	e.Mode = uint32(hdr.Mode & 0o7777)
	if e.UID, err = owner("uid", hdr.Uid, hdr.PAXRecords, block[108:116]); err != nil {
		return err
	}
	if e.GID, err = owner("gid", hdr.Gid, hdr.PAXRecords, block[116:124]); err != nil {
		return err
	}
	e.ModTime, e.AccessTime, e.ChangeTime = hdr.ModTime.UTC(), someTime(hdr.AccessTime), someTime(hdr.ChangeTime)
	if e.ModTime.IsZero() {
		e.ModTime = time.Unix(0, 0).UTC() // the zero Time stands for "unset"
	}
	if e.Kind == CharDevice || e.Kind == BlockDevice {
		if uint64(hdr.Devmajor) > math.MaxUint32 || uint64(hdr.Devminor) > math.MaxUint32 {
			return invalid("device number %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		e.Major, e.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	}
	return l.records(e, hdr.PAXRecords)
}

// someTime returns t in UTC, the zero Time for the zero Time.
func someTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// owner judges a user or group id, which archive/tar gives as an int, too
// narrow on some machines.
func owner(key string, id int, records map[string]string, field []byte) (uint32, error) {
	wide, ok := int64(id), true
	if strconv.IntSize == 32 {
		if wide, ok = parseNumber(field); records[key] != "" {
			v, err := strconv.ParseInt(records[key], 10, 64)
			wide, ok = v, err == nil
		}
	}
	if !ok || wide < 0 || wide >= math.MaxUint32 {
		return 0, invalid("%s %d is out of range", key, wide)
	}
	return uint32(wide), nil
}

// records sets an entry's extended attributes, and keeps the PAX records that
// no field stands for. archive/tar takes an empty value for a deleted record;
// an attribute may well be empty.
func (l *Limits) records(e *Entry, records map[string]string) error {
	for k, v := range records {
		name, isXattr := strings.CutPrefix(k, xattrPrefix)
		switch {
		case isXattr:
			if err := l.xattr(e, xattrUnescaper.Replace(name), v); err != nil {
				return err
			}
		case ownRecord(k):
		default:
			if e.Records == nil {
				e.Records = make(map[string]string)
			}
			e.Records[k] = v
		}
	}
	return nil
}

// GNU tar escapes the two characters of an attribute's name that would be
// taken for something else in a PAX record.
var (
	xattrUnescaper = strings.NewReplacer("%25", "%", "%3D", "=")
	xattrEscaper   = strings.NewReplacer("%", "%25", "=", "%3D")
)

func (l *Limits) xattr(e *Entry, name, value string) error {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return invalid("extended attribute has no proper name: %q", name)
	}
	if len(value) > l.XattrBytes {
		return fmt.Errorf("extended attribute %q: %w", name, exceeded("XattrBytes", l.XattrBytes))
	}
	if e.Xattrs == nil {
		e.Xattrs = make(map[string]string)
	}
	if _, twice := e.Xattrs[name]; twice {
		return fmt.Errorf("extended attribute %q is given twice: %w", name, errdefs.ErrInvalidArgument)
	}
	if len(e.Xattrs) >= l.Xattrs {
		return exceeded("Xattrs", l.Xattrs)
	}
	e.Xattrs[name] = value
	return nil
}

// ownRecord says whether a field of Entry, or the writer itself, stands for a
// PAX record.
func ownRecord(key string) bool {
	switch key {
	case "path", "linkpath", "size", "uid", "gid", "mtime", "atime", "ctime", "hdrcharset":
		return true
	}
	return strings.HasPrefix(key, sparsePrefix) || strings.HasPrefix(key, xattrPrefix)
}
