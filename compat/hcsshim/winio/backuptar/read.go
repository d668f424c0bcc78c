package backuptar

import (
	"archive/tar"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/ntfs"
)

// The PAX records of Windows' metadata.
const (
	fileAttr     = "MSWINDOWS.fileattr"
	rawSD        = "MSWINDOWS.rawsd"
	textSD       = "MSWINDOWS.sd"
	mountPoint   = "MSWINDOWS.mountpoint"
	eaPrefix     = "MSWINDOWS.xattr."
	creationTime = "LIBARCHIVE.creationtime"
)

// FileInfoFromHeader returns what a LayerWriter's Add wants to know of a tar entry. What the entry does not tell is the
// modification time, no attribute, or that of directories.
func FileInfoFromHeader(hdr *tar.Header) (name string, size int64, fileInfo *winio.FileBasicInfo, err error) {
	written := winio.NewFiletime(hdr.ModTime)
	told := func(t time.Time) winio.Filetime {
		if t.IsZero() {
			return written
		}
		return winio.NewFiletime(t)
	}
	fileInfo = &winio.FileBasicInfo{
		CreationTime: written, LastAccessTime: told(hdr.AccessTime), LastWriteTime: written, ChangeTime: told(hdr.ChangeTime),
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		size = hdr.Size
	case tar.TypeDir:
		fileInfo.FileAttributes = uint32(ntfs.AttrDirectory)
	}
	if text, ok := hdr.PAXRecords[fileAttr]; ok {
		attributes, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return "", 0, nil, fmt.Errorf("read record %s of %s: %w: %w", fileAttr, hdr.Name, errdefs.ErrInvalidArgument, err)
		}
		fileInfo.FileAttributes = uint32(attributes)
	}
	if text, ok := hdr.PAXRecords[creationTime]; ok {
		t, err := parseTime(text)
		if err != nil {
			return "", 0, nil, fmt.Errorf("read record %s of %s: %w: %w", creationTime, hdr.Name, errdefs.ErrInvalidArgument, err)
		}
		fileInfo.CreationTime = winio.NewFiletime(t)
	}
	return hdr.Name, size, fileInfo, nil
}

// parseTime reads seconds with a fraction, as PAX has times.
func parseTime(text string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	nsec := uint64(0)
	if fraction != "" {
		if nsec, err = strconv.ParseUint((fraction + "000000000")[:9], 10, 32); err != nil {
			return time.Time{}, err
		}
	}
	if strings.HasPrefix(whole, "-") {
		return time.Unix(sec, -int64(nsec)), nil //nolint:gosec // nine digits
	}
	return time.Unix(sec, int64(nsec)), nil //nolint:gosec // nine digits
}

// WriteBackupStreamFromTarFile writes the entry that t is at as a backup stream, the alternate streams that follow it
// included, and returns the header of the entry after them, or io.EOF.
func WriteBackupStreamFromTarFile(w io.Writer, t *tar.Reader, hdr *tar.Header) (*tar.Header, error) {
	out := ntfs.NewBackupWriter(w)
	meta, err := metaOf(hdr)
	if err == nil {
		err = out.WriteMeta(meta)
	}
	if err == nil && hdr.Typeflag == tar.TypeReg {
		err = writeStream(out, &ntfs.BackupHeader{ID: ntfs.StreamData, Size: hdr.Size}, t)
	}
	if err != nil {
		return nil, fmt.Errorf("write backup stream of %s: %w", hdr.Name, err)
	}
	for {
		next, err := t.Next()
		if err != nil {
			return nil, err
		}
		name, ok := strings.CutPrefix(next.Name, hdr.Name+":")
		if next.Typeflag != tar.TypeReg || !ok {
			return next, nil
		}
		name = strings.TrimSuffix(name, ":$DATA")
		if err := writeStream(out, ntfs.AlternateHeader(name, next.Size), t); err != nil {
			return nil, fmt.Errorf("write backup stream of %s: stream %q: %w", hdr.Name, name, err)
		}
	}
}

func writeStream(out *ntfs.BackupWriter, h *ntfs.BackupHeader, content io.Reader) error {
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.Copy(out, content); err != nil {
		return err
	}
	return out.Close()
}

// metaOf returns the metadata in a header that a backup stream has. Extended attributes are in the order of their names: a
// tar.Header does not tell theirs.
func metaOf(hdr *tar.Header) (*ntfs.Meta, error) {
	m := &ntfs.Meta{}
	var err error
	if m.SecurityDescriptor, err = descriptorOf(hdr); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(key, eaPrefix)
		if !ok {
			continue
		}
		value, err := base64.StdEncoding.DecodeString(hdr.PAXRecords[key])
		if err != nil {
			return nil, fmt.Errorf("read record %s: %w: %w", key, errdefs.ErrInvalidArgument, err)
		}
		m.EA = append(m.EA, ntfs.EA{Name: name, Value: value})
	}
	if hdr.Typeflag == tar.TypeSymlink {
		tag := ntfs.TagSymlink
		if _, ok := hdr.PAXRecords[mountPoint]; ok {
			tag = ntfs.TagMountPoint
		}
		m.Reparse, err = ntfs.NewLink(tag, strings.ReplaceAll(hdr.Linkname, "/", `\`)).Append(nil)
	}
	return m, err
}

func descriptorOf(hdr *tar.Header) ([]byte, error) {
	if text, ok := hdr.PAXRecords[rawSD]; ok {
		sd, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("read record %s: %w: %w", rawSD, errdefs.ErrInvalidArgument, err)
		}
		return sd, nil
	}
	text, ok := hdr.PAXRecords[textSD]
	if !ok {
		return nil, nil
	}
	d, err := ntfs.ParseSDDL(text)
	if err != nil {
		return nil, fmt.Errorf("read record %s: %w: %w", textSD, errdefs.ErrInvalidArgument, err)
	}
	return d.Append(nil)
}
