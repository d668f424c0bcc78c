package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/ntfs3g"
	"github.com/hostcompute/hcs/internal/temporary"
)

// GrowNTFS gives the disk in the image name size bytes, which is no less than it has, and the room to the NTFS volume in its
// last partition. The image may be a differencing one, which gets what changes; Parent images are opened as by OpenFile. It
// needs ntfsresize and ntfsfix of ntfs-3g, and in the directory for temporary files space for the volume's data.
//
// A disk without such a volume is an error of class errdefs.ErrNotFound, one without partitions of class
// errdefs.ErrInvalidArgument, and less than there is of class errdefs.ErrNotImplemented; then nothing has changed. A call that is killed while it writes may leave a volume that chkdsk
// must mend: who cannot do without grows a copy.
func GrowNTFS(ctx context.Context, name string, size int64, o FileOptions) error {
	if err := growNTFS(ctx, name, size, o); err != nil {
		return fmt.Errorf("grow NTFS disk image %s: %w", name, err)
	}
	return nil
}

func growNTFS(ctx context.Context, name string, size int64, o FileOptions) (err error) {
	o.Access = ReadWrite
	d, err := OpenFile(name, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if size == d.Size() {
		return nil
	}
	table, err := grownTable(d, size)
	if err != nil {
		return err
	}
	part := table.Partitions[len(table.Partitions)-1]
	return withVolume(ctx, "", part.Size, func(_ *temporary.Dir, volume *os.File) error {
		if err := copyPart(ctx, volume, d, part); err != nil {
			return err
		}
		if err := ntfs3g.Grow(ctx, volume.Name()); err != nil {
			return err
		}
		if err := moveTable(d, size, table); err != nil {
			return err
		}
		if err := updatePart(ctx, d, part, volume); err != nil {
			return err
		}
		return d.Sync()
	})
}

// grownTable returns what the disk's table is to be when it has size bytes: the last partition, with the volume, has what is
// new.
func grownTable(d *Disk, size int64) (Table, error) {
	if size < d.Size() {
		return Table{}, fmt.Errorf("it has %d bytes, and volumes do not shrink: %w", d.Size(), errdefs.ErrNotImplemented)
	}
	table, err := ReadTable(d, d.Size())
	if err != nil {
		return table, err
	}
	part, err := findNTFS(d)
	if err != nil {
		return table, err
	}
	last := &table.Partitions[0]
	for i := range table.Partitions {
		if p := &table.Partitions[i]; p.Offset > last.Offset {
			last = p
		}
	}
	if *last != part {
		return table, fmt.Errorf("its NTFS volume is not in the last partition: %w", errdefs.ErrNotImplemented)
	}
	*last = table.Partitions[len(table.Partitions)-1]
	part.Size = max(part.Size, size/PartitionAlignment*PartitionAlignment-PartitionAlignment-part.Offset)
	table.Partitions[len(table.Partitions)-1] = part
	return table, nil
}

// moveTable makes the disk larger. The old copy of the table, in what is the partition's now, goes.
func moveTable(d *Disk, size int64, table Table) error {
	before := d.Size()
	if err := d.Resize(size); err != nil {
		return err
	}
	if err := WriteTable(d, size, table); err != nil {
		return err
	}
	end := table.Partitions[len(table.Partitions)-1].Offset + table.Partitions[len(table.Partitions)-1].Size
	n := (1 + table.tableSectors()) * table.SectorSize
	return writeZeros(d, before-n, min(before, end)-(before-n))
}

// updatePart writes what the volume has otherwise than its partition.
func updatePart(ctx context.Context, d *Disk, part Partition, volume *os.File) error {
	u := updater{ctx: ctx, d: d, offset: part.Offset, volume: volume}
	for x, err := range dataOf(volume, part.Size) {
		if err == nil {
			err = u.run(x.Offset, min(x.Offset+x.Length, part.Size))
		}
		if err != nil {
			return err
		}
	}
	for x, err := range d.Extents() { // where the volume may have zeros by now
		if err == nil {
			err = u.run(max(x.Offset-part.Offset, 0), min(x.Offset+x.Length-part.Offset, part.Size))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// updater compares a volume with its partition.
type updater struct {
	ctx      context.Context // of the one call that it is for
	d        *Disk
	offset   int64
	volume   io.ReaderAt
	was, now [holeUnit]byte
}

// run compares from one offset in the volume to another.
func (u *updater) run(from, to int64) error {
	for from < to {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n := min(to-from, holeUnit-from%holeUnit)
		now, was := u.now[:n], u.was[:n]
		if err := errors.Join(readZeroed(u.volume, now, from), readZeroed(u.d, was, u.offset+from)); err != nil {
			return err
		}
		if !bytes.Equal(now, was) {
			if _, err := u.d.WriteAt(now, u.offset+from); err != nil {
				return err
			}
		}
		from += n
	}
	return nil
}
