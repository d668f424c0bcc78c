package layer

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

// Most headers are of one form: a ustar block, with a PAX header before it or
// without. parsePlain reads these from memory and leaves all others to
// archive/tar, which takes five times as long: it makes a map and a dozen
// strings of each. Where it reads a header, it reads the same from it; a test
// compares the two on whatever a fuzzer finds.

// plainMagic ends the identifying fields of a ustar block.
const plainMagic = "ustar\x0000"

// plainRecords is how many PAX records a plain header has at the most.
const plainRecords = 64

// parsePlain reads the headers that b starts with into hdr, whose PAXRecords it
// does not set, and appends the PAX records to records, in order. It returns
// the length of the headers, or 0 where b does not hold all of them or they
// are not plain.
func parsePlain(b []byte, hdr *tar.Header, records []record) (n int, _ []record) {
	if len(b) < blockSize || !plainBlock(b) {
		return 0, records
	}
	if b[156] == tar.TypeXHeader {
		x, ok := numbersOf(b)
		size := x.size
		n = blockSize + int(size+padding(size))
		if !ok || size == 0 || size > maxHeaderBytes || len(b) < n+blockSize || !plainBlock(b[n:]) {
			return 0, records
		}
		if records, ok = parseRecords(string(b[blockSize:blockSize+size]), records); !ok {
			return 0, records
		}
	}
	if !plainHeader(b[n:n+blockSize], hdr) || !applyRecords(hdr, records) {
		return 0, records
	}
	return n + blockSize, records
}

// plainBlock says whether a block is a ustar header with the right checksum. A
// star header, which has other fields, differs in what is at its end.
func plainBlock(b []byte) bool {
	if string(b[257:265]) != plainMagic || !allZero(b[500:blockSize]) {
		return false
	}
	want, ok := parseNumber(b[148:156])
	return ok && want == blockSum(b)-byteSum(b[148:156])+8*' '
}

// blockSum adds the bytes of a block, eight at once: the even and the odd ones in lanes of 16 bits, which 64 times two bytes
// do not fill.
func blockSum(b []byte) int64 {
	const lanes = 0x00ff00ff00ff00ff
	var total uint64
	for b := b[:blockSize]; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		total += x&lanes + x>>8&lanes
	}
	return int64(total&0xffff + total>>16&0xffff + total>>32&0xffff + total>>48)
}

func byteSum(b []byte) (total int64) {
	for _, c := range b {
		total += int64(c)
	}
	return total
}

// plainOctal reads a field of octal digits with a NUL at the end.
func plainOctal(field []byte) (v int64, ok bool) {
	end := len(field) - 1
	for _, c := range field[:end] {
		if c < '0' || c > '7' {
			return 0, false
		}
		v = v<<3 | int64(c-'0')
	}
	return v, field[end] == 0
}

// plainHeader reads the block that ends the headers of a file, directory or
// link. Numbers that are not octal, devices and what else is rare are not its
// business.
func plainHeader(b []byte, hdr *tar.Header) bool {
	switch b[156] {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return false
	}
	x, ok := numbersOf(b)
	if !ok {
		return false
	}
	*hdr = tar.Header{
		Typeflag: b[156], Mode: x.mode, Uid: int(x.uid), Gid: int(x.gid), Size: x.size,
		ModTime: time.Unix(x.mtime, 0), Name: plainText(b[:100]),
	}
	if b[157] != 0 {
		hdr.Linkname = plainText(b[157:257])
	}
	if b[345] != 0 {
		hdr.Name = plainText(b[345:500]) + "/" + hdr.Name
	}
	return true
}

// numbers are the numeric fields of a block that are not always 0.
type numbers struct{ mode, uid, gid, size, mtime int64 }

// numbersOf reads the numeric fields; it says false if one is not plain.
func numbersOf(b []byte) (x numbers, ok bool) {
	var ok1, ok2, ok3, ok4, ok5 bool
	x.mode, ok1 = plainOctal(b[100:108])
	x.uid, ok2 = plainOctal(b[108:116])
	x.gid, ok3 = plainOctal(b[116:124])
	x.size, ok4 = plainOctal(b[124:136])
	x.mtime, ok5 = plainOctal(b[136:148])
	return x, ok1 && ok2 && ok3 && ok4 && ok5 && plainDevices(b[329:345])
}

// plainDevices says whether the two fields of device numbers are 0 or empty.
func plainDevices(b []byte) bool {
	const none = "0000000\x00"
	return string(b[:8]) == none && string(b[8:]) == none || allZero(b)
}

func plainText(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

// parseRecords reads the content of a PAX header. It says false to what is
// malformed, and to what needs more than a look at each record for itself:
// sparse maps, deletions, and numbers that stand in for header fields.
func parseRecords(s string, records []record) ([]record, bool) {
	for s != "" {
		key, value, rest, ok := cutRecord(s)
		if !ok || key == "" || value == "" || strings.IndexByte(key, 0) >= 0 ||
			strings.HasPrefix(key, sparsePrefix) || key == "uid" || key == "gid" ||
			len(records) == plainRecords || repeats(records, key) {
			return records, false
		}
		records = append(records, record{key, value})
		s = rest
	}
	return records, true
}

// cutRecord takes the first record off s.
func cutRecord(s string) (key, value, rest string, ok bool) {
	n, at := 0, 0
	for ; at < len(s) && at < 8 && s[at] >= '0' && s[at] <= '9'; at++ {
		n = 10*n + int(s[at]-'0')
	}
	if at == 0 || at >= len(s) || s[at] != ' ' || n <= at+1 || n > len(s) || s[n-1] != '\n' {
		return "", "", s, false
	}
	key, value, ok = strings.Cut(s[at+1:n-1], "=")
	return key, value, s[n:], ok
}

// repeats says whether one of a few records has the key.
func repeats(records []record, key string) bool {
	for _, r := range records {
		if r.key == key {
			return true
		}
	}
	return false
}

// applyRecords sets the header fields that records stand for.
func applyRecords(hdr *tar.Header, records []record) bool {
	ok := true
	for _, r := range records {
		switch r.key {
		case "path":
			hdr.Name, ok = r.value, strings.IndexByte(r.value, 0) < 0
		case "linkpath":
			hdr.Linkname, ok = r.value, strings.IndexByte(r.value, 0) < 0
		case "uname", "gname":
			ok = strings.IndexByte(r.value, 0) < 0
		case "size":
			var err error
			hdr.Size, err = strconv.ParseInt(r.value, 10, 64)
			ok = err == nil && hdr.Size >= 0
		case "mtime":
			hdr.ModTime, ok = parsePaxTime(r.value)
		case "atime":
			hdr.AccessTime, ok = parsePaxTime(r.value)
		case "ctime":
			hdr.ChangeTime, ok = parsePaxTime(r.value)
		}
		if !ok {
			return false
		}
	}
	return true
}

// parsePaxTime reads a time in seconds, as paxTime writes it. Digits beyond
// nanoseconds are cut off.
func parsePaxTime(s string) (time.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	var nsec int64
	for i := range 9 {
		nsec *= 10
		if i < len(frac) {
			if frac[i] < '0' || frac[i] > '9' {
				return time.Time{}, false
			}
			nsec += int64(frac[i] - '0')
		}
	}
	if strings.Trim(frac, "0123456789") != "" {
		return time.Time{}, false
	}
	if whole[0] == '-' {
		nsec = -nsec
	}
	return time.Unix(sec, nsec), true
}
