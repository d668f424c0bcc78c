package disk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"unicode/utf16"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// The GUID partition table, after section 5.3 of the UEFI Specification 2.10. All is little endian.

const (
	gptEntrySize = 128
	gptEntries   = 128 // what everybody writes, and Windows expects
	gptHeader    = 92

	maxGPTEntries   = 1024
	maxGPTEntrySize = 4 * kib

	// PartitionAlignment is what partitions begin at multiples of.
	PartitionAlignment = 1 * mib
)

// Types of partitions.
var (
	MicrosoftReserved = mustGUID("e3c9e316-0b5c-4db8-817d-f92df00215ae")
	BasicData         = mustGUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
)

// Partition is a part of a disk. Offsets and sizes are in bytes.
type Partition struct {
	Type       guid.GUID
	ID         guid.GUID
	Offset     int64
	Size       int64
	Attributes uint64
	Name       string // at most 36 UTF-16 units
}

// Table is a GUID partition table.
type Table struct {
	ID         guid.GUID
	SectorSize int64
	Partitions []Partition // in the order of the table
}

// WindowsTable plans a disk as Windows makes its blank scratch disks: a reserved partition of 16 MiB and one of basic data
// that takes the rest. GUIDs come from r.
func WindowsTable(size, sectorSize int64, r io.Reader) (Table, error) {
	t := Table{SectorSize: sectorSize, Partitions: []Partition{
		{Type: MicrosoftReserved, Offset: PartitionAlignment, Size: 16 * mib, Name: "Microsoft reserved partition"},
		{Type: BasicData, Offset: PartitionAlignment + 16*mib, Name: "Basic data partition"},
	}}
	data := &t.Partitions[1]
	if data.Size = size/PartitionAlignment*PartitionAlignment - PartitionAlignment - data.Offset; data.Size <= 0 {
		return Table{}, invalid("a disk of %d bytes has no space for partitions", size)
	}
	var err error
	for _, id := range []*guid.GUID{&t.ID, &t.Partitions[0].ID, &data.ID} {
		if *id, err = newGUID(r, guid.GUID{}); err != nil {
			return Table{}, err
		}
	}
	return t, nil
}

// tableSectors is how many sectors the entries take.
func (t *Table) tableSectors() int64 {
	return roundUp(gptEntries*gptEntrySize, t.SectorSize) / t.SectorSize
}

// usable returns the first sector that a partition may have, and the last.
func (t *Table) usable(size int64) (first, last int64) {
	return 2 + t.tableSectors(), size/t.SectorSize - 2 - t.tableSectors()
}

// check reports what makes the table impossible for a disk of size bytes.
func (t *Table) check(size int64) error {
	if t.SectorSize != 512 && t.SectorSize != 4096 {
		return fmt.Errorf("sectors of %d bytes", t.SectorSize)
	}
	first, last := t.usable(size)
	if len(t.Partitions) > gptEntries {
		return fmt.Errorf("%d partitions", len(t.Partitions))
	}
	sorted := slices.SortedFunc(slices.Values(t.Partitions), func(a, b Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, p := range sorted {
		switch {
		case p.Type == guid.GUID{}:
			return fmt.Errorf("partition at %d has no type", p.Offset)
		case p.Offset%t.SectorSize != 0 || p.Size%t.SectorSize != 0 || p.Size <= 0:
			return fmt.Errorf("partition at %d of %d bytes is not made of sectors", p.Offset, p.Size)
		case p.Offset < first*t.SectorSize || p.Offset > size || p.Size > (last+1)*t.SectorSize-p.Offset:
			return fmt.Errorf("partition at %d of %d bytes is not on the disk of %d", p.Offset, p.Size, size)
		case i > 0 && sorted[i-1].Offset+sorted[i-1].Size > p.Offset:
			return fmt.Errorf("partitions at %d and %d overlap", sorted[i-1].Offset, p.Offset)
		case len(utf16.Encode([]rune(p.Name))) > 36:
			return fmt.Errorf("name %q is too long", p.Name)
		}
	}
	return nil
}

// WriteTable partitions a disk of size bytes: the protective MBR, the table, and its copy at the end.
func WriteTable(w io.WriterAt, size int64, t Table) error {
	if err := t.check(size); err != nil {
		return fmt.Errorf("write partition table: %w", invalid("%w", err))
	}
	sectors := size / t.SectorSize
	entries := t.encodeEntries()
	first, backup := t.encodeHeader(sectors, 1, sectors-1, 2, entries), t.encodeHeader(sectors, sectors-1, 1, sectors-1-t.tableSectors(), entries)
	for _, part := range []struct {
		b  []byte
		at int64
	}{
		{protectiveMBR(sectors), 0},
		{entries, 2 * t.SectorSize},
		{entries, (sectors - 1 - t.tableSectors()) * t.SectorSize},
		{backup, (sectors - 1) * t.SectorSize},
		{first, t.SectorSize},
	} {
		if _, err := w.WriteAt(part.b, part.at); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}

// protectiveMBR keeps programs that know MBRs alone away (5.2.3).
func protectiveMBR(sectors int64) []byte {
	b := make([]byte, 512)
	e := b[446:]
	copy(e, []byte{0, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff})
	le.PutUint32(e[8:], 1)
	le.PutUint32(e[12:], uint32(min(sectors-1, math.MaxUint32)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (t *Table) encodeEntries() []byte {
	b := make([]byte, t.tableSectors()*t.SectorSize)
	for i, p := range t.Partitions {
		e := b[gptEntrySize*i:]
		putGUID(e, p.Type)
		putGUID(e[16:], p.ID)
		le.PutUint64(e[32:], uint64(p.Offset/t.SectorSize))
		le.PutUint64(e[40:], uint64((p.Offset+p.Size)/t.SectorSize-1))
		le.PutUint64(e[48:], p.Attributes)
		copy(e[56:128], encodeUTF16(p.Name))
	}
	return b
}

func (t *Table) encodeHeader(sectors, here, other, table int64, entries []byte) []byte {
	first, last := t.usable(sectors * t.SectorSize)
	b := make([]byte, t.SectorSize)
	copy(b, "EFI PART")
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], gptHeader)
	le.PutUint64(b[24:], uint64(here))
	le.PutUint64(b[32:], uint64(other))
	le.PutUint64(b[40:], uint64(first))
	le.PutUint64(b[48:], uint64(last))
	putGUID(b[56:], t.ID)
	le.PutUint64(b[72:], uint64(table))
	le.PutUint32(b[80:], gptEntries)
	le.PutUint32(b[84:], gptEntrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(entries[:gptEntries*gptEntrySize]))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeader]))
	return b
}

// ReadTable reads the partition table of a disk of size bytes or, where it is damaged, its copy at the end. Sectors have
// the size with which one of the two is found.
func ReadTable(r io.ReaderAt, size int64) (Table, error) {
	var errs []error
	for _, sector := range []int64{512, 4096} {
		for _, at := range []int64{sector, (size/sector - 1) * sector} {
			t, err := readTable(r, size, sector, at)
			if err == nil {
				return t, nil
			}
			errs = append(errs, err)
		}
	}
	return Table{}, fmt.Errorf("read partition table: %w", mostTelling(errs))
}

var errNoTable = errors.New("no signature")

// mostTelling picks the error of a table that is there, if one is.
func mostTelling(errs []error) error {
	for _, err := range errs {
		if !errors.Is(err, errNoTable) {
			return err
		}
	}
	return errs[0]
}

func readTable(r io.ReaderAt, size, sector, at int64) (Table, error) {
	const structure = "GPT header"
	if at < sector || at+sector > size {
		return Table{}, corrupt(structure, max(at, 0), "not on the disk of %d bytes: %w", size, errNoTable)
	}
	b, err := readStructure(r, structure, at, int(sector))
	if err != nil {
		return Table{}, err
	}
	length := int64(le.Uint32(b[12:]))
	switch {
	case string(b[:8]) != "EFI PART":
		return Table{}, corrupt(structure, at, "%w but %q", errNoTable, b[:8])
	case length < gptHeader || length > sector:
		return Table{}, corrupt(structure, at, "%d bytes", length)
	}
	sum := le.Uint32(b[16:])
	clear(b[16:20])
	if got := crc32.ChecksumIEEE(b[:length]); got != sum {
		return Table{}, corrupt(structure, at, "checksum %#x, content has %#x", sum, got)
	}
	if here := le.Uint64(b[24:]); here != uint64(at/sector) {
		return Table{}, corrupt(structure, at, "it says that it is in sector %d", here)
	}
	t := Table{ID: getGUID(b[56:]), SectorSize: sector}
	if err := t.readEntries(r, size, at, b); err != nil {
		return Table{}, err
	}
	if err := t.check(size); err != nil {
		return Table{}, corrupt("GPT entries", int64(le.Uint64(b[72:]))*sector, "%w", err)
	}
	return t, nil
}

// readEntries reads the entries that a header at an offset tells of.
func (t *Table) readEntries(r io.ReaderAt, size, at int64, header []byte) error {
	table, n, each := le.Uint64(header[72:]), int64(le.Uint32(header[80:])), int64(le.Uint32(header[84:]))
	switch {
	case n > maxGPTEntries || each < gptEntrySize || each > maxGPTEntrySize || each%gptEntrySize != 0:
		return corrupt("GPT header", at, "%d entries of %d bytes", n, each)
	case table > uint64(size/t.SectorSize):
		return corrupt("GPT header", at, "entries in sector %d", table)
	}
	off := int64(table) * t.SectorSize
	b, err := readStructure(r, "GPT entries", off, int(n*each))
	if err != nil {
		return err
	}
	if sum := crc32.ChecksumIEEE(b); sum != le.Uint32(header[88:]) {
		return corrupt("GPT entries", off, "checksum %#x, content has %#x", le.Uint32(header[88:]), sum)
	}
	for e := range slices.Chunk(b, int(max(each, 1))) {
		if isZero(e[:16]) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if last < first || last >= uint64(size/t.SectorSize) {
			return corrupt("GPT entries", off, "partition from sector %d to %d", first, last)
		}
		t.Partitions = append(t.Partitions, Partition{
			Type: getGUID(e), ID: getGUID(e[16:]), Attributes: le.Uint64(e[48:]), Name: partitionName(e[56:128]),
			Offset: int64(first) * t.SectorSize, Size: int64(last-first+1) * t.SectorSize,
		})
	}
	return nil
}

func partitionName(b []byte) string {
	for i := 0; i < len(b); i += 2 {
		if bytes.Equal(b[i:i+2], zeros[:2]) {
			b = b[:i]
		}
	}
	s, _ := decodeUTF16(b, 0, uint16(len(b)))
	return s
}

// Grow gives the last partition what a disk has gained, to a multiple of PartitionAlignment. The copy at the old end is
// not touched; WriteTable writes all anew.
func (t *Table) Grow(size int64) error {
	if len(t.Partitions) == 0 {
		return invalid("grow partition: the table has none")
	}
	i := 0
	for j, p := range t.Partitions {
		if p.Offset > t.Partitions[i].Offset {
			i = j
		}
	}
	end := size/PartitionAlignment*PartitionAlignment - PartitionAlignment
	t.Partitions[i].Size = max(t.Partitions[i].Size, end-t.Partitions[i].Offset)
	return nil
}
