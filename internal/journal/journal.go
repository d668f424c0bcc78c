// Package journal is a file that many processes append records to and many
// follow: none is lost on the way, none comes twice, and who stops goes on
// later where it was. What it keeps is bounded: the oldest goes.
//
// It knows nothing of what records say.
//
// # On disk
//
// A journal is a directory of segments. A record is a line of a segment:
//
//	1764021600123456789 1a2b3c4d {"any":"text"}
//
// its number, a CRC-32 (IEEE) of the number's digits and the text, and the
// text. Numbers rise; they are the time of writing in Unix nanoseconds, or one
// more than the last where the clock does not go on. So they mean the same
// after the machine stopped and the last records were not on its disk yet: no
// number is given twice.
//
// A segment's name is the number of the last record before it, 0 for the first
// one. A segment that is full ends in a seal, a line of the last record's
// number and the text "."; the next one is then named. A line "-3" says that
// three records could not be written there, as the disk was full.
//
// Who appends locks the segment (flock), takes off what a killed writer left
// half written at its end, and makes one write. Readers take no lock; a line
// without its end is not there yet.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Seq is the number of a record.
type Seq int64

// Record is what one Append wrote.
type Record struct {
	Seq  Seq
	Text []byte
	// Gap stands for records that are not there: dropped as the oldest, not
	// written on a full disk, or damaged. Seq is that of the record before them,
	// as far as it is known, and there is no Text.
	Gap bool
}

// MaxText is the most bytes that a record's text can have.
const MaxText = 8 << 10

const (
	segmentSize = 1 << 20
	maxSegments = 8

	digits    = 19
	sumDigits = 8
	prefix    = digits + 1 + sumDigits + 1
	maxLine   = prefix + MaxText + 1
	seal      = "."
)

var errDamaged = errors.New("damaged record")

// appendLine appends the line of a record.
func appendLine(b []byte, seq Seq, text []byte) []byte {
	start := len(b)
	b = appendPadded(b, uint64(seq), 10, digits)
	sum := crc32.Update(crc32.ChecksumIEEE(b[start:]), crc32.IEEETable, text)
	b = append(appendPadded(append(b, ' '), uint64(sum), 16, sumDigits), ' ')
	return append(append(b, text...), '\n')
}

// appendPadded appends a number with zeros before it.
func appendPadded(b []byte, n uint64, base, width int) []byte {
	start := len(b)
	b = strconv.AppendUint(b, n, base)
	if missing := width - (len(b) - start); missing > 0 {
		b = slices.Insert(b, start, bytes.Repeat([]byte{'0'}, missing)...)
	}
	return b
}

// parseLine takes a line apart, which ends in its newline.
func parseLine(line []byte) (Seq, []byte, error) {
	if len(line) <= prefix || line[digits] != ' ' || line[prefix-1] != ' ' {
		return 0, nil, errDamaged
	}
	seq, err1 := strconv.ParseInt(string(line[:digits]), 10, 64)
	sum, err2 := strconv.ParseUint(string(line[digits+1:prefix-1]), 16, 32)
	text := line[prefix : len(line)-1]
	if err1 != nil || err2 != nil ||
		uint32(sum) != crc32.Update(crc32.ChecksumIEEE(line[:digits]), crc32.IEEETable, text) {
		return 0, nil, errDamaged
	}
	return Seq(seq), text, nil
}

func segmentFile(dir string, name Seq) string {
	return filepath.Join(dir, fmt.Sprintf("%0*d", digits, name))
}

// segments lists the segments of a journal by their names, oldest first. A
// journal that does not exist has none.
func segments(dir string) ([]Seq, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var list []Seq
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 64); err == nil && n >= 0 && len(e.Name()) == digits {
			list = append(list, Seq(n))
		}
	}
	slices.Sort(list)
	return list, nil
}
