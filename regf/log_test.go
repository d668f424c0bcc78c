package regf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// The vectors are those of .NET's tests of the same function.
func TestMarvin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		data string
		want uint64
	}{
		{"", 0x30ED35C100CD3C7D},
		{"\xaf", 0x48E73FC77D75DDC1},
		{"\xe7\x0f", 0xB5F6E1FC485DBFF8},
	} {
		if got := marvin(0x004FB61A001BDBCC, []byte(c.data)); got != c.want {
			t.Errorf("marvin(%x) = %#x, want %#x", c.data, got, c.want)
		}
	}
}

// twoStates returns a clean hive, and the same after a change that makes it grow.
func twoStates(t testing.TB) (before, after []byte) {
	t.Helper()
	tree, err := Minimal("SOFTWARE", 7)
	if err != nil {
		t.Fatal(err)
	}
	states := make([][]byte, 2)
	for i := range states {
		for j := range 100 {
			k, err := tree.Root().Create(fmt.Sprintf(`state %d\key %d`, i, j))
			if err != nil {
				t.Fatal(err)
			}
			if err := k.SetValue(Value{Name: "v", Type: TypeBinary, Data: make([]byte, 50*i+9)}); err != nil {
				t.Fatal(err)
			}
		}
		if states[i], err = tree.Bytes(); err != nil {
			t.Fatal(err)
		}
	}
	return states[0], states[1]
}

// dirty makes the hive look as if its writer had been interrupted, with sequence numbers 6 and 5.
func dirty(hive []byte) []byte {
	hive = bytes.Clone(hive)
	put32(hive[4:], 6)
	put32(hive[8:], 5)
	put32(hive[508:], checksum(hive))
	return hive
}

func logHeader(after []byte, kind, sequence uint32) []byte {
	b := bytes.Clone(after[:sector])
	put32(b[4:], sequence)
	put32(b[8:], sequence)
	put32(b[28:], kind)
	put32(b[508:], checksum(b))
	return b
}

// newEntry is a log entry with the pages of after from first to last.
func newEntry(after []byte, sequence uint32, first, last int) []byte {
	count := last - first
	b := make([]byte, entrySize)
	copy(b, "HvLE")
	put32(b[12:], sequence)
	put32(b[16:], uint32(len(after)-headerSize))
	put32(b[20:], uint32(count))
	for i := first; i < last; i++ {
		ref := make([]byte, 8)
		put32(ref, uint32(i*binAlign))
		put32(ref[4:], binAlign)
		b = append(b, ref...)
	}
	b = append(b, after[headerSize+first*binAlign:headerSize+last*binAlign]...)
	b = append(b, make([]byte, (sector-len(b)%sector)%sector)...)
	put32(b[4:], uint32(len(b)))
	put64(b[24:], marvin(logSeed, b[entrySize:]))
	put64(b[32:], marvin(logSeed, b[:32]))
	return b
}

func oldLog(after []byte) []byte {
	pages := (len(after) - headerSize) / sector
	b := append(logHeader(after, logOld, 6), "DIRT"...)
	b = append(b, bytes.Repeat([]byte{0xFF}, pages/8)...)
	b = append(b, make([]byte, (sector-len(b)%sector)%sector)...)
	return append(b, after[headerSize:]...)
}

func TestReplay(t *testing.T) {
	t.Parallel()
	before, after := twoStates(t)
	pages := (len(after) - headerSize) / binAlign
	half := pages / 2
	first, second := newEntry(after, 5, 0, half), newEntry(after, 6, half, pages)
	stale := newEntry(before, 4, 0, 1)
	join := func(parts ...[]byte) []byte {
		return slices.Concat(append([][]byte{logHeader(after, logNew, 5)}, parts...)...)
	}
	bad := bytes.Clone(second)
	bad[100] ^= 1
	badHeader := dirty(before)
	badHeader[508] ^= 1
	for _, c := range []struct {
		name     string
		hive     []byte
		logs     [][]byte
		sequence uint32 // 0: an error
	}{
		{"one log", dirty(before), [][]byte{join(first, second)}, 6},
		{"two logs", dirty(before), [][]byte{join(first), join(second)}, 6},
		{"two logs, the other way round", dirty(before), [][]byte{join(second), join(first)}, 6},
		{"what was applied before", dirty(before), [][]byte{join(stale, first, second)}, 6},
		{"old entries at the end", dirty(before), [][]byte{join(first, second, stale)}, 6},
		{"damaged entry", dirty(before), [][]byte{join(first, bad)}, 5},
		{"damaged base block", badHeader, [][]byte{join(first, second)}, 6},
		{"old format", dirty(before), [][]byte{oldLog(after)}, 6},
		{"an empty log first", dirty(before), [][]byte{nil, join(first, second)}, 6},
		{"no logs", dirty(before), nil, 0},
		{"another's log", dirty(before), [][]byte{join(newEntry(after, 9, 0, pages))}, 0},
		{"log cut short", dirty(before), [][]byte{join(first)[:3000]}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := Replay(c.hive, c.logs...)
			if c.sequence == 0 {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			h, err := Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if h.Dirty() || h.Primary != c.sequence {
				t.Errorf("sequence numbers %d and %d, want %d", h.Primary, h.Secondary, c.sequence)
			}
			if c.sequence == 6 && !bytes.Equal(got[headerSize:], after[headerSize:]) {
				t.Error("the hive is not as it was")
			}
		})
	}
	if got, err := Replay(before, join(first, second)); err != nil || !bytes.Equal(got, before) {
		t.Errorf("a clean hive is changed, or %v", err)
	}
}

func FuzzReplay(f *testing.F) {
	before, after := twoStates(f)
	f.Add(dirty(before), slices.Concat(logHeader(after, logNew, 5), newEntry(after, 5, 0, 2)), []byte{})
	f.Add(dirty(before), oldLog(after), logHeader(after, logNew, 5))
	f.Fuzz(func(_ *testing.T, hive, a, b []byte) {
		for _, log := range [][]byte{a, b} { // so that the fuzzer gets past the sums
			if len(log) >= sector {
				copy(log, "regf")
				put32(log[508:], checksum(log))
			}
			for at := sector; at+entrySize <= len(log); {
				size := int(le32(log[at+4:]))
				if size < entrySize || size > len(log)-at {
					break
				}
				e := log[at:][:size]
				put64(e[24:], marvin(logSeed, e[entrySize:]))
				put64(e[32:], marvin(logSeed, e[:32]))
				at += size
			}
		}
		got, err := Replay(hive, a, b)
		if err != nil {
			return
		}
		if len(got) > len(hive)+len(a)+len(b)+headerSize {
			panic("the hive grew beyond its logs")
		}
		if h, err := Parse(got); err == nil {
			_ = h.Validate()
		}
	})
}
