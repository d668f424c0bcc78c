package regf_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/regf"
)

// dump tells all of a hive that a delta can say: keys in order, values by name.
func dump(t testing.TB, h *regf.Hive) string {
	t.Helper()
	var b strings.Builder
	for e, err := range h.Walk() {
		if err != nil {
			t.Fatalf("walk: %v", err)
		}
		class, err := e.Class()
		if err != nil {
			t.Fatal(err)
		}
		sd, err := e.Security()
		if err != nil {
			t.Fatal(err)
		}
		path := e.Path
		fmt.Fprintf(&b, "%s %d %x %q %x %d %v\n", path, e.Modified(), e.Flags()&^0x20, class, sd, e.Semantics(), e.InheritsClass())
		for _, v := range sortedValues(t, e.Key) {
			fmt.Fprintf(&b, "  %q %x %v %x\n", v.Name, v.Type, v.Tombstone, v.Data)
		}
	}
	return b.String()
}

func sortedValues(t testing.TB, k regf.Key) []regf.Value {
	t.Helper()
	var all []regf.Value
	for v, err := range k.Values() {
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for i < len(all) && all[i].Name < v.Name {
			i++
		}
		all = append(all[:i], append([]regf.Value{v}, all[i:]...)...)
	}
	return all
}

func hiveOf(t testing.TB, tree *regf.Tree) *regf.Hive {
	t.Helper()
	data, err := tree.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	h, err := regf.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func edit(t testing.TB, h *regf.Hive) *regf.Tree {
	t.Helper()
	tree, err := h.Edit()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// names collide in every way: case, prefixes, Latin-1 and not, surrogates with and without their other half.
var names = []string{
	"a", "A", "b", "Software", "SOFTWARE", "software2", "é", "É", "ÿ", "Ÿ", "straße", "日本", "Ελλάς", "x y", "{0000-1}",
	"\U0001F600", "\xed\xa0\x80", "\xed\xb0\x80z", "µ", "Μ", "ı", "aa", "aB", "Ab", "z_", "zZ", "[", "{",
}

type source struct{ *rand.Rand }

func (r source) pick(s []string) string { return s[r.IntN(len(s))] }

func (r source) security() []byte {
	sd := make([]byte, 20+4*r.IntN(3))
	sd[0], sd[len(sd)-1] = 1, byte(r.IntN(4))
	return sd
}

func (r source) value() regf.Value {
	sizes := []int{0, 1, 3, 4, 5, 8, 40, 300}
	n := sizes[r.IntN(len(sizes))]
	if r.IntN(40) == 0 {
		n = []int{16344, 16345, 16348, 40000, 70000}[r.IntN(5)]
	}
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.IntN(3))
	}
	name := r.pick(names)
	if r.IntN(8) == 0 {
		name = ""
	}
	return regf.Value{Name: name, Type: regf.Type(r.IntN(14)), Data: data}
}

// fill adds keys and values below n.
func (r source) fill(t testing.TB, n *regf.Node, depth int) {
	t.Helper()
	n.SetModified(regf.Filetime(r.IntN(5)))
	n.SetSecurity(r.security())
	if r.IntN(4) == 0 {
		must(t, n.SetClass(r.pick(names)))
	}
	for range r.IntN(4) {
		must(t, n.SetValue(r.value()))
	}
	if depth == 0 {
		return
	}
	for range r.IntN(4) {
		sub, err := n.CreateSubkey(r.pick(names))
		must(t, err)
		r.fill(t, sub, depth-1)
	}
}

// change edits keys at random: everything that can be said of a hive.
func (r source) change(t testing.TB, n *regf.Node, depth int) {
	t.Helper()
	switch r.IntN(12) {
	case 0:
		must(t, n.SetClass(r.pick(names)))
	case 1:
		must(t, n.SetClass(""))
	case 2:
		n.SetSecurity(r.security())
	case 3:
		n.SetModified(regf.Filetime(r.IntN(9)))
	case 4:
		n.SetFlags(n.Flags() ^ regf.KeySymLink)
	case 5, 6:
		must(t, n.SetValue(r.value()))
	case 7:
		n.DeleteValue(r.pick(names))
	case 8:
		must(t, n.DeleteSubkey(r.pick(names)))
	case 9: // deleted and made anew, perhaps with another case
		name := r.pick(names)
		must(t, n.DeleteSubkey(name))
		sub, err := n.CreateSubkey(strings.ToLower(name))
		must(t, err)
		r.fill(t, sub, depth)
	case 10:
		sub, err := n.CreateSubkey(r.pick(names))
		must(t, err)
		r.fill(t, sub, 1)
	}
	for sub, err := range n.Subkeys() {
		must(t, err)
		if r.IntN(2) == 0 && depth > 0 {
			r.change(t, sub, depth-1)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r source) hive(t testing.TB) *regf.Hive {
	t.Helper()
	tree, err := regf.NewTree("ROOT", nil)
	must(t, err)
	r.fill(t, tree.Root(), 4)
	return hiveOf(t, tree)
}

func (r source) changed(t testing.TB, h *regf.Hive) *regf.Hive {
	t.Helper()
	tree := edit(t, h)
	for range 1 + r.IntN(6) {
		r.change(t, tree.Root(), 4)
	}
	tree.Root().SetFlags(regf.KeyHiveEntry | regf.KeyNoDelete)
	return hiveOf(t, tree)
}

func seeded(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 1))} }

func TestRewriteIsEqual(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		h := seeded(seed).hive(t)
		tree := edit(t, h)
		again := hiveOf(t, tree)
		if got, want := dump(t, again), dump(t, h); got != want {
			t.Fatalf("seed %d: rewritten:\n%swant:\n%s", seed, got, want)
		}
		for _, err := range tree.Root().Subkeys() { // through nodes, not cells
			must(t, err)
		}
		if loaded := hiveOf(t, tree); dump(t, loaded) != dump(t, h) {
			t.Fatalf("seed %d: rewritten through nodes differs", seed)
		}
	}
}

func merged(t testing.TB, base *regf.Hive, deltas ...*regf.Hive) *regf.Hive {
	t.Helper()
	tree, err := regf.Merge(base, deltas...)
	must(t, err)
	return hiveOf(t, tree)
}

func delta(t testing.TB, lower, upper *regf.Hive) *regf.Hive {
	t.Helper()
	tree, err := regf.Diff(lower, upper)
	must(t, err)
	return hiveOf(t, tree)
}

func TestMergeOfDiffIsTheUpperHive(t *testing.T) {
	t.Parallel()
	var seen [4]int
	for seed := range uint64(3000) {
		r := seeded(seed)
		base := r.hive(t)
		now := r.changed(t, base)
		if seed%10 == 0 { // nothing in common
			now = r.hive(t)
		}
		d := delta(t, base, now)
		countSemantics(t, d, &seen)
		if got, want := dump(t, merged(t, base, d)), dump(t, now); got != want {
			t.Fatalf("seed %d: merged:\n%swant:\n%sdelta:\n%s", seed, got, want, dump(t, d))
		}
	}
	for s, n := range seen {
		if n < 100 {
			t.Errorf("%d keys with semantics %d: the test tells nothing of them", n, s)
		}
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	changed := 0
	for seed := range uint64(300) {
		r := seeded(seed)
		base := r.hive(t)
		for _, now := range []*regf.Hive{base, hiveOf(t, edit(t, base)), r.changed(t, base)} {
			d, err := regf.Diff(base, now)
			must(t, err)
			if same := dump(t, now) == dump(t, base); d.Same() != same {
				t.Fatalf("seed %d: same: %v, want %v; delta:\n%s", seed, d.Same(), same, dump(t, hiveOf(t, d)))
			} else if !same {
				changed++
			}
		}
	}
	if changed < 100 {
		t.Errorf("only %d hives differ", changed)
	}
}

func countSemantics(t testing.TB, d *regf.Hive, seen *[4]int) {
	t.Helper()
	for e, err := range d.Walk() {
		must(t, err)
		seen[e.Semantics()]++
	}
}

func TestDeltasAtOnceAndOneAfterAnother(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		r := seeded(seed)
		base := r.hive(t)
		top, stepwise := base, base
		var deltas []*regf.Hive
		for range 3 {
			next := r.changed(t, top)
			d := delta(t, top, next)
			deltas = append(deltas, d)
			stepwise = merged(t, stepwise, d)
			top = next
		}
		want := dump(t, top)
		if got := dump(t, merged(t, base, deltas...)); got != want {
			t.Fatalf("seed %d: merged at once:\n%swant:\n%s", seed, got, want)
		}
		if dump(t, stepwise) != want {
			t.Fatalf("seed %d: merged one after another differs", seed)
		}
	}
}

func TestMergeWithoutDeltas(t *testing.T) {
	t.Parallel()
	h := seeded(7).hive(t)
	if dump(t, merged(t, h)) != dump(t, h) {
		t.Error("a hive without deltas changes by merging")
	}
	d := delta(t, h, h)
	root, err := d.Root()
	must(t, err)
	if root.NumSubkeys() != 0 || d.Header.Flags&regf.HeaderLayered == 0 {
		t.Errorf("the delta of no change: %d keys, flags %d", root.NumSubkeys(), d.Header.Flags)
	}
}

func TestOpenReadsWhatParseReads(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		data, err := edit(t, seeded(seed).hive(t)).Bytes()
		must(t, err)
		opened, err := regf.Open(bytes.NewReader(data), int64(len(data)))
		must(t, err)
		parsed, err := regf.Parse(data)
		must(t, err)
		if dump(t, opened) != dump(t, parsed) {
			t.Fatalf("seed %d: Open and Parse differ", seed)
		}
	}
}

// countingReader counts what is read of it.
type countingReader struct {
	r *bytes.Reader
	n int
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(b, off)
	c.n += n
	return n, err
}

func TestOpenReadsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	tree, err := regf.Minimal("ROOT", 1)
	must(t, err)
	for i := range 400 {
		k, err := tree.Root().CreateSubkey(fmt.Sprintf("key %03d", i))
		must(t, err)
		must(t, k.SetValue(regf.Value{Name: "v", Type: regf.TypeBinary, Data: bytes.Repeat([]byte{byte(i)}, 40000)}))
	}
	data := treeBytes(t, tree)
	r := &countingReader{r: bytes.NewReader(data)}
	h, err := regf.Open(r, int64(len(data)))
	must(t, err)
	k, err := h.Lookup(`KEY 123`)
	must(t, err)
	v, err := k.Value("V")
	must(t, err)
	if len(v.Data) != 40000 || v.Data[39999] != 123 {
		t.Error("the value is another")
	}
	if r.n > len(data)/4 {
		t.Errorf("%d of %d bytes read for one value", r.n, len(data))
	}
}
