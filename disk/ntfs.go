package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/ntfs3g"
	"github.com/hostcompute/hcs/internal/temporary"
	"github.com/hostcompute/hcs/layer"
)

// An Adder puts an entry of a Windows layer, or with its content a file or a stream, into a volume. Parents come before what
// is in them, and streams right after their file. Names are those on the volume: without a layer's "Files/".
type Adder func(e *layer.Entry, content io.Reader) error

// CreateNTFS makes the image name, which must not exist: a disk with the partitions of WindowsTable, and in the one of basic
// data an NTFS volume with what fill adds. With a nil fill the volume is empty. It needs the programs of ntfs-3g, root unless
// ntfs-3g is setuid root, and beside the image space for the volume as long as it runs. The image appears when it is complete
// and durable; after an error nothing is left. What a killed call left beside it the next one there removes.
func CreateNTFS(ctx context.Context, name, label string, o Options, fill func(Adder) error) error {
	if err := createNTFS(ctx, name, label, o, fill); err != nil {
		return fmt.Errorf("create NTFS disk image %s: %w", name, err)
	}
	return nil
}

func createNTFS(ctx context.Context, name, label string, o Options, fill func(Adder) error) (err error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Format == DifferencingVHDX || o.SectorSize != 0 && o.SectorSize != 512 {
		return fmt.Errorf("a volume in a %v image with sectors of %d bytes: %w", o.Format, o.SectorSize, errdefs.ErrNotImplemented)
	}
	if err := checkFree(name); err != nil { // which at the end would be late
		return err
	}
	table, err := WindowsTable(o.Size, 512, o.Rand)
	if err != nil {
		return err
	}
	partition := table.Partitions[len(table.Partitions)-1]
	return withVolume(ctx, filepath.Dir(name), partition.Size, func(work *temporary.Dir, volume *os.File) error {
		if err := ntfs3g.Format(ctx, volume.Name(), label, partition.Offset); err != nil {
			return err
		}
		if err := fillVolume(ctx, volume.Name(), fill); err != nil {
			return err
		}
		if err := writeImage(ctx, work.Path(imageName), o, table, volume); err != nil {
			return err
		}
		return work.Publish(imageName, name)
	})
}

// withVolume makes an empty file of size bytes for a volume, in a temporary directory below parent, and takes both away after
// they were used.
func withVolume(ctx context.Context, parent string, size int64, use func(work *temporary.Dir, volume *os.File) error) (err error) {
	work, err := temporary.New(ctx, temporary.Config{Parent: parent, Prefix: workPrefix})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	volume, err := createVolume(work, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, volume.Close()) }()
	return use(work, volume)
}

// The names of what is made in a temporary directory, and what that is called.
const (
	workPrefix = ".hcs-volume-"
	volumeName = "volume"
	imageName  = "image"
)

// checkFree says whether there is nothing of that name.
func checkFree(name string) error {
	_, err := os.Lstat(name)
	if err == nil {
		return fmt.Errorf("%w: %w", errdefs.ErrAlreadyExists, fs.ErrExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// createVolume makes the file for a volume, all zeros.
func createVolume(work *temporary.Dir, size int64) (*os.File, error) {
	f, err := os.OpenFile(work.Path(volumeName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writeImage makes an image with the partitions of a table, the last of which holds the volume.
func writeImage(ctx context.Context, name string, o Options, table Table, volume io.ReaderAt) error {
	d, err := CreateFile(name, o)
	if err != nil {
		return err
	}
	partition := table.Partitions[len(table.Partitions)-1]
	err = errors.Join(WriteTable(d, o.Size, table),
		Copy(ctx, io.NewOffsetWriter(d, partition.Offset), volume, partition.Size))
	if err == nil {
		err = d.Sync()
	}
	return errors.Join(err, d.Close())
}

func fillVolume(ctx context.Context, path string, fill func(Adder) error) error {
	if fill == nil {
		return nil
	}
	v, err := ntfs3g.Mount(ctx, path)
	if err != nil {
		return err
	}
	add := func(e *layer.Entry, content io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return v.Add(e, content)
	}
	return errors.Join(fill(add), v.Close())
}

// ReadNTFS calls f for everything on the first NTFS volume of a disk: parents before what is in them, streams right after
// their file. It needs ntfs-3g, root unless that is setuid root, and in the directory for temporary files space for the
// volume's data.
func ReadNTFS(ctx context.Context, d *Disk, f func(e *layer.Entry, content io.Reader) error) error {
	if err := readNTFS(ctx, d, f); err != nil {
		return fmt.Errorf("read NTFS of disk: %w", err)
	}
	return nil
}

func readNTFS(ctx context.Context, d *Disk, f func(e *layer.Entry, content io.Reader) error) (err error) {
	part, err := findNTFS(d)
	if err != nil {
		return err
	}
	work, err := temporary.New(ctx, temporary.Config{Prefix: workPrefix})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	volume, err := createVolume(work, part.Size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, volume.Close()) }()
	if err := copyPart(ctx, volume, d, part); err != nil {
		return err
	}
	v, err := ntfs3g.Mount(ctx, volume.Name())
	if err != nil {
		return err
	}
	return errors.Join(v.Walk(f), v.Close())
}

// copyPart copies a partition by the disk's extents, so that a large empty one costs nothing.
func copyPart(ctx context.Context, dst io.WriterAt, d *Disk, part Partition) error {
	end := part.Offset + part.Size
	for x, err := range d.Extents() {
		from, to := max(x.Offset, part.Offset), min(x.Offset+x.Length, end)
		if err == nil && from < to {
			err = Copy(ctx, io.NewOffsetWriter(dst, from-part.Offset), io.NewSectionReader(d, from, to-from), to-from)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// findNTFS returns the first partition of basic data with an NTFS boot sector.
func findNTFS(d *Disk) (Partition, error) {
	table, err := ReadTable(d, d.Size())
	if err != nil {
		return Partition{}, err
	}
	for _, p := range table.Partitions {
		b := make([]byte, 8)
		if err := readZeroed(d, b, p.Offset+3); err != nil {
			return Partition{}, err
		}
		if p.Type == BasicData && string(b) == "NTFS    " {
			return p, nil
		}
	}
	return Partition{}, fmt.Errorf("no NTFS volume in %d partitions: %w", len(table.Partitions), errdefs.ErrNotFound)
}
