package userns

import (
	"slices"
	"strings"
	"testing"
)

func TestMapping(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       Map
	}{
		{"no file", "", Map{{0, 1500, 1}}},
		{"by name", "other:1:9\nme:200000:65536\n", Map{{0, 1500, 1}, {1, 200000, 65536}}},
		{"by number", "1500:200000:65536", Map{{0, 1500, 1}, {1, 200000, 65536}}},
		{"several", "me:200000:10\nme:300000:20\n", Map{{0, 1500, 1}, {1, 200000, 10}, {11, 300000, 20}}},
		{"spaces around", "  me:200000:10  \n\n", Map{{0, 1500, 1}, {1, 200000, 10}}},
		{"malformed", "me\nme:\nme:1\nme:a:5\nme:5:a\nme:5:5:5\nme:-5:5\n:5:5\n# me:7:7\nme:200000:10", Map{{0, 1500, 1}, {1, 200000, 10}}},
		{"none", "me:200000:0\n", Map{{0, 1500, 1}}},
		{"too many", "me:1:4294967295\nme:4294967290:10\nme:4294967296:1\n", Map{{0, 1500, 1}}},
		{"as many as there are", "me:4294967290:5\n", Map{{0, 1500, 1}, {1, 4294967290, 5}}},
		{"the user's own", "me:1000:1000\nme:1500:1\n", Map{{0, 1500, 1}}},
		{"the same twice", "me:200000:10\nme:200005:10\nme:200010:10\n", Map{{0, 1500, 1}, {1, 200000, 10}, {11, 200010, 10}}},
	} {
		if got := mapping(1500, c.text, "1500", "me"); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	var lines strings.Builder
	for range 1000 {
		lines.WriteString("me:1:1\n")
	}
	if got := mapping(0, lines.String(), "me"); len(got) != 2 {
		t.Errorf("a thousand equal lines: got %v", got)
	}
}

func TestParseMap(t *testing.T) {
	t.Parallel()
	m, err := parseMap("         0       1500          1\n         1     200000      65536\n")
	if want := (Map{{0, 1500, 1}, {1, 200000, 65536}}); err != nil || !slices.Equal(m, want) {
		t.Errorf("got %v, %v, want %v", m, err, want)
	}
	if m.Count() != 65537 || m.isInitial() {
		t.Errorf("%v has %d ids, initial: %v", m, m.Count(), m.isInitial())
	}
	for id, want := range map[uint32]bool{0: true, 1: true, 65536: true, 65537: false, 1<<32 - 1: false} {
		if m.Has(id) != want {
			t.Errorf("%v has %d: %v", m, id, !want)
		}
	}
	if m, err := parseMap("0 0 4294967295\n"); err != nil || !m.isInitial() {
		t.Errorf("the initial map: %v, %v", m, err)
	}
	for _, text := range []string{"", "\n", "0 0\n", "0 0 x\n", "0 0 1 1\n", "0 0 4294967296\n", "-1 0 1\n"} {
		if m, err := parseMap(text); err == nil {
			t.Errorf("%q: got %v", text, m)
		}
	}
	if got := (Map{{0, 1500, 1}, {1, 2, 3}}).args(); !slices.Equal(got, []string{"0", "1500", "1", "1", "2", "3"}) {
		t.Errorf("as arguments: %q", got)
	}
}

// FuzzMapping has the kernel's rules hold for whatever the file says: no id
// twice on either side, none that is no id.
func FuzzMapping(f *testing.F) {
	f.Add("me:100000:65536\nme:200000:5\n1:1:1\n", uint32(1000))
	f.Add("me:4294967290:5\nme:0:4294967295", uint32(4294967294))
	f.Fuzz(func(t *testing.T, text string, self uint32) {
		m := mapping(self, text, "me", "1000")
		if len(m) == 0 || m[0] != (Extent{0, self, 1}) || len(m) > maxExtents {
			t.Fatalf("got %v", m)
		}
		next := uint64(0)
		for i, e := range m {
			if uint64(e.Inside) != next || e.Count == 0 || uint64(e.Outside)+uint64(e.Count) > allIDs && i > 0 {
				t.Fatalf("extent %d of %v", i, m)
			}
			next += uint64(e.Count)
			if m[:i].overlaps(uint64(e.Outside), uint64(e.Count)) {
				t.Fatalf("extent %d of %v is there twice", i, m)
			}
		}
		if next > allIDs {
			t.Fatalf("%d ids in %v", next, m)
		}
	})
}
