package ntfs3g

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/ntfs"
)

// ntfs-3g sets three of a file's four times; the change time is always that of the call. So it is put into the file's
// record once the volume is unmounted: eight bytes of the standard information, which is always in the record itself.
// The layout is that of linux-ntfs's documentation, https://flatcap.github.io/linux-ntfs/ntfs/.

var le = binary.LittleEndian

const (
	standardInformation = 0x10
	data                = 0x80
	endOfAttributes     = 0xffffffff

	changeTimeOffset = 16 // in the standard information
	maxRecord        = 4096
	strideBytes      = 512 // of an update sequence
)

// volumeFile is the file that a volume is in.
type volumeFile interface {
	io.ReaderAt
	io.WriterAt
}

// table is the master file table: where its records are.
type table struct {
	f      volumeFile
	record int64
	runs   []run
}

// run is a part of the table: bytes of the volume.
type run struct{ at, n int64 }

func malformed(format string, args ...any) error {
	return fmt.Errorf("NTFS volume: %w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

// setChangeTimes sets the change times of files by their numbers.
func setChangeTimes(f volumeFile, times map[uint64]ntfs.FileTime) error {
	t, err := openTable(f)
	if err != nil {
		return err
	}
	for _, number := range slices.Sorted(maps.Keys(times)) {
		if err := t.setChangeTime(number, times[number]); err != nil {
			return err
		}
	}
	return nil
}

func openTable(f volumeFile) (*table, error) {
	boot := make([]byte, 512)
	if _, err := f.ReadAt(boot, 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	sector, perCluster := int64(le.Uint16(boot[11:])), int64(boot[13])
	cluster := sector * perCluster
	t := &table{f: f, record: int64(int8(boot[64])) * cluster}
	if shift := -int8(boot[64]); shift > 0 && shift < 31 { // small records: a power of two
		t.record = 1 << shift
	}
	first := int64(le.Uint64(boot[48:]))
	if string(boot[3:7]) != "NTFS" || cluster <= 0 || t.record < strideBytes || t.record > maxRecord || first <= 0 || first > 1<<40 {
		return nil, malformed("boot sector of no known kind")
	}
	t.runs = []run{{first * cluster, t.record}}
	b, _, err := t.read(0)
	if err != nil {
		return nil, err
	}
	attribute, err := find(b, data)
	if err != nil {
		return nil, err
	}
	t.runs, err = decodeRuns(attribute, cluster)
	return t, err
}

// decodeRuns reads the runs of an attribute that is not in its record: each a byte with the lengths of two numbers, a
// count of clusters and the distance from the run before.
func decodeRuns(attribute []byte, cluster int64) ([]run, error) {
	if len(attribute) < 64 || attribute[8] != 1 {
		return nil, malformed("master file table without runs")
	}
	list := attribute[min(int(le.Uint16(attribute[32:])), len(attribute)):]
	var runs []run
	lcn := int64(0)
	for len(list) > 0 && list[0] != 0 {
		nCount, nDistance := int(list[0]&15), int(list[0]>>4)
		if nCount == 0 || nCount > 8 || nDistance == 0 || nDistance > 8 || len(list) < 1+nCount+nDistance {
			return nil, malformed("run of the master file table")
		}
		count := number(list[1 : 1+nCount])
		lcn += number(list[1+nCount : 1+nCount+nDistance])
		if count <= 0 || count > 1<<40 || lcn < 0 || lcn > 1<<40 {
			return nil, malformed("run of the master file table of %d clusters at %d", count, lcn)
		}
		runs = append(runs, run{lcn * cluster, count * cluster})
		list = list[1+nCount+nDistance:]
	}
	return runs, nil
}

// number reads a signed number of up to 8 bytes.
func number(b []byte) int64 {
	v := int64(int8(b[len(b)-1]))
	for _, c := range slices.Backward(b[:len(b)-1]) {
		v = v<<8 | int64(c)
	}
	return v
}

// read returns a record as it is without its update sequence, and its offset.
func (t *table) read(number uint64) (b []byte, at int64, err error) {
	off := int64(number) * t.record
	for _, r := range t.runs {
		if off < r.n {
			at = r.at + off
			break
		}
		off -= r.n
	}
	if at == 0 || number > 1<<40 {
		return nil, 0, malformed("no file record %d", number)
	}
	b = make([]byte, t.record)
	if _, err := t.f.ReadAt(b, at); err != nil {
		return nil, 0, fmt.Errorf("read file record %d: %w", number, err)
	}
	sequence, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if string(b[:4]) != "FILE" || n != int(t.record)/strideBytes+1 || sequence+2*n > len(b) {
		return nil, 0, malformed("file record %d at offset %d is none", number, at)
	}
	for i := 1; i < n; i++ {
		copy(b[i*strideBytes-2:i*strideBytes], b[sequence+2*i:])
	}
	return b, at, nil
}

// write puts a record back, with the ends of its sectors in the update sequence again.
func (t *table) write(b []byte, at int64) error {
	sequence, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	for i := 1; i < n; i++ {
		end := b[i*strideBytes-2 : i*strideBytes]
		copy(b[sequence+2*i:], end)
		copy(end, b[sequence:sequence+2])
	}
	_, err := t.f.WriteAt(b, at)
	return err
}

// find returns the first attribute of a kind in a record.
func find(b []byte, kind uint32) ([]byte, error) {
	for at := int(le.Uint16(b[20:])); at+24 <= len(b) && le.Uint32(b[at:]) != endOfAttributes; {
		n := int(le.Uint32(b[at+4:]))
		if n < 24 || n > len(b)-at {
			break
		}
		if le.Uint32(b[at:]) == kind {
			return b[at : at+n], nil
		}
		at += n
	}
	return nil, malformed("file record without attribute %#x", kind)
}

// resident returns the content of a file that has it in its record.
func resident(f volumeFile, number uint64) ([]byte, error) {
	t, err := openTable(f)
	if err != nil {
		return nil, err
	}
	b, _, err := t.read(number)
	if err != nil {
		return nil, err
	}
	attribute, err := find(b, data)
	if err != nil {
		return nil, err
	}
	size, value := int(le.Uint32(attribute[16:])), int(le.Uint16(attribute[20:]))
	switch {
	case attribute[8] != 0 || attribute[9] != 0:
		return nil, fmt.Errorf("content of file record %d is not in it: %w", number, errdefs.ErrNotImplemented)
	case value+size > len(attribute):
		return nil, malformed("content of file record %d", number)
	}
	return attribute[value : value+size], nil
}

func (t *table) setChangeTime(number uint64, to ntfs.FileTime) error {
	b, at, err := t.read(number)
	if err != nil {
		return err
	}
	attribute, err := find(b, standardInformation)
	if err != nil {
		return err
	}
	value := int(le.Uint16(attribute[20:])) + changeTimeOffset
	if attribute[8] != 0 || value+8 > len(attribute) {
		return malformed("standard information of file record %d", number)
	}
	le.PutUint64(attribute[value:], uint64(to))
	return t.write(b, at)
}
