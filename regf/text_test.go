package regf_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/regf"
)

const root = `HKEY_LOCAL_MACHINE\SOFTWARE`

func printed(t testing.TB, h *regf.Hive, encoding regf.TextEncoding) []byte {
	t.Helper()
	k, err := h.Root()
	must(t, err)
	var b bytes.Buffer
	must(t, regf.WriteText(&b, k, root, encoding))
	return b.Bytes()
}

// apply makes a hive of the text.
func apply(t testing.TB, base *regf.Hive, text []byte) *regf.Hive {
	t.Helper()
	edits, err := regf.ParseText(text)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	tree := edit(t, base)
	must(t, tree.Apply(root, edits))
	return hiveOf(t, tree)
}

func TestText(t *testing.T) {
	t.Parallel()
	tree, err := regf.Minimal("SOFTWARE", 1)
	must(t, err)
	k, err := tree.Root().Create(`Vendor\"Quoted" [1]`)
	must(t, err)
	long := bytes.Repeat([]byte{0xAB}, 60)
	for _, v := range []regf.Value{
		{Name: "", Type: regf.TypeString, Data: []byte("d\x00\x00\x00")},
		{Name: `a\"b`, Type: regf.TypeString, Data: []byte("\\\x00\"\x00\x00\x00")},
		{Name: "no end", Type: regf.TypeString, Data: []byte("x\x00")},
		{Name: "n", Type: regf.TypeDWord, Data: []byte{0x78, 0x56, 0x34, 0x12}},
		{Name: "short", Type: regf.TypeDWord, Data: []byte{1}},
		{Name: "none", Type: regf.TypeNone},
		{Name: "bin", Type: regf.TypeBinary, Data: long},
		{Name: "multi", Type: regf.TypeMultiString, Data: []byte("a\x00\x00\x00\x00\x00")},
		{Name: "odd", Type: 0x80000010, Data: []byte{0}},
	} {
		must(t, k.SetValue(v))
	}
	want := strings.ReplaceAll(`Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SOFTWARE]

[HKEY_LOCAL_MACHINE\SOFTWARE\Vendor]

[HKEY_LOCAL_MACHINE\SOFTWARE\Vendor\"Quoted" [1]]
@="d"
"a\\\"b"="\\\""
"no end"=hex(1):78,00
"n"=dword:12345678
"short"=hex(4):01
"none"=hex(0):
"bin"=hex:ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,\
  ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,\
  ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab,ab
"multi"=hex(7):61,00,00,00,00,00
"odd"=hex(80000010):00
`, "\n", "\r\n")
	if got := string(printed(t, hiveOf(t, tree), regf.UTF8)); got != want {
		t.Errorf("printed:\n%s\nwant:\n%s", got, want)
	}
}

func TestTextOfDelta(t *testing.T) {
	t.Parallel()
	tree, err := regf.Minimal("SOFTWARE", 1)
	must(t, err)
	tree.Flags = regf.HeaderLayered
	for name, s := range map[string]regf.LayerSemantics{
		"gone": regf.LayerTombstone, "local": regf.LayerSupersedeLocal, "tree": regf.LayerSupersedeTree,
	} {
		k, err := tree.Root().CreateSubkey(name)
		must(t, err)
		k.SetSemantics(s)
	}
	must(t, tree.Root().SetValue(regf.Value{Name: "v", Tombstone: true}))
	h := hiveOf(t, tree)
	must(t, h.Validate())
	want := strings.ReplaceAll(`Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SOFTWARE]
"v"=-

[-HKEY_LOCAL_MACHINE\SOFTWARE\gone]

[HKEY_LOCAL_MACHINE\SOFTWARE\local]
; without the values below

[-HKEY_LOCAL_MACHINE\SOFTWARE\tree]

[HKEY_LOCAL_MACHINE\SOFTWARE\tree]
`, "\n", "\r\n")
	if got := string(printed(t, h, regf.UTF8)); got != want {
		t.Errorf("printed:\n%s\nwant:\n%s", got, want)
	}
}

// TestTextRoundTrip makes hives of the text of hives, and applies the text of deltas: both have the same text then.
func TestTextRoundTrip(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := seeded(seed)
		h := r.hive(t)
		tree, err := regf.NewTree("ROOT", nil)
		must(t, err)
		empty := hiveOf(t, tree)
		for _, encoding := range []regf.TextEncoding{regf.UTF8, regf.UTF16} {
			text := printed(t, h, encoding)
			if again := printed(t, apply(t, empty, text), encoding); !bytes.Equal(again, text) {
				t.Fatalf("seed %d: parsed and printed:\n%s\nwant:\n%s", seed, again, text)
			}
		}
		now := r.changed(t, h)
		d := printed(t, delta(t, h, now), regf.UTF8)
		if bytes.Contains(d, []byte("; without")) { // which the text cannot say
			continue
		}
		got, want := delta(t, now, apply(t, h, d)), now
		for e, err := range got.Walk() {
			must(t, err)
			if n := len(sortedValues(t, e.Key)); n != 0 || e.Semantics() == regf.LayerTombstone {
				below, err := want.Lookup(e.Path)
				if err != nil || len(sortedValues(t, below)) == 0 || !onlyCase(t, e.Key, below) {
					t.Fatalf("seed %d: key %s differs after the delta's text:\n%s", seed, e.Path, d)
				}
			}
		}
	}
}

// onlyCase reports whether the values of a delta's key are those below.
func onlyCase(t testing.TB, k, below regf.Key) bool {
	t.Helper()
	for _, v := range sortedValues(t, k) {
		if w, err := below.Value(v.Name); err != nil || v.Tombstone || !bytes.Equal(v.Data, w.Data) {
			return false
		}
	}
	return true
}

func TestParseTextRefuses(t *testing.T) {
	t.Parallel()
	const head = "Windows Registry Editor Version 5.00\n"
	for text, class := range map[string]error{
		"":                             regf.ErrUnsupported,
		"REGEDIT4\n":                   regf.ErrUnsupported,
		head + "\"v\"=-\n":             regf.ErrInvalid,
		head + "[-a]\n\"v\"=-\n":       regf.ErrInvalid,
		head + "[a\n":                  regf.ErrInvalid,
		head + "[]\n":                  regf.ErrInvalid,
		head + "[a]\nv=1\n":            regf.ErrInvalid,
		head + "[a]\n\"v\n":            regf.ErrInvalid,
		head + "[a]\n\"v\"\n":          regf.ErrInvalid,
		head + "[a]\n\"v\"=dword:x\n":  regf.ErrInvalid,
		head + "[a]\n\"v\"=hex:1ff\n":  regf.ErrInvalid,
		head + "[a]\n\"v\"=hex(q):1\n": regf.ErrInvalid,
		head + "[a]\n\"v\"=word\n":     regf.ErrInvalid,
	} {
		if _, err := regf.ParseText([]byte(text)); !errors.Is(err, class) {
			t.Errorf("%q: %v, want %v", text, err, class)
		}
	}
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte("Windows Registry Editor Version 5.00\r\n\r\n[a\\b]\r\n@=\"x\"\r\n\"v\"=hex(2):00,\\\r\n  01\r\n[-a]\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		edits, err := regf.ParseText(data)
		if err != nil {
			return
		}
		tree, err := regf.NewTree("ROOT", nil)
		must(t, err)
		if err := tree.Apply("", edits); err != nil {
			return
		}
		must(t, hiveOf(t, tree).Validate())
	})
}
