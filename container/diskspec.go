package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/wire"
)

// Disk is a disk image of the host's whose file system a system sees in its
// tree: raw, or a VHD of fixed size, without partitions. As long as one system
// may write to it no other can have it: its start is an error of class
// ErrFailedPrecondition.
type Disk struct {
	Source string `json:"source"` // path of the image on the host
	// Target is an absolute path in the system. It is made if it is missing.
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

func (d *Disk) target() string { return path.Clean(d.Target) }

// excludes reports whether both are of one image, and cannot be mounted at once.
func (d *Disk) excludes(o *Disk) bool {
	return path.Clean(o.Source) == path.Clean(d.Source) && !(o.ReadOnly && d.ReadOnly)
}

// wire finds out what the image is now. Where says where it is mounted.
func (d *Disk) wire(where string) (wire.Disk, error) {
	w := wire.Disk{Image: d.Source, ReadOnly: d.ReadOnly, Target: where}
	err := func() error {
		f, err := os.Open(d.Source)
		if err != nil {
			return missing(err)
		}
		defer func() { _ = f.Close() }() // only read
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fault(errdefs.ErrInvalidArgument, "%s: not a regular file", d.Source)
		}
		image, err := disk.Open(f, info.Size(), disk.OpenOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = image.Close() }()
		switch image.Info().Format {
		case disk.Raw, disk.FixedVHD: // whose data are the file's first bytes
		default:
			return fault(errdefs.ErrNotImplemented, "%s: a %v image, which cannot be mounted: use raw or vhd-fixed", d.Source, image.Info().Format)
		}
		w.Size = image.Size()
		w.Type, err = fileSystem(image)
		return err
	}()
	if err != nil {
		return w, fmt.Errorf("use disk: %w", err)
	}
	return w, nil
}

// fileSystem tells by its magic number which of those that are mounted it is:
// fs/ext4/ext4.h, fs/xfs/libxfs/xfs_format.h, fs/erofs/erofs_fs.h.
func fileSystem(r io.ReaderAt) (string, error) {
	b := make([]byte, 2048)
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch {
	case binary.LittleEndian.Uint16(b[1024+56:]) == 0xef53:
		return "ext4", nil // which mounts its predecessors too
	case bytes.HasPrefix(b, []byte("XFSB")):
		return "xfs", nil
	case binary.LittleEndian.Uint32(b[1024:]) == 0xe0f5e1e2:
		return "erofs", nil
	}
	return "", fault(errdefs.ErrNotImplemented, "it holds none of the file systems ext4, xfs and erofs")
}

func (s *Spec) checkDisks() error {
	for i := range s.Disks {
		d := &s.Disks[i]
		switch {
		case !path.IsAbs(d.Source) || !path.IsAbs(d.Target) || d.target() == "/":
			return fmt.Errorf("disk %q at %q: both must be absolute paths, the target other than /", d.Source, d.Target)
		case reserved(d.target()) != "":
			return fmt.Errorf("disk at %s: %s", d.target(), reserved(d.target()))
		case slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.target() == d.target() }),
			slices.ContainsFunc(s.Disks[:i], func(o Disk) bool { return o.target() == d.target() }):
			return fmt.Errorf("disk at %s: given twice", d.target())
		}
		if j := slices.IndexFunc(s.Disks[:i], func(o Disk) bool { return d.excludes(&o) }); j >= 0 {
			return fmt.Errorf("disk at %s: its image is at %s, too, and one of both is written to", d.target(), s.Disks[j].target())
		}
	}
	return nil
}
