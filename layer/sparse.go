package layer

import (
	"archive/tar"
	"bytes"
	"math"
	"strconv"
	"strings"
)

// GNU tar's sparse files: https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html.
// archive/tar checks the maps and hides them; here they are taken out of the
// header's bytes again.
const (
	sparsePrefix    = "GNU.sparse."
	sparseMajor     = "GNU.sparse.major"
	sparseMinor     = "GNU.sparse.minor"
	sparseName      = "GNU.sparse.name"
	sparseRealSize  = "GNU.sparse.realsize"
	sparseNumBlocks = "GNU.sparse.numblocks"
	sparseMap       = "GNU.sparse.map"
)

// layout says how an entry's content lies in the stream.
type layout struct {
	sparse bool
	data   []Extent
	stored int64 // bytes of content after the header and, if sparse, its map
}

// layoutOf finds the layout of the entry whose header block is given, and the
// map blocks after it that archive/tar has read.
func layoutOf(hdr *tar.Header, block, after []byte) (layout, error) {
	switch hdr.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return layout{}, nil // whatever the size says, archive/tar sees no content
	case tar.TypeGNUSparse:
		data, err := oldGNUMap(block, after)
		return sparseLayout(hdr, block, data, 0, err)
	}
	rec := hdr.PAXRecords
	major, minor := rec[sparseMajor], rec[sparseMinor]
	switch {
	case major == "0" && (minor == "0" || minor == "1"),
		major == "" && minor == "" && rec[sparseMap] != "":
		data, err := listMap(rec[sparseMap], ",")
		return sparseLayout(hdr, block, data, 0, err)
	case major == "1" && minor == "0":
		_, list, _ := strings.Cut(string(after), "\n")
		data, err := countedMap(after, list)
		return sparseLayout(hdr, block, data, int64(len(after)), err)
	case major != "" || minor != "":
		return layout{}, invalid("unknown sparse format %q.%q", major, minor)
	}
	return layout{stored: hdr.Size}, nil
}

// sparseLayout checks that the map and the stored bytes agree.
func sparseLayout(hdr *tar.Header, block []byte, data []Extent, mapSize int64, err error) (layout, error) {
	if err != nil {
		return layout{}, err
	}
	stored, ok := parseNumber(block[124:136])
	if v := hdr.PAXRecords["size"]; v != "" {
		stored, err = strconv.ParseInt(v, 10, 64)
		ok = err == nil
	}
	if !ok {
		return layout{}, invalid("size of a sparse file is not a number")
	}
	stored -= mapSize
	var sum int64
	for _, x := range data {
		sum += x.Length // cannot overflow: archive/tar saw that the parts are apart
	}
	if sum != stored {
		return layout{}, invalid("sparse map accounts for %d bytes where %d are stored", sum, stored)
	}
	return layout{sparse: true, data: data, stored: stored}, nil
}

// oldGNUMap reads the map in a header of type 'S' and its extension blocks.
func oldGNUMap(block, after []byte) ([]Extent, error) {
	data := []Extent{}
	slots, extended := block[386:482], block[482] != 0
	for {
		for ; len(slots) >= 24 && slots[0] != 0; slots = slots[24:] {
			off, ok1 := parseNumber(slots[:12])
			n, ok2 := parseNumber(slots[12:24])
			if !ok1 || !ok2 {
				return nil, invalid("sparse map is not made of numbers")
			}
			data = appendExtent(data, Extent{off, n})
		}
		if !extended {
			return data, nil
		}
		if len(after) < blockSize {
			return nil, invalid("sparse map is cut off")
		}
		slots, extended = after[:504], after[504] != 0
		after = after[blockSize:]
	}
}

// countedMap reads the map of format 1.0: a count, then offsets and lengths, a
// number on each line.
func countedMap(after []byte, list string) ([]Extent, error) {
	head, _, _ := bytes.Cut(after, []byte{'\n'})
	n, err := strconv.ParseInt(string(head), 10, 64)
	if err != nil || n < 0 || n > int64(len(list)) {
		return nil, invalid("sparse map has no count")
	}
	end := 0
	for range 2 * n {
		i := strings.IndexByte(list[end:], '\n')
		if i < 0 {
			return nil, invalid("sparse map is cut off")
		}
		end += i + 1
	}
	return listMap(strings.TrimSuffix(list[:end], "\n"), "\n")
}

// listMap reads offsets and lengths that sep separates.
func listMap(list, sep string) ([]Extent, error) {
	data := []Extent{}
	for list != "" {
		var off, n string
		off, list, _ = strings.Cut(list, sep)
		n, list, _ = strings.Cut(list, sep)
		o, err1 := strconv.ParseInt(off, 10, 64)
		l, err2 := strconv.ParseInt(n, 10, 64)
		if err1 != nil || err2 != nil {
			return nil, invalid("sparse map is not made of numbers")
		}
		data = appendExtent(data, Extent{o, l})
	}
	return data, nil
}

// appendExtent appends x, leaving out what is empty and joining what touches.
func appendExtent(data []Extent, x Extent) []Extent {
	if x.Length == 0 {
		return data
	}
	if n := len(data); n > 0 && data[n-1].Offset+data[n-1].Length == x.Offset {
		data[n-1].Length += x.Length
		return data
	}
	return append(data, x)
}

// blockExtents widens extents to whole blocks, as GNU tar needs them to be
// (archive/tar's documentation of its sparse writer says so too).
func blockExtents(data []Extent, size int64) []Extent {
	wide := make([]Extent, 0, len(data))
	for _, x := range data {
		start, end := x.Offset&^(blockSize-1), x.Offset+x.Length
		end += min(padding(end), size-end)
		if n := len(wide); n > 0 && wide[n-1].Offset+wide[n-1].Length >= start {
			wide[n-1].Length = end - wide[n-1].Offset
			continue
		}
		wide = append(wide, Extent{start, end - start})
	}
	return wide
}

// parseNumber reads a numeric header field: octal, or base 256 with the first
// bit set. Negative numbers are not ok.
func parseNumber(field []byte) (int64, bool) {
	if field[0]&0x80 != 0 {
		return parseBinary(field)
	}
	field = bytes.Trim(field, " \x00")
	field, _, _ = bytes.Cut(field, []byte{0})
	if len(field) == 0 {
		return 0, true
	}
	v, err := strconv.ParseUint(string(field), 8, 64)
	return int64(v), err == nil && v <= math.MaxInt64
}

func parseBinary(field []byte) (int64, bool) {
	if field[0]&0x40 != 0 {
		return 0, false
	}
	v := uint64(field[0] & 0x3f)
	for _, c := range field[1:] {
		if v>>55 != 0 {
			return 0, false
		}
		v = v<<8 | uint64(c)
	}
	return int64(v), true
}
