package backuptar

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/ntfs"
)

// The bits of a Unix mode that tell the type, which Windows' exporter sets.
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
)

// BasicInfoHeader returns the header of an entry of which only these are known.
func BasicInfoHeader(name string, size int64, fileInfo *winio.FileBasicInfo) *tar.Header {
	hdr := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: strings.ReplaceAll(name, `\`, "/"), Size: size,
		ModTime: fileInfo.LastWriteTime.Time(), AccessTime: fileInfo.LastAccessTime.Time(), ChangeTime: fileInfo.ChangeTime.Time(),
		PAXRecords: map[string]string{
			fileAttr:     strconv.FormatUint(uint64(fileInfo.FileAttributes), 10),
			creationTime: formatTime(fileInfo.CreationTime.Time()),
		},
	}
	if ntfs.Attributes(fileInfo.FileAttributes)&ntfs.AttrDirectory != 0 {
		hdr.Mode |= modeDir
		hdr.Size, hdr.Typeflag = 0, tar.TypeDir
	}
	return hdr
}

// formatTime returns seconds with a fraction, as PAX has times.
func formatTime(t time.Time) string {
	sec, nsec := t.Unix(), int64(t.Nanosecond())
	sign := ""
	if sec < 0 && nsec > 0 { // what lies before 1970 counts backwards
		sec, nsec = sec+1, 1e9-nsec
		if sec == 0 {
			sign = "-"
		}
	}
	if nsec == 0 {
		return strconv.FormatInt(sec, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// WriteTarFileFromBackupStream writes an entry of a file's backup stream, and one of each alternate stream in it. size is that
// of the file's content. Reparse points that are neither symbolic links nor junctions have no form in a tar stream: the error
// is of class errdefs.ErrNotImplemented.
func WriteTarFileFromBackupStream(t *tar.Writer, r io.Reader, name string, size int64, fileInfo *winio.FileBasicInfo) error {
	f := &file{out: t, hdr: BasicInfoHeader(name, size, fileInfo)}
	in := ntfs.NewBackupReader(r)
	for h, err := range in.Streams() {
		if err == nil {
			err = f.add(in, h)
		}
		if err != nil {
			return fmt.Errorf("write tar entry %s: %w", name, err)
		}
	}
	if err := f.start(); err != nil {
		return fmt.Errorf("write tar entry %s: %w", name, err)
	}
	if f.hdr.Typeflag == tar.TypeReg && f.hdr.Size > 0 && !f.data {
		return fmt.Errorf("write tar entry %s: there is no content where %d bytes should be: %w", name, f.hdr.Size, errdefs.ErrDataLoss)
	}
	return nil
}

// file is an entry on its way: its header is written when the metadata is at its end.
type file struct {
	out     *tar.Writer
	hdr     *tar.Header
	meta    ntfs.Meta
	started bool
	data    bool
}

func (f *file) add(in *ntfs.BackupReader, h *ntfs.BackupHeader) error {
	switch h.ID {
	case ntfs.StreamData:
		if f.hdr.Typeflag == tar.TypeReg && f.hdr.Size > 0 { // an empty file is no regular one to Windows' exporter
			f.hdr.Mode |= modeRegular
		}
		f.data = true
		if err := f.start(); err != nil {
			return err
		}
		return f.content(in.Expand())
	case ntfs.StreamAlternate:
		if err := f.start(); err != nil {
			return err
		}
		if h.Sparse() {
			return fmt.Errorf("stream %q is sparse: %w", h.StreamName(), errdefs.ErrNotImplemented)
		}
		err := f.out.WriteHeader(&tar.Header{
			Format: f.hdr.Format, Typeflag: tar.TypeReg, Name: f.hdr.Name + ":" + h.StreamName(), Size: h.Size, Mode: f.hdr.Mode,
			ModTime: f.hdr.ModTime, AccessTime: f.hdr.AccessTime, ChangeTime: f.hdr.ChangeTime,
		})
		if err != nil {
			return err
		}
		return f.content(in)
	}
	_, err := f.meta.Take(in)
	return err
}

// content copies the current entry's content. That it is as long as the header says is tar.Writer's to find out.
func (f *file) content(from io.Reader) error {
	_, err := io.Copy(f.out, from)
	if errors.Is(err, tar.ErrWriteTooLong) {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	return err
}

// start writes the header, once.
func (f *file) start() error {
	if f.started {
		return nil
	}
	f.started = true
	m := &f.meta
	if len(m.SecurityDescriptor) > 0 {
		f.hdr.PAXRecords[rawSD] = base64.StdEncoding.EncodeToString(m.SecurityDescriptor)
	}
	for _, ea := range m.EA {
		f.hdr.PAXRecords[eaPrefix+ea.Name] = base64.StdEncoding.EncodeToString(ea.Value)
	}
	if m.Reparse != nil {
		link, err := ntfs.ParseLink(m.Reparse)
		if errors.Is(err, ntfs.ErrUnsupported) {
			return fmt.Errorf("%w: %w", errdefs.ErrNotImplemented, err)
		}
		if err != nil {
			return err
		}
		f.hdr.Typeflag, f.hdr.Linkname, f.hdr.Size = tar.TypeSymlink, link.Target(), 0
		f.hdr.Mode |= modeSymlink
		if link.Tag == ntfs.TagMountPoint {
			f.hdr.PAXRecords[mountPoint] = "1"
		}
	}
	return f.out.WriteHeader(f.hdr)
}
