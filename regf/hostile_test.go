package regf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/regf"
)

var le = binary.LittleEndian

// victim is a small hive whose cells the hostile vectors spoil: the root has the subkeys a and b, a has c; a has a value
// with data of its own and one with big data.
func victim(t testing.TB) []byte {
	t.Helper()
	tree, err := regf.Minimal("ROOT", 1)
	must(t, err)
	a, err := tree.Root().Create("a")
	must(t, err)
	must(t, a.SetValue(regf.Value{Name: "data", Type: regf.TypeBinary, Data: make([]byte, 100)}))
	must(t, a.SetValue(regf.Value{Name: "big", Type: regf.TypeBinary, Data: make([]byte, 40000)}))
	_, err = a.Create("c")
	must(t, err)
	_, err = tree.Root().Create("b")
	must(t, err)
	return treeBytes(t, tree)
}

// seal makes the base block's checksum right.
func seal(hive []byte) []byte {
	var sum uint32
	for i := 0; i < 508; i += 4 {
		sum ^= le.Uint32(hive[i:])
	}
	le.PutUint32(hive[508:], sum)
	return hive
}

// cellAt returns the content of the cell at an offset.
func cellAt(hive []byte, off uint32) []byte { return hive[4096+off+4:] }

// use reads all of a hive in every way there is and returns the first error of each.
func use(h *regf.Hive) (errs []error) {
	var walk error
	for e, err := range h.Walk() {
		if walk = err; err != nil {
			break
		}
		if _, err := e.Class(); err != nil {
			walk = err
		}
		if _, err := e.Security(); err != nil {
			walk = err
		}
		for _, err := range e.Values() {
			if err != nil {
				walk = err
			}
		}
		if walk != nil {
			break
		}
	}
	rewrite := func(tree *regf.Tree, err error) error {
		if err == nil {
			_, err = tree.Bytes()
		}
		return err
	}
	errs = append(errs, walk, h.Validate(), rewrite(h.Edit()), rewrite(regf.Merge(h, h)), rewrite(regf.Diff(h, h)))
	if k, err := h.Root(); err == nil {
		errs = append(errs, regf.WriteText(new(bytes.Buffer), k, "", regf.UTF8))
	}
	return errs
}

func TestHostileHives(t *testing.T) {
	t.Parallel()
	good := parse(t, victim(t))
	offset := func(path string) uint32 {
		k, err := good.Lookup(path)
		must(t, err)
		return k.Offset()
	}
	rootOff, a, c := offset(""), offset("a"), offset(`a\c`)
	field := func(hive []byte, off uint32, at int) uint32 { return le.Uint32(cellAt(hive, off)[at:]) }
	put := func(off uint32, at int, v uint32) func([]byte) {
		return func(hive []byte) { le.PutUint32(cellAt(hive, off)[at:], v) }
	}
	value := func(hive []byte, i int) uint32 { return field(hive, field(hive, a, 40), 4*i) }
	blind := map[string][]int{ // uses that do not look there, or, of so small a thing, do not mind
		"security outside": {5}, "security is a key": {5}, "class outside": {5}, "one key twice": {0, 5},
	}
	for name, spoil := range map[string]func([]byte){
		"root outside":             func(h []byte) { le.PutUint32(h[36:], 0x7FFFFFF8) },
		"root in a bin's head":     func(h []byte) { le.PutUint32(h[36:], 0) },
		"root not aligned":         func(h []byte) { le.PutUint32(h[36:], rootOff+4) },
		"free cell":                func(h []byte) { le.PutUint32(h[4096+a:], 96) },
		"cell beyond the end":      func(h []byte) { le.PutUint32(h[4096+a:], 0x80000008) },
		"cell of smallest number":  func(h []byte) { le.PutUint32(h[4096+a:], 0x80000000) },
		"name longer than cell":    func(h []byte) { le.PutUint16(cellAt(h, a)[72:], 0xFFFE) },
		"class outside":            func(h []byte) { le.PutUint16(cellAt(h, a)[74:], 8); put(a, 48, 0xFFFFFFF0)(h) },
		"security outside":         put(a, 44, 0x10000000),
		"security is a key":        put(a, 44, rootOff),
		"subkey is its parent":     func(h []byte) { put(field(h, a, 28), 4, a)(h) },
		"subkey is the root":       func(h []byte) { put(field(h, a, 28), 4, rootOff)(h) },
		"more subkeys than listed": put(a, 20, 7),
		"absurd count of subkeys":  put(a, 20, 0xFFFFFFFF),
		"list is a key":            put(a, 28, c),
		"list longer than cell":    func(h []byte) { le.PutUint16(cellAt(h, field(h, a, 28))[2:], 0xFFFF) },
		"list of lists of itself": func(h []byte) {
			list := field(h, a, 28)
			copy(cellAt(h, list), "ri\x01\x00")
			put(list, 4, list)(h)
		},
		"one key twice":             func(h []byte) { l := field(h, rootOff, 28); put(l, 12, field(h, l, 4))(h) },
		"absurd count of values":    put(a, 36, 0xFFFFFFFF),
		"list of values outside":    put(a, 40, 0xFFFFFF00),
		"value is a key":            func(h []byte) { put(field(h, a, 40), 0, c)(h) },
		"value's name too long":     func(h []byte) { le.PutUint16(cellAt(h, value(h, 0))[2:], 500) },
		"data longer than cell":     func(h []byte) { put(value(h, 0), 4, 5000)(h) },
		"data longer than the hive": func(h []byte) { put(value(h, 0), 4, 0x7FFFFFFF)(h) },
		"nine bytes inside":         func(h []byte) { put(value(h, 0), 4, 0x80000009)(h) },
		"data outside":              func(h []byte) { put(value(h, 0), 8, 0xFFFFFF00)(h) },
		"too many segments":         func(h []byte) { le.PutUint16(cellAt(h, field(h, value(h, 1), 8))[2:], 0xFFFF) },
		"segments listed nowhere":   func(h []byte) { put(field(h, value(h, 1), 8), 4, 0xFFFFFF00)(h) },
		"segment too short":         func(h []byte) { l := field(h, field(h, value(h, 1), 8), 4); put(l, 0, rootOff)(h) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := victim(t)
			spoil(data)
			h, err := regf.Parse(seal(data))
			must(t, err)
			for i, err := range use(h) {
				if err == nil && slices.Contains(blind[name], i) {
					continue
				}
				if !errors.Is(err, regf.ErrCorrupt) || !strings.Contains(err.Error(), "cell 0x") {
					t.Errorf("use %d: %v names no cell", i, err)
				}
			}
		})
	}
}

// TestValuesThatShareData has a key whose thousand values all have the same 40 KB.
func TestValuesThatShareData(t *testing.T) {
	t.Parallel()
	tree, err := regf.Minimal("ROOT", 1)
	must(t, err)
	must(t, tree.Root().SetValue(regf.Value{Name: "big", Type: regf.TypeBinary, Data: make([]byte, 40000)}))
	for i := range 1000 {
		must(t, tree.Root().SetValue(regf.Value{Name: fmt.Sprint(i), Type: regf.TypeBinary, Data: make([]byte, 5)}))
	}
	data := treeBytes(t, tree)
	k, err := parse(t, data).Root()
	must(t, err)
	list := cellAt(data, le.Uint32(cellAt(data, k.Offset())[40:]))
	for i := range 1000 {
		copy(cellAt(data, le.Uint32(list[4+4*i:]))[4:12], cellAt(data, le.Uint32(list))[4:12])
	}
	for i, err := range use(parse(t, data)) {
		if !errors.Is(err, regf.ErrCorrupt) {
			t.Errorf("use %d: %v", i, err)
		}
	}
}

// TestHiveBomb has 1.8 million subkeys in 150 KB: one list, and lists of it.
func TestHiveBomb(t *testing.T) {
	t.Parallel()
	tree, err := regf.Minimal("ROOT", 1)
	must(t, err)
	a, err := tree.Root().Create("a")
	must(t, err)
	must(t, a.SetValue(regf.Value{Name: "lists", Type: regf.TypeBinary, Data: bytes.Repeat([]byte{1}, 16000)}))
	b, err := tree.Root().Create("b")
	must(t, err)
	_, err = b.Create("sub")
	must(t, err)
	data := treeBytes(t, tree)
	h := parse(t, data)
	ka, err := h.Lookup("a")
	must(t, err)
	kb, err := h.Lookup("b")
	must(t, err)
	vk := le.Uint32(cellAt(data, le.Uint32(cellAt(data, ka.Offset())[40:])))
	lists := le.Uint32(cellAt(data, vk)[8:])
	leaf := le.Uint32(cellAt(data, kb.Offset())[28:])
	copy(cellAt(data, lists), []byte{'r', 'i', 0xA0, 0x0F})
	for i := range 0xFA0 - 2 {
		le.PutUint32(cellAt(data, lists)[4+4*i:], leaf)
	}
	for _, count := range []uint32{0xFA0, 200} {
		le.PutUint16(cellAt(data, lists)[2:], uint16(count))
		le.PutUint32(cellAt(data, ka.Offset())[20:], count)
		le.PutUint32(cellAt(data, ka.Offset())[28:], lists)
		for i, err := range use(parse(t, seal(data))) {
			if !errors.Is(err, regf.ErrCorrupt) {
				t.Errorf("%d lists, use %d: %v", count, i, err)
			}
		}
	}
}

func TestHostileBaseBlocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func([]byte) []byte
		class error
	}{
		"empty":            {func([]byte) []byte { return nil }, regf.ErrCorrupt},
		"cut in the block": {func(h []byte) []byte { return h[:4095] }, regf.ErrCorrupt},
		"cut in the bins":  {func(h []byte) []byte { return h[:8191] }, regf.ErrCorrupt},
		"checksum":         {func(h []byte) []byte { h[508] ^= 1; return h }, regf.ErrCorrupt},
		"signature":        {func(h []byte) []byte { h[0] = 'R'; return seal(h) }, regf.ErrCorrupt},
		"no bins":          {func(h []byte) []byte { le.PutUint32(h[40:], 0); return seal(h) }, regf.ErrCorrupt},
		"absurd size":      {func(h []byte) []byte { le.PutUint32(h[40:], 0xFFFFF000); return seal(h) }, regf.ErrCorrupt},
		"first bin":        {func(h []byte) []byte { h[4096] = 'H'; return h }, regf.ErrCorrupt},
		"version 1.2":      {func(h []byte) []byte { h[24] = 2; return seal(h) }, regf.ErrUnsupported},
		"version 2.5":      {func(h []byte) []byte { h[20] = 2; return seal(h) }, regf.ErrUnsupported},
		"a log":            {func(h []byte) []byte { h[28] = 6; return seal(h) }, regf.ErrUnsupported},
	} {
		data := c.spoil(victim(t))
		_, err := regf.Parse(data)
		_, err2 := regf.Open(bytes.NewReader(data), int64(len(data)))
		if !errors.Is(err, c.class) || !errors.Is(err2, c.class) {
			t.Errorf("%s: %v and %v, want %v", name, err, err2, c.class)
		}
	}
}

// TestValidateFinds has what reading does not mind.
func TestValidateFinds(t *testing.T) {
	t.Parallel()
	good := parse(t, victim(t))
	k, err := good.Lookup("a")
	must(t, err)
	a := k.Offset()
	for name, spoil := range map[string]func([]byte){
		"parent":   func(h []byte) { le.PutUint32(cellAt(h, a)[16:], 0) },
		"hash":     func(h []byte) { cellAt(h, le.Uint32(cellAt(h, a)[28:]))[8] ^= 1 },
		"order":    func(h []byte) { cellAt(h, a)[76] = 'z' },
		"security": func(h []byte) { cellAt(h, le.Uint32(cellAt(h, a)[44:]))[12]++ },
		"layered":  func(h []byte) { cellAt(h, a)[13] = 2 },
		"bin":      func(h []byte) { h[4096+le.Uint32(h[4096+8:])] ^= 1 },
		"dirty":    func(h []byte) { h[4]++ },
	} {
		data := victim(t)
		spoil(data)
		if err := parse(t, seal(data)).Validate(); !errors.Is(err, regf.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, good.Validate())
}

// TestUpperCaseIsThatOfNTFS compares with the table that mkntfs gives volumes, which is Windows'.
func TestUpperCaseIsThatOfNTFS(t *testing.T) {
	t.Parallel()
	programs := testenv.NeedCommand(t, "mkntfs", "ntfscat")
	image := filepath.Join(t.TempDir(), "ntfs")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 8<<20))
	if out, err := exec.Command(programs[0], "-F", "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkntfs: %v: %s", err, out)
	}
	table, err := exec.Command(programs[1], "-f", image, "$UpCase").Output()
	must(t, err)
	if len(table) != 2<<16 {
		t.Fatalf("the table has %d bytes", len(table))
	}
	upper := func(r rune) rune { return rune(le.Uint16(table[2*r:])) }
	for r := range rune(0x10000) {
		if r >= 0xD800 && r < 0xE000 {
			continue
		}
		if !regf.EqualNames(string(r), string(upper(r))) {
			t.Errorf("%#x is not %#x", r, upper(r))
		}
		if u := unicode.ToUpper(r); u != upper(r) && u < 0x10000 && upper(u) != upper(r) && regf.EqualNames(string(r), string(u)) {
			t.Errorf("%#x is %#x, as in Unicode and not in Windows", r, u)
		}
	}
	for _, pair := range []string{"µΜ", "ıI", "ſS", "ςΣ", "ꭰᎠ", "ᲀВ"} {
		r := []rune(pair)
		if regf.EqualNames(string(r[0]), string(r[1])) {
			t.Errorf("%q are one name", pair)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(victim(f))
	f.Add(treeBytes(f, edit(f, seeded(3).hive(f))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 4096 {
			return
		}
		h, err := regf.Parse(seal(data))
		if err != nil {
			return
		}
		use(h)
		tree, err := h.Edit()
		if err != nil {
			return
		}
		again, err := tree.Bytes()
		if err != nil {
			return
		}
		if len(again) > 8*len(data)+1<<16 {
			t.Fatalf("%d bytes become %d", len(data), len(again))
		}
		h2, err := regf.Parse(again)
		must(t, err)
		for _, err := range h2.Walk() {
			must(t, err)
		}
	})
}

func FuzzMerge(f *testing.F) {
	base := seeded(1).hive(f)
	f.Add(treeBytes(f, edit(f, delta(f, base, seeded(2).changed(f, base)))))
	f.Add(treeBytes(f, edit(f, delta(f, base, seeded(3).hive(f)))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 4096 {
			return
		}
		d, err := regf.Parse(seal(data))
		if err != nil {
			return
		}
		tree, err := regf.Merge(base, d, d)
		if err != nil {
			return
		}
		out, err := tree.Bytes()
		if err != nil {
			return
		}
		for e, err := range parse(t, out).Walk() {
			must(t, err)
			if e.Semantics() != regf.LayerMerge {
				t.Fatalf("merged key %q has layer semantics", e.Path)
			}
		}
	})
}

// FuzzDiff compares any hive with another one, both ways, and merges what it found: that is the one again.
func FuzzDiff(f *testing.F) {
	base := seeded(1).hive(f)
	f.Add(treeBytes(f, edit(f, seeded(2).changed(f, base))))
	f.Add(treeBytes(f, edit(f, seeded(3).hive(f))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 4096 {
			return
		}
		h, err := regf.Parse(seal(data))
		if err != nil {
			return
		}
		for _, pair := range [][2]*regf.Hive{{base, h}, {h, base}} {
			tree, err := regf.Diff(pair[0], pair[1])
			if err != nil {
				continue
			}
			out, err := tree.Bytes()
			if err != nil {
				continue
			}
			merged, err := regf.Merge(pair[0], parse(t, out))
			if err != nil {
				t.Fatalf("what differs cannot be merged: %v", err)
			}
			whole, err := merged.Bytes()
			must(t, err)
			left, err := regf.Diff(parse(t, whole), pair[1])
			must(t, err)
			if !left.Same() {
				t.Fatal("merged, it is another hive")
			}
		}
	})
}
