package regf

import (
	"fmt"
	"math/bits"
)

const (
	sector    = 512
	entrySize = 40 // of a log entry's head
	logOld    = 1  // types of file, at offset 28 of the base block; 2 is a log of Windows 2000
	logOld2   = 2
	logNew    = 6
)

// Replay makes a dirty hive whole: it applies what is missing from the hive's logs, .LOG1 before .LOG2, or .LOG. It
// returns a new file, or the file itself where that is not dirty. Logs that do not belong to the hive, or of which
// nothing is missing, are passed over; it is an error if the hive is dirty still after all logs.
//
// As on Windows, a log's entries are applied up to the first that is damaged or out of sequence.
func Replay(primary []byte, logs ...[]byte) ([]byte, error) {
	if len(primary) < headerSize || string(primary[:4]) != "regf" {
		return nil, fmt.Errorf("replay logs: no base block of a hive in %d bytes: %w", len(primary), ErrCorrupt)
	}
	whole := le32(primary[508:]) == checksum(primary)
	if whole && !parseHeader(primary).Dirty() {
		return primary, nil
	}
	r := replay{hive: append([]byte(nil), primary...), damaged: !whole}
	for _, log := range logs {
		r.room += len(log)
	}
	for range logs { // either log may continue the other
		for _, log := range logs {
			if len(log) >= sector && string(log[:4]) == "regf" && le32(log[508:]) == checksum(log) {
				r.log(log)
			}
		}
	}
	if !r.done {
		return nil, fmt.Errorf("replay logs: hive is dirty and none of %d logs has what it lacks: %w", len(logs), ErrCorrupt)
	}
	return r.hive, nil
}

type replay struct {
	hive    []byte
	damaged bool   // the base block is not yet mended
	done    bool   // something was applied
	next    uint32 // sequence number of the next log entry
	room    int    // how much the hive may grow: new bins are dirty, so the logs have their pages
}

func (r *replay) log(log []byte) {
	switch le32(log[28:]) {
	case logOld, logOld2:
		if !r.done {
			r.done = r.dirtyVector(log)
		}
	case logNew:
		r.entries(log)
	}
}

// mendHeader takes the base block of a log where the hive's own is damaged.
func (r *replay) mendHeader(log []byte) {
	if r.damaged {
		copy(r.hive[:sector], log)
		put32(r.hive[28:], 0)
		r.damaged = false
	}
}

// finish notes in the base block what was applied.
func (r *replay) finish(sequence, dataSize uint32) {
	put32(r.hive[4:], sequence)
	put32(r.hive[8:], sequence)
	put32(r.hive[40:], dataSize)
	put32(r.hive[508:], checksum(r.hive))
	r.done = true
}

// grow gives the hive the bins that it has after the log. A log that claims more than it has pages for is bogus.
func (r *replay) grow(dataSize uint32) bool {
	want := headerSize + int(dataSize)
	if dataSize == 0 || dataSize%binAlign != 0 || dataSize > maxDataSize || want-len(r.hive) > r.room {
		return false
	}
	if grown := want - len(r.hive); grown > 0 {
		r.room -= grown
		r.hive = append(r.hive, make([]byte, grown)...)
	}
	return true
}

// dirtyVector applies a log of the old format: a bitmap of pages of 512 bytes, and the pages.
func (r *replay) dirtyVector(log []byte) bool {
	size := le32(log[40:])
	stamp := le64(r.hive[12:])
	if r.damaged && len(r.hive) >= headerSize+binHeader {
		stamp = le64(r.hive[headerSize+20:])
	}
	if le32(log[4:]) != le32(log[8:]) || le64(log[12:]) != stamp || size%binAlign != 0 || size > maxDataSize {
		return false
	}
	length := int(size / sector / 8)
	if len(log) < sector+4+length || string(log[sector:sector+4]) != "DIRT" {
		return false
	}
	bitmap := log[sector+4:][:length]
	dirty := 0
	for _, b := range bitmap {
		dirty += bits.OnesCount8(b)
	}
	pages := (sector + 4 + length + sector - 1) &^ (sector - 1)
	if len(log) < pages+dirty*sector || !r.grow(size) {
		return false
	}
	r.mendHeader(log)
	page := log[pages:]
	for i := range int(size / sector) {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			copy(r.hive[headerSize+i*sector:], page[:sector])
			page = page[sector:]
		}
	}
	r.finish(le32(log[4:]), size)
	return true
}

// entries applies the entries of a log of the new format that the hive lacks.
func (r *replay) entries(log []byte) {
	if r.next == 0 {
		r.next = le32(r.hive[8:])
		if r.damaged {
			r.next = le32(log[8:])
		}
	}
	applied := false
	for at := sector; at+entrySize <= len(log); {
		entry := log[at:]
		size := le32(entry[4:])
		if string(entry[:4]) != "HvLE" || size < entrySize || size%sector != 0 || uint64(size) > uint64(len(entry)) {
			return
		}
		entry = entry[:size]
		at += int(size)
		if le64(entry[24:]) != marvin(logSeed, entry[entrySize:]) || le64(entry[32:]) != marvin(logSeed, entry[:32]) {
			return
		}
		sequence := le32(entry[12:])
		if sequence < r.next && !applied {
			continue // applied long ago
		}
		if sequence != r.next || !r.entry(log, entry) {
			return
		}
		applied = true
		r.next++
	}
}

func (r *replay) entry(log, entry []byte) bool {
	dataSize, count := le32(entry[16:]), uint64(le32(entry[20:]))
	if uint64(len(entry)) < entrySize+8*count {
		return false
	}
	refs, pages := entry[entrySize:entrySize+8*count], entry[entrySize+8*count:]
	var total uint64
	for i := 0; i < len(refs); i += 8 {
		off, size := uint64(le32(refs[i:])), uint64(le32(refs[i+4:]))
		if total += size; off+size > uint64(dataSize) {
			return false
		}
	}
	if total > uint64(len(pages)) || !r.grow(dataSize) {
		return false
	}
	r.mendHeader(log)
	for ; len(refs) > 0; refs = refs[8:] {
		off, size := le32(refs), le32(refs[4:])
		copy(r.hive[headerSize+int(off):], pages[:size])
		pages = pages[size:]
	}
	put32(r.hive[144:], le32(entry[8:]))
	r.finish(le32(entry[12:]), dataSize)
	return true
}

// logSeed is the seed of the hashes in logs.
const logSeed = 0xC5554E7A884DEF82

// marvin is Marvin32, https://patents.google.com/patent/US20130262421A1.
func marvin(seed uint64, b []byte) uint64 {
	lo, hi := uint32(seed), uint32(seed>>32) //nolint:gosec // the halves
	mix := func(v uint32) {
		lo += v
		hi ^= lo
		lo = bits.RotateLeft32(lo, 20) + hi
		hi = bits.RotateLeft32(hi, 9) ^ lo
		lo = bits.RotateLeft32(lo, 27) + hi
		hi = bits.RotateLeft32(hi, 19)
	}
	for ; len(b) >= 4; b = b[4:] {
		mix(le32(b))
	}
	tail := uint32(0x80)
	for i := len(b) - 1; i >= 0; i-- {
		tail = tail<<8 | uint32(b[i])
	}
	mix(tail)
	mix(0)
	return uint64(hi)<<32 | uint64(lo)
}
