package userns

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Extent is a run of ids: from Inside on in a user namespace, and from Outside
// on in the one that it is seen from.
type Extent struct{ Inside, Outside, Count uint32 }

// Map says which ids a user namespace has.
type Map []Extent

// Has reports whether the namespace has the id.
func (m Map) Has(id uint32) bool {
	for _, e := range m {
		if id >= e.Inside && id-e.Inside < e.Count {
			return true
		}
	}
	return false
}

// Count returns how many ids there are.
func (m Map) Count() uint64 {
	var n uint64
	for _, e := range m {
		n += uint64(e.Count)
	}
	return n
}

// allIDs is how many ids the initial user namespace has: 2^32-1 is none.
const allIDs = 1<<32 - 1

// isInitial reports whether the map is that of the initial user namespace, or
// of one that cannot be told from it.
func (m Map) isInitial() bool { return len(m) == 1 && m[0] == Extent{Count: allIDs} }

// args returns the map as newuidmap(1) takes it.
func (m Map) args() []string {
	var list []string
	for _, e := range m {
		for _, n := range []uint32{e.Inside, e.Outside, e.Count} {
			list = append(list, strconv.FormatUint(uint64(n), 10))
		}
	}
	return list
}

// parseMap reads /proc/PID/uid_map: lines of three numbers.
func parseMap(text string) (Map, error) {
	var m Map
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("malformed line %q", strings.TrimSpace(line))
		}
		var n [3]uint32
		for i, f := range fields {
			v, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("malformed line %q", strings.TrimSpace(line))
			}
			n[i] = uint32(v)
		}
		m = append(m, Extent{n[0], n[1], n[2]})
	}
	if len(m) == 0 {
		return nil, errors.New("no ids are mapped")
	}
	return m, nil
}

// maxExtents bounds the lines of a map: the kernel takes 340 (UID_GID_MAP_MAX_EXTENTS).
const maxExtents = 340

// mapping returns the map in which the user is root, and the ids that are his
// beside that follow from 1 on. The text is that of /etc/subuid or /etc/subgid
// (subuid(5)): lines name:start:count, where the name may be a number. Lines
// that are malformed are passed over, as newuidmap(1) does.
func mapping(self uint32, text string, names ...string) Map {
	m := Map{{0, self, 1}}
	next := uint64(1)
	for line := range strings.Lines(text) {
		name, start, count, ok := parseSubID(line)
		if !ok || !slices.Contains(names, name) || len(m) == maxExtents || next+count > allIDs || m.overlaps(start, count) {
			continue
		}
		m = append(m, Extent{uint32(next), uint32(start), uint32(count)})
		next += count
	}
	return m
}

// parseSubID reads a line of /etc/subuid or /etc/subgid.
func parseSubID(line string) (name string, start, count uint64, ok bool) {
	f := strings.Split(strings.TrimSpace(line), ":")
	if len(f) != 3 || f[0] == "" {
		return "", 0, 0, false
	}
	start, err1 := strconv.ParseUint(f[1], 10, 32)
	count, err2 := strconv.ParseUint(f[2], 10, 32)
	return f[0], start, count, err1 == nil && err2 == nil && count > 0 && start+count <= allIDs
}

// Subordinate returns all ids that the text of /etc/subuid or /etc/subgid
// gives somebody, as those outside.
func Subordinate(text string) []Extent {
	var list []Extent
	for line := range strings.Lines(text) {
		if _, start, count, ok := parseSubID(line); ok {
			list = append(list, Extent{Outside: uint32(start), Count: uint32(count)})
		}
	}
	return list
}

// overlaps reports whether some of the ids outside are mapped already, which
// the kernel refuses.
func (m Map) overlaps(start, count uint64) bool {
	for _, e := range m {
		if start < uint64(e.Outside)+uint64(e.Count) && uint64(e.Outside) < start+count {
			return true
		}
	}
	return false
}
